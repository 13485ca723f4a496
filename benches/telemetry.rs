//! Compares the time of a checkout without telemetry with the time of a checkout that reports to a metrics recorder, a
//! tracing subscriber and an observer. Both use real servers and are measured in the same run. Each case is measured
//! twice; the difference between its two results shows the noise. To measure the cost of the `metrics` feature itself,
//! run the benchmark `checkout` with and without the feature.
#![allow(missing_docs, reason = "criterion's macros generate undocumented public items")]

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use criterion::{Criterion, criterion_group, criterion_main};
use metrics_util::debugging::DebuggingRecorder;
use podpool::{Config, Event, Observer, Pool, Target, testkit::Cluster};
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

criterion_group!(benches, telemetry);
criterion_main!(benches);
