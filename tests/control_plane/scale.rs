//! A scenario in which the number of Pods changes.

use serde_json::json;

use crate::{
    cluster::{Cluster, QUIET},
    isolated::inside,
};

#[ignore = "needs the built control plane and takes two minutes: make kubernetes"]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn to_five_and_back() {
    let Some(paths) = inside("scale::to_five_and_back").await else { return };
    let (cluster, load) = Cluster::with_load(paths).await;
    cluster.timeline.note("kubectl scale --replicas=5");
    cluster.change_set(&json!({ "spec": { "replicas": 5 } })).await;
    cluster.until_set("five Pods are ready", |status| status["readyReplicas"] == 5).await;
    tokio::time::sleep(QUIET).await;
    cluster.timeline.note("kubectl scale --replicas=3");
    cluster.change_set(&json!({ "spec": { "replicas": 3 } })).await;
    cluster.until_set("three Pods exist", |status| status["replicas"] == 3).await;
    let report = cluster.report("3 → 5 → 3 Pods", load).await;
    report.check();
    let served = report.served_by_pod();
    println!("  requests served by each Pod: {served:?}");
    for pod in ["postgresql-sfs-3", "postgresql-sfs-4"] {
        assert!(served.contains_key(pod), "expected {pod} to serve requests: {served:?}");
    }
}
