//! Tests the names, units and attributes of all instruments.

use std::collections::{BTreeMap, BTreeSet};

use opentelemetry::Value;
use podpool::{
    metrics::{self, ATTRIBUTES, BUCKETS, MetricKind, OPERATION_BUCKETS, OPERATION_DURATION, POOL_LABELS},
    testkit::Cluster,
};

use crate::{
    collection::{Collected, Collection, Kind},
    workload::{builder, exercise},
};

/// The instruments of OpenTelemetry's semantic conventions for database clients, version 1.43.0 ("Database metrics").
const CONVENTIONS: [(&str, Kind, &str, &[&str]); 10] = [
    ("db.client.connection.count", Kind::UpDownCounter, "{connection}", &["db.client.connection.state"]),
    ("db.client.connection.create_time", Kind::Histogram, "s", &[]),
    ("db.client.connection.idle.max", Kind::UpDownCounter, "{connection}", &[]),
    ("db.client.connection.idle.min", Kind::UpDownCounter, "{connection}", &[]),
    ("db.client.connection.max", Kind::UpDownCounter, "{connection}", &[]),
    ("db.client.connection.pending_requests", Kind::UpDownCounter, "{request}", &[]),
    ("db.client.connection.timeouts", Kind::Counter, "{timeout}", &[]),
    ("db.client.connection.use_time", Kind::Histogram, "s", &[]),
    ("db.client.connection.wait_time", Kind::Histogram, "s", &[]),
    ("db.client.operation.duration", Kind::Histogram, "s", &["db.namespace", "server.address", "server.port"]),
];

/// Returns the name of the attribute that is exported as this label.
fn attribute(label: &str) -> String {
    ATTRIBUTES.iter().find(|(name, _)| *name == label).map_or(label, |(_, attribute)| attribute).to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_instrument_has_the_declared_name_unit_and_attributes() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    let collection = Collection::new();
    let pool = builder(&cluster, "&probe_interval=1s").meter_provider(collection.provider()).build();
    let pool = pool.expect("the pool is built");
    exercise(&pool).await;
    pool.export_metrics(); // records the use times
    let all: BTreeMap<_, _> = collection.collect().into_iter().map(|metric| (metric.name.clone(), metric)).collect();

    let declared = metrics::ALL.iter().map(|metric| metric.otel_name).chain([OPERATION_DURATION]);
    assert_eq!(all.keys().map(String::as_str).collect::<BTreeSet<_>>(), declared.collect());
    for metric in metrics::ALL {
        let found = &all[metric.otel_name];
        let kind = match metric.kind {
            MetricKind::Counter => Kind::Counter,
            MetricKind::Gauge if metric.otel_name.starts_with("db.") => Kind::UpDownCounter,
            MetricKind::Gauge => Kind::Gauge,
            MetricKind::Histogram => Kind::Histogram,
        };
        assert_eq!((found.kind, &*found.unit, &*found.description), (kind, metric.unit, metric.help));
        let expected: BTreeSet<_> = POOL_LABELS.iter().chain(metric.labels).map(|label| attribute(label)).collect();
        check_attributes(found, &expected);
        for point in &found.points {
            assert_eq!(point.text("db.client.connection.pool.name"), pool.name(), "{}", metric.name);
        }
        check_buckets(found, BUCKETS);
    }
    for (name, kind, unit, attributes) in CONVENTIONS {
        let found = &all[name];
        assert_eq!((found.kind, &*found.unit), (kind, unit), "{name}");
        for point in &found.points {
            assert_eq!(point.text("db.system.name"), "postgresql", "{name}");
            assert!(attributes.iter().all(|attribute| point.attributes.contains_key(*attribute)), "{name}: {point:?}");
        }
    }
    let duration = &all[OPERATION_DURATION];
    let attributes = ["db.namespace", "db.system.name", "server.address", "server.port"].map(str::to_owned);
    check_attributes(duration, &attributes.into());
    check_buckets(duration, OPERATION_BUCKETS);
    check_values(&all, &cluster);
    pool.close().await;
    cluster.shutdown().await.expect("the cluster stops");
}

fn check_attributes(metric: &Collected, expected: &BTreeSet<String>) {
    assert!(!metric.points.is_empty(), "{} has no value", metric.name);
    for point in &metric.points {
        assert_eq!(point.attributes.keys().cloned().collect::<BTreeSet<_>>(), *expected, "{}", metric.name);
    }
}

fn check_buckets(metric: &Collected, expected: &[f64]) {
    for (_, _, _, bounds) in metric.points.iter().filter_map(|point| point.histogram.as_ref()) {
        assert_eq!(bounds, expected, "{}", metric.name);
    }
}

/// Checks the values of some instruments.
fn check_values(all: &BTreeMap<String, Collected>, cluster: &Cluster) {
    let sum = |name: &str| all[name].points.iter().map(|point| point.value).sum::<f64>();
    assert_eq!(sum("db.client.connection.count"), 2.0, "one connection to each Pod");
    assert_eq!(sum("db.client.connection.max"), 2.0);
    assert_eq!(sum("db.client.connection.idle.max"), 2.0);
    assert_eq!(sum("db.client.connection.idle.min"), 2.0);
    assert_eq!(sum("db.client.connection.timeouts"), 1.0);
    assert_eq!(sum("podpool.endpoint.up"), 2.0);
    assert_eq!(sum("podpool.checkouts"), sum("podpool.endpoint.checkouts"));
    assert!(sum("podpool.checkouts") > 2.0);
    for point in &all["podpool.pod.info"].points {
        let address = cluster.pods().into_iter().map(|pod| pod.address()).find(|address| {
            point.text("server.address") == address.ip().to_string()
                && point.attributes["server.port"] == Value::I64(address.port().into())
        });
        assert!(address.is_some(), "{point:?}");
    }
}
