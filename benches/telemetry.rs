//! Compares the time of a checkout without telemetry with the time of a checkout that reports to a metrics recorder, a
//! tracing subscriber and an observer. Both use real servers and are measured in the same run. Each case is measured
//! twice; the difference between its two results shows the noise. The time of `SELECT 1` is compared with that on a
//! pool that has a provider of OpenTelemetry's instruments. To measure the cost of the `metrics` feature itself, run
//! the benchmark `checkout` with and without the feature.
#![allow(missing_docs, reason = "criterion's macros generate undocumented public items")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use criterion::{Criterion, criterion_group, criterion_main};
use metrics_util::debugging::DebuggingRecorder;
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};
use podpool::{Config, Event, Observer, Pool, Target, metrics::OPERATION_DURATION, testkit::Cluster};
use tokio::runtime::Runtime;

static EVENTS: AtomicU64 = AtomicU64::new(0);

struct Count;

impl Observer for Count {
    fn event(&mut self, _: &Event) {
        EVENTS.fetch_add(1, Ordering::Relaxed);
    }
}

fn pool(runtime: &Runtime, url: &str, observed: bool) -> Pool {
    let config: Config = format!("{url}&pool_size=4").parse().expect("the URL parses");
    runtime.block_on(async {
        let builder = Pool::builder(config);
        let builder = if observed { builder.observer(Count) } else { builder };
        let pool = builder.build().expect("the pool is created");
        pool.wait_ready(Target::Any, Duration::from_secs(10)).await.expect("a Pod becomes ready");
        let mut all = Vec::new();
        while all.len() < 12 {
            all.push(pool.get().await.expect("checkout succeeds"));
        }
        drop(all);
        pool
    })
}

fn telemetry(c: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("the runtime starts");
    let cluster = runtime.block_on(Cluster::builder().pods(3).start()).expect("the cluster starts");
    let mut group = c.benchmark_group("telemetry");
    let mut measure = |name: &str, pool: &Pool| {
        group.bench_function(name, |b| {
            b.to_async(&runtime).iter(|| async { drop(pool.get().await.expect("checkout succeeds")) });
        });
    };
    let unobserved = pool(&runtime, &cluster.url(), false);
    measure("no telemetry", &unobserved);
    measure("no telemetry, repeated", &unobserved);
    drop(unobserved);

    DebuggingRecorder::new().install().expect("no other recorder is installed");
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(std::io::sink).init();
    let observed = pool(&runtime, &cluster.url(), true);
    measure("recorder, subscriber and observer", &observed);
    measure("recorder, subscriber and observer, repeated", &observed);
    drop(observed);
    group.finish();
    assert!(EVENTS.load(Ordering::Relaxed) > 0, "the observer received no event");
    runtime.block_on(cluster.shutdown()).expect("the cluster shuts down");
}

/// Measures `SELECT 1` on connections of pools with and without a provider, alternately.
fn operations(c: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("the runtime starts");
    let cluster = runtime.block_on(Cluster::start(1)).expect("the cluster starts");
    let exporter = InMemoryMetricExporter::default();
    let reader = PeriodicReader::builder(exporter.clone()).with_interval(Duration::from_secs(3600)).build();
    let provider = Arc::new(SdkMeterProvider::builder().with_reader(reader).build());
    let build = |measured: bool| {
        let config: Config = format!("{}&pool_size=1", cluster.url()).parse().expect("the URL parses");
        let _runtime = runtime.enter();
        let builder = Pool::builder(config);
        let builder = if measured { builder.meter_provider(provider.clone()) } else { builder };
        builder.build().expect("the pool is created")
    };
    let mut group = c.benchmark_group("SELECT 1");
    for round in ["", ", repeated"] {
        for (name, pool) in [("no provider", build(false)), ("a provider", build(true))] {
            let client = runtime.block_on(pool.get()).expect("checkout succeeds");
            let statement = runtime.block_on(client.prepare("SELECT 1")).expect("the statement is prepared");
            group.bench_function(format!("{name}{round}"), |b| {
                b.to_async(&runtime)
                    .iter(|| async { client.query_one(&statement, &[]).await.expect("the query succeeds") });
            });
            drop((statement, client));
            runtime.block_on(pool.close());
        }
    }
    group.finish();
    provider.force_flush().expect("the metrics are collected");
    let all = exporter.get_finished_metrics().expect("the metrics are exported");
    let mut names = all.iter().flat_map(|all| all.scope_metrics()).flat_map(|scope| scope.metrics());
    assert!(names.any(|metric| metric.name() == OPERATION_DURATION), "no request was measured");
    runtime.block_on(cluster.shutdown()).expect("the cluster shuts down");
}

criterion_group!(benches, telemetry, operations);
criterion_main!(benches);
