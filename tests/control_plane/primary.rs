//! Scenarios in which the primary leaves and comes back.

use std::time::Duration;

use serde_json::json;

use crate::{
    cluster::{Cluster, DATABASE},
    isolated::inside,
    servers::PREFIX,
};

/// Time for which the readiness probe fails. The liveness probe fails only after a minute.
const NOT_READY: Duration = Duration::from_secs(35);

#[ignore = "needs the built control plane and takes two minutes: make kubernetes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rolling_restart() {
    let Some(paths) = inside("primary::rolling_restart").await else { return };
    let (cluster, load) = Cluster::with_load(paths).await;
    cluster.timeline.note("kubectl rollout restart");
    let annotation = json!({ "kubectl.kubernetes.io/restartedAt": "now" });
    cluster.change_set(&json!({ "spec": { "template": { "metadata": { "annotations": annotation } } } })).await;
    let done = |status: &serde_json::Value| {
        status["updatedReplicas"] == 3
            && status["readyReplicas"] == 3
            && status["currentRevision"] == status["updateRevision"]
    };
    cluster.until_set("the rollout is complete", done).await;
    cluster.report("rolling restart", load).await.check();
}

#[ignore = "needs the built control plane and takes a minute: make kubernetes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn graceful_delete() {
    let Some(paths) = inside("primary::graceful_delete").await else { return };
    let (cluster, load) = Cluster::with_load(paths).await;
    let primary = cluster.node.pod(&cluster.primary());
    cluster.delete(&primary.name, false).await;
    cluster.until_replaced(&primary.name, &primary.uid).await;
    cluster.report("primary deleted gracefully", load).await.check();
}

#[ignore = "needs the built control plane and takes two minutes: make kubernetes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn failing_readiness() {
    let Some(paths) = inside("primary::failing_readiness").await else { return };
    let (cluster, load) = Cluster::with_load(paths).await;
    let primary = cluster.node.pod(&cluster.primary());
    // The probe connects to this socket, and everything else over the network.
    let socket = primary.volume("run").join(".s.PGSQL.5432");
    let hidden = primary.volume("run").join("hidden");
    cluster.timeline.note(format!("the readiness probe of {} begins to fail", primary.name));
    std::fs::rename(&socket, &hidden).expect("the socket is renamed");
    tokio::time::sleep(NOT_READY).await;
    assert!(!cluster.observed.now().is_published(primary.address), "expected DNS to omit a Pod that is not ready");
    std::fs::rename(&hidden, &socket).expect("the socket is renamed");
    cluster.timeline.note(format!("the readiness probe of {} succeeds again", primary.name));
    cluster.until("DNS has the primary", || cluster.observed.now().is_published(primary.address)).await;
    cluster.report("primary fails its readiness probe for 35 s, but serves", load).await.check();
}

#[ignore = "needs the built control plane and takes a minute: make kubernetes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn container_crash() {
    let Some(paths) = inside("primary::container_crash").await else { return };
    let (cluster, load) = Cluster::with_load(paths).await;
    let primary = cluster.node.pod(&cluster.primary());
    cluster.timeline.note(format!("the server of {} is killed", primary.name));
    primary.kill(DATABASE);
    cluster.until("the kubelet has noticed", || cluster.node.ready(PREFIX) == 2).await;
    cluster.until("the primary is ready again", || cluster.node.ready(PREFIX) == 3).await;
    cluster.report("container of the primary crashes", load).await.check();
}
