//! Servers that accept writes without holding the leader's lock, in a cluster with asynchronous replication.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use podpool::{
    Pool, Role, Target,
    testkit::{self, PatroniCluster},
};

use crate::{
    common::{
        paced::Paced,
        trials::{self, assert_within},
        until,
    },
    watch::{Fences, LIMIT, first_accepted},
    writes::Writes,
};

/// Maximum time from the first write that a new leader accepts to the last write on the former one.
const LEAVE: Duration = Duration::from_secs(1);

/// Maximum time from the moment at which the cluster is stable to the first write.
const RECOVER: Duration = Duration::from_secs(5);

/// Stops the leader's Patroni (SIGSTOP), so that its lock expires and another Pod is promoted. DNS keeps all Pods.
pub async fn patroni_is_paused(cluster: &PatroniCluster, pool: &Pool) {
    let mut times = Vec::new();
    for _ in 0..trials::count(1) {
        let old = cluster.stable().await.expect("the cluster is stable");
        cluster.follow_readiness(false);
        cluster.pause_patroni(old).expect("Patroni is paused");
        times.push(leaves(cluster, pool, old).await);
        cluster.follow_readiness(true);
        cluster.resume_patroni(old).expect("Patroni is resumed");
    }
    assert_within(LEAVE, "leader's Patroni paused: last write on the former leader", times);
}

/// Kills the leader's Patroni, so that its lock expires and another Pod is promoted. The Pod leaves DNS.
pub async fn patroni_is_killed(cluster: &PatroniCluster, pool: &Pool) {
    let mut times = Vec::new();
    for _ in 0..trials::count(1) {
        let old = cluster.stable().await.expect("the cluster is stable");
        cluster.kill_patroni(old).expect("Patroni is killed");
        times.push(leaves(cluster, pool, old).await);
        cluster.start_patroni(old).expect("Patroni starts");
    }
    assert_within(LEAVE, "leader's Patroni killed: last write on the former leader", times);
}

/// Writes until a new leader acknowledges writes, and returns the time from its first accepted write to the last write
/// on the former one. Asserts that no other Pod is fenced.
async fn leaves(cluster: &PatroniCluster, pool: &Pool, old: usize) -> Duration {
    let (fences, writes) = (Fences::start(pool), Writes::start(pool));
    let accepted = first_accepted(cluster, (0..cluster.len()).filter(|&ordinal| ordinal != old)).await;
    let (former, new) = (cluster.address(old), cluster.address(accepted.ordinal));
    let written = || writes.first_after(accepted.at, new.ip());
    until(LIMIT, "the new leader acknowledges a write", || written().is_some()).await;
    // Two probe intervals, in which a write on the former leader would be found.
    let end = Instant::now() + pool.config().limits().probe_interval * 2;
    until(LIMIT, "two probe intervals pass", || Instant::now() > end).await;
    let late = writes.after(accepted.at, former.ip());
    println!("{} writes on the former leader after the new one accepted writes", late.len());
    let others: Vec<_> = fences.list().into_iter().filter(|text| !text.contains(&former.to_string())).collect();
    assert_eq!(others, Vec::<String>::new(), "fenced Pods that do not accept writes");
    late.last().map_or(Duration::ZERO, |last| *last - accepted.at)
}

/// Promotes a standby next to the leader. Patroni keeps the leader, and reinitializes the standby. The application's
/// role has `pg_read_all_stats`, so the timelines of standbys are known as soon as they stream.
pub async fn standby_is_promoted_by_mistake(cluster: &PatroniCluster, pool: &Pool) {
    let mut times = Vec::new();
    for _ in 0..trials::count(1) {
        times.push(promotion_by_mistake(cluster, pool, cluster.replicating()).await);
    }
    assert_within(RECOVER, "standby promoted by mistake: writes resume after the cluster is stable", times);
}

