//! Tests the metrics that a pool exports before anything has succeeded, and the count of callers that give up.

use std::{collections::BTreeSet, time::Duration};

use metrics::{SharedString, Unit};
use metrics_util::{
    CompositeKey,
    debugging::{DebugValue, DebuggingRecorder},
};
use podpool::{
    Client, Config, Event, Phase, Pool, Target,
    metrics::{self as names, MetricKind, POD_LABELS},
    testkit::Cluster,
};

use crate::{LIMIT, common::until};

type Snapshot = Vec<(CompositeKey, Option<Unit>, Option<SharedString>, DebugValue)>;

/// Returns the value of each label of a metric's series, with the value of the series.
fn series(snapshot: &Snapshot, name: &str, label: &str) -> Vec<(String, f64)> {
    let all = snapshot.iter().filter(|(key, ..)| key.key().name() == name);
    let value = |value: &DebugValue| match value {
        DebugValue::Counter(count) => *count as f64,
        DebugValue::Gauge(value) => value.into_inner(),
        DebugValue::Histogram(_) => panic!("{name} is a histogram"),
    };
    let labelled = all.map(|(key, _, _, found)| {
        let text = key.key().labels().find(|found| found.key() == label).map(|label| label.value().to_owned());
        (text.unwrap_or_default(), value(found))
    });
    labelled.collect()
}

// The recorder is thread-local, so the test uses the single-threaded runtime.
#[tokio::test]
async fn every_series_of_the_pool_exists_before_anything_has_succeeded() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    // No server listens at the name server's address.
    let url = "postgres://app@never.test/app?nameservers=127.0.0.1:1";
    let pool = Pool::builder(url.parse::<Config>().expect("the URL parses")).build().expect("the pool is built");
    tokio::time::sleep(Duration::from_millis(20)).await; // the pool gets older
    pool.export_metrics();
    let snapshot = snapshotter.snapshot().into_vec();
    let exported: BTreeSet<_> = snapshot.iter().map(|(key, ..)| key.key().name().to_owned()).collect();
    let of_pool = |metric: &&names::Metric| !metric.labels.contains(&POD_LABELS[0]);
    for metric in names::ALL.iter().filter(of_pool).filter(|metric| metric.kind != MetricKind::Histogram) {
        assert!(exported.contains(metric.name), "{} was not exported", metric.name);
    }
    let values = |name, label| series(&snapshot, name, label).into_iter().map(|(value, _)| value).collect();
    let events: BTreeSet<String> = values(names::EVENTS, "event");
    assert_eq!(events, Event::NAMES.iter().map(|name| (*name).to_owned()).collect());
    let phases: BTreeSet<String> = values(names::ABANDONED, "phase");
    assert!(phases.contains(Phase::Wait.as_str()) && phases.contains(Phase::Query.as_str()), "{phases:?}");
    for name in [names::NO_PRIMARY_SECONDS, names::RESOLVE_AGE_SECONDS] {
        let [(_, age)] = series(&snapshot, name, "")[..] else { panic!("{name} has one series") };
        assert!(age >= 0.02, "{name} is {age} s after 20 ms");
    }
    let pods = series(&snapshot, names::PODS, "state");
    assert!(pods.len() > 10 && pods.iter().all(|(_, count)| *count == 0.0), "{pods:?}");
}

#[tokio::test]
async fn callers_that_give_up_are_counted_by_what_they_wait_for() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let config = format!("{}&pool_size=1", cluster.url()).parse::<Config>().expect("the URL parses");
    let pool = Pool::builder(config).build().expect("the pool is built");
    pool.wait_ready(Target::Any, LIMIT).await.expect("the Pod becomes ready");
    let client = pool.get().await.expect("checkout succeeds");
    let soon = Duration::from_millis(50);
    tokio::time::timeout(soon, pool.get()).await.expect_err("the only connection is in use");
    drop(client);
    until(LIMIT, "the connection is returned", || pool.status().endpoints[0].in_use == 0).await;
    let work = |client: Client| async move { client.batch_execute("SELECT pg_sleep(60)").await };
    tokio::time::timeout(soon, pool.retry(Target::Any, work)).await.expect_err("the statement is slow");
    drop(pool.get_within(Target::Any, LIMIT).await.expect("the connection is recycled"));
    pool.export_metrics();
    let mut counts = series(&snapshotter.snapshot().into_vec(), names::ABANDONED, "phase");
    counts.retain(|(_, count)| *count > 0.0);
    counts.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(counts, [("query".to_owned(), 1.0), ("wait".to_owned(), 1.0)]);
}

#[tokio::test]
async fn the_time_without_a_primary_is_exactly_zero_while_one_serves() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let config = cluster.url().parse::<Config>().expect("the URL parses");
    let pool = Pool::builder(config).build().expect("the pool is built");
    pool.wait_ready(Target::Primary, LIMIT).await.expect("the primary becomes ready");
    pool.export_metrics();
    let times = series(&snapshotter.snapshot().into_vec(), names::NO_PRIMARY_SECONDS, "");
    assert_eq!(times, [(String::new(), 0.0)]);
}
