//! Tests that the metrics have the same names and labels for Prometheus, whichever of the two features exports them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use metrics_exporter_prometheus::PrometheusBuilder;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use podpool::{metrics::BUCKETS, testkit::Cluster};
use prometheus::Registry;

use crate::workload::{builder, exercise};

/// The names of all metrics, each with its type and the names of its labels.
type Exported = BTreeMap<String, (String, BTreeSet<String>)>;

/// Parses the output of the exporter of the `metrics` facade.
fn facade(text: &str) -> Exported {
    let mut exported = Exported::new();
    let mut name = String::new();
    for line in text.lines() {
        if let Some((metric, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            metric.clone_into(&mut name);
            exported.entry(name.clone()).or_default().0 = kind.to_owned();
        } else if let Some((_, labels)) = line.split_once('{').filter(|_| !line.starts_with('#')) {
            let values = labels.rsplit_once('}').expect("the labels end").0;
            let labels = values.split("\",").map(|pair| pair.split_once('=').expect("a label has a value").0);
            exported
                .entry(name.clone())
                .or_default()
                .1
                .extend(labels.filter(|label| *label != "le").map(str::to_owned));
        }
    }
    exported
}

/// Returns the output of the exporter of OpenTelemetry.
fn otel(registry: &Registry) -> Exported {
    let mut exported = Exported::new();
    for family in registry.gather() {
        let (kind, labels) = exported.entry(family.name().to_owned()).or_default();
        *kind = format!("{:?}", family.get_field_type()).to_lowercase();
        for metric in family.get_metric() {
            labels.extend(metric.get_label().iter().map(|label| label.name().to_owned()));
        }
    }
    exported
}

// The recorder of the facade is thread-local, so the test uses the single-threaded runtime.
#[tokio::test]
async fn both_features_export_the_same_names_types_and_labels() {
    let recorder = PrometheusBuilder::new().set_buckets(BUCKETS).expect("there are buckets").build_recorder();
    let handle = recorder.handle();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let registry = Registry::new();
    let exporter = opentelemetry_prometheus::exporter().with_registry(registry.clone());
    let exporter = exporter.without_target_info().scope_info_enabled(false).build().expect("the exporter is built");
    let provider = Arc::new(SdkMeterProvider::builder().with_reader(exporter).build());

    let cluster = Cluster::start(2).await.expect("the cluster starts");
    let pool = builder(&cluster, "&probe_interval=1s").meter_provider(provider).build().expect("the pool is built");
    exercise(&pool).await;
    pool.export_metrics();
    let (facade, mut otel) = (facade(&handle.render()), otel(&registry));
    let only_otel = otel.remove("db_client_operation_duration_seconds").expect("requests are measured");
    assert_eq!(only_otel.0, "histogram");
    let names = |exported: &Exported| exported.keys().cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&facade), names(&otel));
    assert_eq!(names(&facade), podpool::metrics::ALL.iter().map(|metric| metric.name.to_owned()).collect());
    for (name, exported) in facade {
        assert_eq!(exported, otel[&name], "{name}");
    }
    pool.close().await;
    cluster.shutdown().await.expect("the cluster stops");
}
