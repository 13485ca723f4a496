//! Scenarios in which a standby leaves and comes back.

use std::{sync::Arc, time::Duration};

use crate::{
    cluster::{Cluster, DATABASE},
    isolated::{Paths, inside},
    kubelet::Worker,
    load::Load,
    servers::PREFIX,
};

/// Duration of the partition.
const PARTITION: Duration = Duration::from_secs(20);

/// Starts a cluster with a load, and selects a standby.
async fn with_standby(paths: Paths) -> (Cluster, Load, Arc<Worker>) {
    let (cluster, load) = Cluster::with_load(paths).await;
    let standby = cluster.node.pod(&cluster.standby());
    (cluster, load, standby)
}

#[ignore = "needs the built control plane and takes a minute: make kubernetes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn graceful_delete() {
    let Some(paths) = inside("standby::graceful_delete").await else { return };
    let (cluster, load, standby) = with_standby(paths).await;
    cluster.delete(&standby.name, false).await;
    cluster.until_replaced(&standby.name, &standby.uid).await;
    cluster.report("standby deleted gracefully", load).await.check();
}

#[ignore = "needs the built control plane and takes a minute: make kubernetes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn forced_delete() {
    let Some(paths) = inside("standby::forced_delete").await else { return };
    let (cluster, load, standby) = with_standby(paths).await;
    cluster.delete(&standby.name, true).await;
    cluster.until_replaced(&standby.name, &standby.uid).await;
    cluster.report("standby deleted by force", load).await.check();
}

#[ignore = "needs the built control plane and takes a minute: make kubernetes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn container_crash() {
    let Some(paths) = inside("standby::container_crash").await else { return };
    let (cluster, load, standby) = with_standby(paths).await;
    cluster.timeline.note(format!("the server of {} is killed", standby.name));
    standby.kill(DATABASE);
    cluster.until("the kubelet has noticed", || cluster.node.ready(PREFIX) == 2).await;
    cluster.until("the standby is ready again", || cluster.node.ready(PREFIX) == 3).await;
    cluster.report("container of a standby crashes", load).await.check();
}

#[ignore = "needs the built control plane and takes a minute: make kubernetes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn partition() {
    let Some(paths) = inside("standby::partition").await else { return };
    let (cluster, load, standby) = with_standby(paths).await;
    cluster.timeline.note(format!("all packets from and to {} are dropped", standby.name));
    cluster.node.network.cut(standby.address).await;
    tokio::time::sleep(PARTITION).await;
    assert!(cluster.observed.now().is_published(standby.address), "expected DNS to keep the Pod");
    cluster.node.network.restore(standby.address).await;
    cluster.timeline.note(format!("packets from and to {} pass again", standby.name));
    cluster.report("standby partitioned for 20 s", load).await.check();
}
