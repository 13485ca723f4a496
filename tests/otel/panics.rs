//! Tests that a panic of the application's provider does not stop the pool.

use std::sync::Arc;

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use opentelemetry::{
    InstrumentationScope, KeyValue,
    metrics::{Histogram, HistogramBuilder, InstrumentProvider, Meter, MeterProvider, SyncInstrument},
};
use podpool::{Pool, Target, testkit::Cluster};

use crate::LIMIT;

/// A provider that panics.
struct NoMeters;

impl MeterProvider for NoMeters {
    fn meter_with_scope(&self, _: InstrumentationScope) -> Meter {
        panic!("there are no meters");
    }
}

/// A provider whose histograms panic.
struct Panicking;

impl MeterProvider for Panicking {
    fn meter_with_scope(&self, _: InstrumentationScope) -> Meter {
        Meter::new(Arc::new(Self))
    }
}

impl InstrumentProvider for Panicking {
    fn f64_histogram(&self, _: HistogramBuilder<'_, Histogram<f64>>) -> Histogram<f64> {
        Histogram::new(Arc::new(Self))
    }
}

impl SyncInstrument<f64> for Panicking {
    fn measure(&self, _: f64, _: &[KeyValue]) {
        panic!("the histogram is broken");
    }
}

/// Checks that the pool works and has reported a panic of the provider.
async fn check(cluster: &Cluster, provider: Arc<dyn MeterProvider + Send + Sync>) {
    let recorder = DebuggingRecorder::new();
    let _recorder = metrics::set_default_local_recorder(&recorder);
    let pool: Pool = crate::workload::builder(cluster, "").meter_provider(provider).build().expect("the pool is built");
    for _ in 0..3 {
        let client = pool.get_within(Target::Any, LIMIT).await.expect("a connection is available");
        client.simple_query("SELECT 1").await.expect("the query succeeds");
    }
    pool.export_metrics();
    let panics = recorder.snapshotter().snapshot().into_vec().into_iter().any(|(key, _, _, value)| {
        let source = key.key().labels().any(|label| (label.key(), label.value()) == ("source", "meter_provider"));
        key.key().name() == podpool::metrics::PANICS && source && value != DebugValue::Counter(0)
    });
    assert!(panics, "no panic of the provider was reported");
    pool.close().await;
}

// The recorder is thread-local, so the test uses the single-threaded runtime.
#[tokio::test]
async fn a_panic_of_the_provider_does_not_stop_the_pool() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    check(&cluster, Arc::new(NoMeters)).await;
    check(&cluster, Arc::new(Panicking)).await;
    cluster.shutdown().await.expect("the cluster stops");
}
