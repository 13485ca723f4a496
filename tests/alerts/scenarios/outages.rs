//! Faults that leave callers without any connection, and servers without free slots.

use std::{sync::Arc, time::Duration};

use podpool::{
    Pool, State,
    testkit::{Cluster, ResponseCode},
    tokio_postgres,
};
use tokio::time::sleep;

use super::sessions;
use crate::{
    common::{in_state, until},
    raw::Raw,
    scene::{LIMIT, Scene, config},
};

async fn cluster() -> Cluster {
    Cluster::start(3).await.expect("the cluster starts")
}

pub(crate) async fn name_does_not_resolve(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let _pool = scene.healthy(&cluster, "").await;
    cluster.dns().stop().await;
    scene.finish().await
}

pub(crate) async fn name_never_resolves(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    cluster.dns().fail(ResponseCode::NxDomain);
    let _pool = scene.cold(&cluster, Pool::builder(config(&cluster.srv_url())));
    scene.finish().await
}

pub(crate) async fn every_pod_killed(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let _pool = scene.healthy(&cluster, "").await;
    kill_all(&cluster).await;
    scene.finish().await
}

pub(crate) async fn cold_start_every_pod_down(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    kill_all(&cluster).await;
    let _pool = scene.cold(&cluster, Pool::builder(config(&cluster.srv_url())));
    scene.finish().await
}

async fn kill_all(cluster: &Cluster) {
    for ordinal in 0..3 {
        cluster.kill(ordinal).await.expect("the Pod is killed");
    }
}

pub(crate) async fn pool_exhausted(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let pool = scene.healthy(&cluster, "&pool_size=2").await;
    hold_all(&pool, 6);
    scene.finish().await
}

/// The application drops each call after one second, so that `acquire_timeout` never passes.
pub(crate) async fn application_gives_up(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let builder = Pool::builder(config(&format!("{}&pool_size=2", cluster.srv_url())));
    let pool = scene.idle(&cluster, builder).await;
    scene.impatient(&pool, "SELECT 1", Duration::from_secs(1));
    scene.before(&pool).await;
    hold_all(&pool, 6);
    scene.finish().await
}

/// Checks out this many connections and does not return them.
fn hold_all(pool: &Pool, count: usize) {
    for _ in 0..count {
        let pool = pool.clone();
        tokio::spawn(async move {
            let mut held = Vec::new();
            while held.is_empty() {
                held.extend(pool.get().await);
            }
            std::future::pending::<()>().await;
        });
    }
}

/// Another application takes every free slot of a standby, after the pool's sessions on it have ended.
pub(crate) async fn server_full(mut scene: Scene) -> Raw {
    let cluster = Cluster::builder().setting("max_connections", "12").start().await.expect("the cluster starts");
    let _pool = scene.healthy(&cluster, "&pool_size=2").await;
    let cluster = Arc::new(cluster);
    let url = format!("{}?application_name=other", cluster.pod_url(2));
    tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            match tokio_postgres::connect(&url, tokio_postgres::NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    held.push(client);
                }
                Err(_) => sleep(Duration::from_millis(1)).await,
            }
        }
    });
    sleep(Duration::from_secs(1)).await;
    sessions::end(&cluster, 2, "application_name <> 'other'").await;
    scene.finish().await
}

/// Nine clients with one connection and one probe connection each need more than nine slots.
pub(crate) async fn server_oversubscribed(mut scene: Scene) -> Raw {
    let cluster = Cluster::builder().setting("max_connections", "12").start().await.expect("the cluster starts");
    let url = format!("{}&pool_size=1&clients=9", cluster.srv_url());
    let pool = scene.cold(&cluster, Pool::builder(config(&url)));
    until(LIMIT, "all Pods are healthy", || in_state(&pool, State::Healthy) == 3).await;
    scene.finish().await
}