/// Does the same, but the application's role is not a member of `pg_read_all_stats`. The timelines of standbys are then
/// known after their next restartpoint.
pub async fn standby_is_promoted_by_mistake_without_privileges(cluster: &PatroniCluster, pool: &Pool) {
    let user = pool.config().user().to_owned();
    set_membership(cluster, "REVOKE", "FROM", &user).await;
    let mut times = Vec::new();
    for _ in 0..trials::count(1) {
        let restarted = async {
            let leader = cluster.replicating().await?;
            restartpoints(cluster, leader).await;
            Ok(leader)
        };
        times.push(promotion_by_mistake(cluster, pool, restarted).await);
    }
    set_membership(cluster, "GRANT", "TO", &user).await;
    let scenario = "the same without pg_read_all_stats: writes resume after the standbys' restartpoints";
    assert_within(RECOVER, scenario, times);
}

/// Promotes a standby by mistake, waits for `recovery`, which returns the leader, and returns the time from then to the
/// first write.
async fn promotion_by_mistake(
    cluster: &PatroniCluster,
    pool: &Pool,
    recovery: impl Future<Output = Result<usize, testkit::Error>>,
) -> Duration {
    let leader = cluster.stable().await.expect("the cluster is stable");
    let standby = (leader + 1) % cluster.len();
    let address = cluster.address(standby);
    let (reads, writes) = (Paced::every(Duration::from_millis(10), pool, Target::Any), Writes::start(pool));
    let superuser = cluster.client(standby).await.expect("the superuser connects");
    let promoted = Instant::now();
    superuser.batch_execute("SELECT pg_promote(false)").await.expect("the standby is promoted");
    let is_primary = || {
        pool.status()
            .endpoints
            .iter()
            .any(|pod| pod.endpoint.address().tcp().unwrap() == address && pod.role == Role::Primary)
    };
    // Patroni may stop the promoted server before the pool has found it.
    let found = || is_primary() || superuser.is_closed();
    until(LIMIT, "the pool has found the promoted standby, or Patroni has stopped it", found).await;
    drop(superuser);
    cluster.reinitialize(standby).await.expect("Patroni reinitializes the standby");
    assert_eq!(recovery.await.expect("the standby follows the leader"), leader, "the leader");
    let stable = Instant::now();
    let outage = writes.longest_gap(promoted, stable);
    let leader = cluster.address(leader).ip();
    until(LIMIT, "the leader acknowledges a write", || writes.first_after(stable, leader).is_some()).await;
    // While the timeline of the promoted standby is the newest, the pool uses neither the leader nor its standby.
    let failed = reads.stop().await.iter().filter(|read| read.failure.is_some()).count();
    println!(
        "standby promoted by mistake: stable after {:.1?}; before, no write for {outage:.1?}; {failed} reads failed",
        stable - promoted
    );
    writes.first_after(stable, leader).expect("a write is acknowledged") - stable
}

/// Changes the membership of a role in `pg_read_all_stats`.
async fn set_membership(cluster: &PatroniCluster, verb: &str, preposition: &str, user: &str) {
    let leader = cluster.stable().await.expect("the cluster is stable");
    let superuser = cluster.client(leader).await.expect("the superuser connects");
    let sql = format!("{verb} pg_read_all_stats {preposition} \"{user}\"");
    superuser.batch_execute(&sql).await.expect("the membership is changed");
}

/// Makes a checkpoint on the leader, and then a restartpoint on each standby.
async fn restartpoints(cluster: &PatroniCluster, leader: usize) {
    let superuser = cluster.client(leader).await.expect("the superuser connects");
    superuser.batch_execute("CHECKPOINT").await.expect("the checkpoint completes");
    let written = superuser.query_one("SELECT pg_current_wal_lsn()::text", &[]).await.expect("the position is read");
    let written: String = written.get(0);
    for standby in (0..cluster.len()).filter(|&ordinal| ordinal != leader) {
        let superuser = cluster.client(standby).await.expect("the superuser connects");
        let sql = format!("SELECT pg_last_wal_replay_lsn() >= '{written}'");
        let began = Instant::now();
        while !superuser.query_one(&sql, &[]).await.expect("the position is read").get::<_, bool>(0) {
            assert!(began.elapsed() < LIMIT, "the standby {standby} does not replay");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        superuser.batch_execute("CHECKPOINT").await.expect("the restartpoint completes");
    }
}
