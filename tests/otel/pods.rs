//! Tests that a Pod that has left is no longer reported.

use std::{collections::BTreeSet, time::Duration};

use podpool::{Pool, State, testkit::Cluster};

use crate::{
    LIMIT,
    collection::{Collected, Collection},
    common::{in_state, until},
};

/// Returns the Pods that any observable instrument reports. Histograms keep the values of Pods that have left.
fn reported(metrics: &[Collected]) -> BTreeSet<String> {
    let points = metrics.iter().flat_map(|metric| &metric.points).filter(|point| point.histogram.is_none());
    points.map(|point| point.text("podpool.pod")).filter(|pod| !pod.is_empty()).collect()
}

fn addresses(cluster: &Cluster, ordinals: &[usize]) -> BTreeSet<String> {
    ordinals.iter().map(|ordinal| cluster.pod(*ordinal).address().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_has_left_is_no_longer_reported() {
    let cluster = Cluster::builder().pods(2).ttl(Duration::from_secs(1)).start().await.expect("the cluster starts");
    let collection = Collection::new();
    let builder = crate::workload::builder(&cluster, "&detach_linger=100ms&refresh_max=1s");
    let pool = builder.meter_provider(collection.provider()).build().expect("the pool is built");
    until(LIMIT, "both Pods are healthy", || in_state(&pool, State::Healthy) == 2).await;
    assert_eq!(reported(&collection.collect()), addresses(&cluster, &[0, 1]));
    let removed = (0..2).find(|ordinal| cluster.primary() != Some(*ordinal)).expect("there is a standby");
    cluster.unpublish(removed).expect("the record is removed");
    let left = [1 - removed];
    until(LIMIT, "the Pod has left", || pool.status().endpoints.len() == 1).await;
    assert_eq!(reported(&collection.collect()), addresses(&cluster, &left));
    cluster.publish(removed).expect("the record is added");
    until(LIMIT, "the Pod is healthy again", || in_state(&pool, State::Healthy) == 2).await;
    assert_eq!(reported(&collection.collect()), addresses(&cluster, &[0, 1]));

    // A closed pool has no Pods, and a dropped pool reports nothing.
    pool.close().await;
    let metrics = collection.collect();
    assert_eq!(reported(&metrics), BTreeSet::new());
    assert!(metrics.iter().any(|metric| metric.name == "podpool.checkouts"));
    drop(pool);
    until(LIMIT, "the pool reports nothing", || !has_values(&collection)).await;
    cluster.shutdown().await.expect("the cluster stops");
}

fn has_values(collection: &Collection) -> bool {
    let metrics = collection.collect();
    metrics.iter().flat_map(|metric| &metric.points).any(|point| point.histogram.is_none())
}

#[tokio::test]
async fn all_pools_with_one_provider_are_reported() {
    let collection = Collection::new();
    let build = |name: &str| -> Pool {
        let config = "postgres://app@127.0.0.1:1/shop".parse::<podpool::Config>().expect("the URL parses");
        Pool::builder(config).name(name).meter_provider(collection.provider()).build().expect("the pool is built")
    };
    let names = || -> BTreeSet<String> {
        collection.points("podpool.checkouts").iter().map(|p| p.text("db.client.connection.pool.name")).collect()
    };
    let (first, second) = (build("first"), build("second"));
    assert_eq!(names(), ["first", "second"].map(str::to_owned).into());
    first.close().await;
    drop(first);
    until(LIMIT, "the dropped pool is no longer reported", || names() == ["second".to_owned()].into()).await;
    drop(second);
}
