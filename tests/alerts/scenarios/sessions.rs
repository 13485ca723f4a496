//! Single sessions that end, a client that is stopped, and notifications.

use std::{process::Command, time::Duration};

use podpool::{Target, testkit::Cluster};
use tokio::time::{Instant, sleep};

use crate::{
    raw::Raw,
    scene::{LIMIT, Scene},
};

/// Ends the pool's sessions on a Pod that fulfill this condition on `pg_stat_activity`, except that of the probe. Waits
/// until there is at least one: a session that no caller has used yet cannot be told from that of the probe.
pub(super) async fn end(cluster: &Cluster, ordinal: usize, condition: &str) {
    let superuser = cluster.client(ordinal).await.expect("the superuser connects");
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{}' AND {condition} \
         AND query NOT LIKE '%pg_is_in_recovery%'",
        cluster.user()
    );
    let deadline = Instant::now() + LIMIT;
    while superuser.query(&sql, &[]).await.expect("the statement succeeds").is_empty() {
        assert!(Instant::now() < deadline, "no session on Pod {ordinal} has {condition}");
        sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn session_ended(mut scene: Scene) -> Raw {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let _pool = scene.healthy(&cluster, "").await;
    end(&cluster, 2, "application_name <> 'other'").await;
    scene.finish().await
}

/// Stops this process for eight seconds.
pub(crate) async fn client_stopped(mut scene: Scene) -> Raw {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let _pool = scene.healthy(&cluster, "").await;
    let id = std::process::id();
    let script = format!("kill -STOP {id}; sleep 8; kill -CONT {id}");
    let mut shell = Command::new("sh").args(["-c", &script]).spawn().expect("sh starts");
    tokio::task::spawn_blocking(move || shell.wait()).await.expect("the thread ends").expect("sh ends");
    scene.finish().await
}

pub(crate) async fn listener_lost(mut scene: Scene) -> Raw {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let pool = scene.healthy(&cluster, "").await;
    let mut listener = pool.listen(Target::Primary, ["jobs"]).await.expect("the primary accepts it");
    tokio::spawn(async move { while listener.next().await.is_some() {} });
    end(&cluster, 0, "query LIKE '%LISTEN%'").await;
    scene.finish().await
}

pub(crate) async fn listen_on_pooled_connection(mut scene: Scene) -> Raw {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let pool = scene.healthy(&cluster, "").await;
    let client = pool.primary().await.expect("checkout succeeds");
    client.batch_execute("LISTEN jobs").await.expect("the statement succeeds");
    drop(client);
    scene.finish().await
}
