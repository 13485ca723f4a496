//! Tests pools on a cluster that Patroni manages: switchover, failover, restarts, the loss of etcd, and a leader that
//! loses its lock but still accepts writes.
//!
//! Each test starts a cluster and runs its scenarios one after another. `make trials` repeats each scenario twenty
//! times and asserts each time limit as the 95th percentile. Otherwise each scenario runs once or twice, and may take
//! twice as long.
#![allow(clippy::print_stdout, reason = "tests print their measurements")]
#![allow(unreachable_pub, reason = "a test binary has no public API")]

#[path = "../common/mod.rs"]
mod common;
mod faults;
#[path = "../health/ledger.rs"]
mod ledger;
mod setup;
mod switchover;
mod unfenced;
mod watch;
mod writes;

use std::time::Duration;

/// Maximum time from the first write that a new leader accepts to the first write through the pool.
const RESUME: Duration = Duration::from_millis(200);

/// Replication is synchronous, so no acknowledged write may be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_write_is_lost_and_no_read_fails_in_a_synchronous_cluster() {
    let Some(cluster) = setup::cluster().await else { return };
    let pool = setup::pool(&cluster).await;
    switchover::by_patronictl(&cluster, &pool).await;
    faults::standby_restarts(&cluster, &pool).await;
    faults::leader_is_killed(&cluster, &pool).await;
    faults::etcd_is_lost(&cluster, &pool).await;
    drop(pool);
    setup::assert_removed_after_a_panic(cluster).await;
}

/// Replication is asynchronous, so a former leader accepts writes without its standbys.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_leave_a_leader_that_is_not_fenced() {
    let Some(cluster) = setup::cluster().await else { return };
    cluster.set_synchronous(false).await.expect("the replication mode is changed");
    let pool = setup::pool(&cluster).await;
    unfenced::patroni_is_paused(&cluster, &pool).await;
    unfenced::patroni_is_killed(&cluster, &pool).await;
    unfenced::standby_is_promoted_by_mistake(&cluster, &pool).await;
    unfenced::standby_is_promoted_by_mistake_without_privileges(&cluster, &pool).await;
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}
