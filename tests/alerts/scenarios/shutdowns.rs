//! Pods that shut down and start in the ordinary course of operation.

use std::time::Duration;

use podpool::{
    Pool, State,
    testkit::{Cluster, Shutdown},
};
use tokio::time::sleep;

use crate::{
    common::{in_state, until},
    raw::Raw,
    scene::{LIMIT, Scene, config},
};

pub(crate) async fn pod_shuts_down(mut scene: Scene) -> Raw {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let _pool = scene.healthy(&cluster, "").await;
    cluster.stop(2, Shutdown::Fast).await.expect("the Pod shuts down");
    scene.finish().await
}

/// Restarts the standbys one by one, then switches the primary over and restarts it. Each Pod is out of DNS while it is
/// not ready.
pub(crate) async fn rolling_update(mut scene: Scene) -> Raw {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let pool = scene.healthy(&cluster, "").await;
    for ordinal in [2, 1] {
        cluster.unpublish(ordinal).expect("the Pod leaves DNS");
        cluster.stop(ordinal, Shutdown::Fast).await.expect("the Pod shuts down");
        sleep(Duration::from_secs(5)).await;
        cluster.start_pod(ordinal).await.expect("the Pod starts");
        cluster.publish(ordinal).expect("the Pod returns to DNS");
        until(LIMIT, "all Pods are healthy", || in_state(&pool, State::Healthy) == 3).await;
        sleep(Duration::from_secs(5)).await;
    }
    cluster.wait_replicated().await.expect("the standbys catch up");
    cluster.unpublish(0).expect("the primary leaves DNS");
    cluster.stop(0, Shutdown::Fast).await.expect("the primary shuts down");
    cluster.promote(1).await.expect("a standby is promoted");
    sleep(Duration::from_secs(5)).await;
    cluster.reattach(0).await.expect("the former primary becomes a standby");
    cluster.publish(0).expect("the former primary returns to DNS");
    scene.finish().await
}

/// Starts the Pods 20 s after the pool. A headless Service has no records until then.
pub(crate) async fn cold_start_succeeds(mut scene: Scene) -> Raw {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    for ordinal in 0..3 {
        cluster.unpublish(ordinal).expect("the Pod leaves DNS");
        cluster.stop(ordinal, Shutdown::Immediate).await.expect("the Pod stops");
    }
    let _pool = scene.cold(&cluster, Pool::builder(config(&cluster.srv_url())));
    sleep(Duration::from_secs(20)).await;
    for ordinal in 0..3 {
        cluster.start_pod(ordinal).await.expect("the Pod starts");
        cluster.publish(ordinal).expect("the Pod returns to DNS");
    }
    scene.finish().await
}
