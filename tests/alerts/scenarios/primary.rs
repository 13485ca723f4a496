//! Failovers, clusters without a primary, and standbys that lag.

use std::{path::Path, process::Command, time::Duration};

use podpool::{
    Checkout, Pool, Target,
    testkit::{Cluster, Shutdown},
};
use tokio::time::sleep;

use crate::{
    raw::Raw,
    scene::{Scene, config},
};

async fn cluster() -> Cluster {
    Cluster::start(3).await.expect("the cluster starts")
}

/// Kills the primary, promotes a standby five seconds later, and then makes the former primary a standby.
pub(crate) async fn failover(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let _pool = scene.healthy(&cluster, "").await;
    cluster.kill(0).await.expect("the primary is killed");
    sleep(Duration::from_secs(5)).await;
    cluster.promote(1).await.expect("a standby is promoted");
    sleep(Duration::from_secs(20)).await;
    cluster.reattach(0).await.expect("the former primary becomes a standby");
    scene.finish().await
}

pub(crate) async fn no_primary(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let _pool = scene.healthy(&cluster, "").await;
    cluster.kill(0).await.expect("the primary is killed");
    scene.finish().await
}

pub(crate) async fn cold_start_without_primary(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    cluster.kill(0).await.expect("the primary is killed");
    let _pool = scene.cold(&cluster, Pool::builder(config(&cluster.srv_url())));
    scene.finish().await
}

/// Promotes a standby while the primary is down, and then starts the former primary as a primary.
pub(crate) async fn former_primary_restarts(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let _pool = scene.healthy(&cluster, "").await;
    cluster.kill(0).await.expect("the primary is killed");
    cluster.promote(1).await.expect("a standby is promoted");
    cluster.start_pod(0).await.expect("the former primary starts");
    scene.finish().await
}

/// Replaces all Pods by copies from before the last promotion. The pool's user may read the timeline of each Pod.
pub(crate) async fn cluster_restored(scene: Scene) -> Raw {
    restored(scene, "GRANT pg_read_all_stats TO").await
}

/// The same, but the pool's user may not read `pg_stat_wal_receiver`, which has the timeline of a standby.
pub(crate) async fn cluster_restored_unnoticed(scene: Scene) -> Raw {
    restored(scene, "REVOKE pg_read_all_stats FROM").await
}

async fn restored(mut scene: Scene, privilege: &str) -> Raw {
    let cluster = cluster().await;
    let superuser = cluster.client(0).await.expect("the superuser connects");
    superuser.batch_execute(&format!("{privilege} \"{}\"", cluster.user())).await.expect("the privilege changes");
    drop(superuser);
    // Timeline 3, because the first timeline of a cluster has no history.
    for (new, old) in [(1, 0), (0, 1)] {
        replace_primary(&cluster, new, old).await;
    }
    cluster.wait_replicated().await.expect("the standbys catch up");
    cluster.stop(0, Shutdown::Fast).await.expect("the primary stops");
    let data = |ordinal: usize| cluster.directory().join(cluster.pod(ordinal).name()).join("data");
    let backup = cluster.directory().join("backup");
    copy(&data(0), &backup);
    cluster.promote(1).await.expect("a standby is promoted");
    cluster.reattach(0).await.expect("the former primary becomes a standby");
    let _pool = scene.healthy(&cluster, "").await;
    for ordinal in [0, 2, 1] {
        cluster.kill(ordinal).await.expect("the Pod is killed");
        copy(&backup, &data(ordinal));
    }
    for ordinal in [1, 0, 2] {
        cluster.start_pod(ordinal).await.expect("the Pod starts");
    }
    scene.finish().await
}

async fn replace_primary(cluster: &Cluster, new: usize, old: usize) {
    cluster.wait_replicated().await.expect("the standbys catch up");
    cluster.stop(old, Shutdown::Fast).await.expect("the primary stops");
    cluster.promote(new).await.expect("a standby is promoted");
    cluster.reattach(old).await.expect("the former primary becomes a standby");
}

/// Replaces the directory `to` with a copy of `from`.
fn copy(from: &Path, to: &Path) {
    let script = format!("rm -rf '{to}' && cp -a '{from}' '{to}'", from = from.display(), to = to.display());
    let status = Command::new("sh").arg("-c").arg(script).status().expect("sh starts");
    assert!(status.success(), "{status}");
}

async fn pause_replay(cluster: &Cluster, ordinal: usize) {
    let superuser = cluster.client(ordinal).await.expect("the superuser connects");
    superuser.batch_execute("SELECT pg_wal_replay_pause()").await.expect("replay is paused");
}

pub(crate) async fn standby_lags(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let _pool = scene.healthy(&cluster, "&max_lag=2s").await;
    pause_replay(&cluster, 2).await;
    scene.finish().await
}

/// Reads prefer a standby whose data is at most three seconds old. The only standby stops replaying.
pub(crate) async fn no_standby_is_current(mut scene: Scene) -> Raw {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    let pool = scene.idle(&cluster, Pool::builder(config(&cluster.srv_url()))).await;
    scene.load(&pool, Checkout::new(Target::PreferStandby).max_lag(Duration::from_secs(3)));
    scene.before(&pool).await;
    pause_replay(&cluster, 1).await;
    scene.finish().await
}

pub(crate) async fn no_primary_with_max_lag(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let _pool = scene.healthy(&cluster, "&max_lag=2s").await;
    cluster.kill(0).await.expect("the primary is killed");
    scene.finish().await
}
