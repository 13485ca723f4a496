//! A checkout while nobody listens, and while everybody does: a recorder of metrics, a subscriber of log lines and
//! spans, and an observer. On real servers and in one run; what is the same is measured twice, so that the noise shows.
//! For the feature itself, run `checkout` with and without it.
#![allow(missing_docs, reason = "criterion's macros make public items")]

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
    let config: Config = format!("{url}&pool_size=4").parse().expect("a URL");
    runtime.block_on(async {
        let builder = Pool::builder(config);
        let builder = if observed { builder.observer(Count) } else { builder };
        let pool = builder.build().expect("a pool");
        pool.wait_ready(Target::Any, Duration::from_secs(10)).await.expect("ready");
        let mut all = Vec::new();
        while all.len() < 12 {
            all.push(pool.get().await.expect("a connection"));
        }
        drop(all);
        pool
    })
}

fn telemetry(c: &mut Criterion) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let cluster = runtime.block_on(Cluster::builder().pods(3).start()).expect("a cluster");
    let mut group = c.benchmark_group("telemetry");
    let mut measure = |name: &str, pool: &Pool| {
        group.bench_function(name, |b| {
            b.to_async(&runtime).iter(|| async { drop(pool.get().await.expect("a connection")) });
        });
    };
    let quiet = pool(&runtime, &cluster.url(), false);
    measure("nobody listens", &quiet);
    measure("nobody listens, again", &quiet);
    drop(quiet);

    DebuggingRecorder::new().install().expect("the first recorder");
    tracing_subscriber::fmt().with_max_level(tracing::Level::INFO).with_writer(std::io::sink).init();
    let heard = pool(&runtime, &cluster.url(), true);
    measure("everybody listens", &heard);
    measure("everybody listens, again", &heard);
    drop(heard);
    group.finish();
    assert!(EVENTS.load(Ordering::Relaxed) > 0, "the observer hears something");
    runtime.block_on(cluster.shutdown()).expect("an orderly end");
}

criterion_group!(benches, telemetry);
criterion_main!(benches);
