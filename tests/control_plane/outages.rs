//! The API server and CoreDNS are down, while the Pods do not change.

use std::time::Duration;

use crate::{cluster::Cluster, isolated::inside};

#[ignore = "needs the built control plane and takes a minute: make kubernetes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn api_server() {
    let Some(paths) = inside("outages::api_server").await else { return };
    let (cluster, load) = Cluster::with_load(paths).await;
    cluster.timeline.note("the API server is killed");
    cluster.plane.kill_api_server().await;
    tokio::time::sleep(Duration::from_secs(25)).await;
    cluster.plane.start_api_server().await;
    cluster.timeline.note("the API server is back");
    cluster.report("API server down for 25 s", load).await.check();
}

#[ignore = "needs the built control plane and takes a minute: make kubernetes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn coredns() {
    let Some(paths) = inside("outages::coredns").await else { return };
    let (cluster, load) = Cluster::with_load(paths).await;
    cluster.timeline.note("CoreDNS is killed");
    cluster.plane.kill_coredns().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    cluster.plane.start_coredns().await;
    cluster.timeline.note("CoreDNS is back");
    cluster.report("CoreDNS down for 20 s", load).await.check();
}

#[ignore = "needs the built control plane and takes a minute: make kubernetes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn both() {
    let Some(paths) = inside("outages::both").await else { return };
    let (cluster, load) = Cluster::with_load(paths).await;
    cluster.timeline.note("CoreDNS and the API server are killed");
    cluster.plane.kill_coredns().await;
    cluster.plane.kill_api_server().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    // CoreDNS answers with SERVFAIL until the API server is back.
    cluster.plane.start_api_server().await;
    cluster.plane.start_coredns().await;
    cluster.timeline.note("CoreDNS and the API server are back");
    cluster.report("both down for 20 s", load).await.check();
}
