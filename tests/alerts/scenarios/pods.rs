//! Single Pods that fail, leave or return.

use std::{
    future::Future,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    time::Duration,
};

use podpool::{
    Endpoint, Pool, Target,
    discovery::{Resolution, Resolve, ResolveError},
    testkit::Cluster,
};
use tokio::time::{Instant, sleep};

use crate::{
    common::{relay::Relay, until},
    raw::Raw,
    scene::{LIMIT, Scene, config},
};

async fn cluster() -> Cluster {
    Cluster::start(3).await.expect("the cluster starts")
}

pub(crate) async fn pod_killed(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let _pool = scene.healthy(&cluster, "").await;
    cluster.kill(2).await.expect("the Pod is killed");
    scene.finish().await
}

pub(crate) async fn primary_pauses(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let _pool = scene.healthy(&cluster, "").await;
    cluster.pause(0).await.expect("the primary is paused");
    sleep(Duration::from_secs(20)).await;
    cluster.resume(0).await.expect("the primary resumes");
    scene.finish().await
}

pub(crate) async fn pod_hangs(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let _pool = scene.healthy(&cluster, "").await;
    cluster.pause(2).await.expect("the Pod is paused");
    scene.finish().await
}

pub(crate) async fn pod_leaves_dns(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let _pool = scene.healthy(&cluster, "").await;
    cluster.unpublish(2).expect("the Pod leaves DNS");
    scene.finish().await
}

pub(crate) async fn last_pod_leaves_dns(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let _pool = scene.healthy(&cluster, "").await;
    cluster.unpublish(0).expect("the primary leaves DNS");
    scene.finish().await
}

pub(crate) async fn pod_returns_to_dns(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let _pool = scene.healthy(&cluster, "").await;
    cluster.unpublish(2).expect("the Pod leaves DNS");
    scene.event("endpoint_detached").await;
    cluster.publish(2).expect("the Pod returns to DNS");
    scene.finish().await
}

pub(crate) async fn absent_pod_fails(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let _pool = scene.healthy(&cluster, "").await;
    cluster.unpublish(2).expect("the Pod leaves DNS");
    scene.event("endpoint_detached").await;
    cluster.kill(2).await.expect("the Pod is killed");
    scene.finish().await
}

pub(crate) async fn pod_moved(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let _pool = scene.healthy(&cluster, "").await;
    cluster.move_pod(2).await.expect("the Pod moves");
    scene.finish().await
}

/// A resolver that always returns the same addresses, of both families.
#[derive(Debug)]
struct Both(Vec<SocketAddr>);

impl Resolve for Both {
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
        Box::pin(async {
            let endpoints = self.0.iter().map(|address| Endpoint::new(*address)).collect();
            Ok(Resolution::new(endpoints, Instant::now() + Duration::from_secs(1)))
        })
    }

    fn source(&self) -> String {
        "addresses of both families".into()
    }
}

/// Ends the relays of the addresses that the pool uses, of whichever family they are.
pub(crate) async fn address_family_lost(mut scene: Scene) -> Raw {
    let cluster = cluster().await;
    let mut relays = Vec::new();
    for pod in cluster.pods() {
        for loopback in [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)] {
            relays.push(Relay::start(loopback, pod.address()).await);
        }
    }
    let addresses = relays.iter().map(|relay| relay.address).collect();
    let builder = Pool::builder(config(&cluster.url())).resolver(Both(addresses));
    let pool = scene.idle(&cluster, builder).await;
    let merged = || pool.status().endpoints.iter().all(|pod| pod.alternatives.len() == 1);
    until(LIMIT, "each Pod has an alternative address", merged).await;
    scene.load(&pool, Target::Any);
    scene.before(&pool).await;
    let used: Vec<_> = pool.status().endpoints.iter().filter_map(|pod| pod.endpoint.address().tcp()).collect();
    relays.retain(|relay| !used.contains(&relay.address));
    assert_eq!(relays.len(), 3, "the relay of each used address ends: {used:?}");
    scene.finish().await
}
