//! From a parsed answer to a published snapshot, beside what it cannot be cheaper than: cloning the vector of Pods and
//! storing the pointer.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::{
    hint::black_box,
    sync::{Arc, Mutex},
};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use podpool::{Endpoint, bench::Set, discovery::Resolution};

fn endpoints(n: u32, first: u32) -> Vec<Endpoint> {
    (first..first + n).map(|i| Endpoint::new(((0x0a00_0000 + i).to_be_bytes(), 5432).into())).collect()
}

/// As it comes from a server that shuffles.
fn shuffled(mut endpoints: Vec<Endpoint>) -> Vec<Endpoint> {
    let n = endpoints.len();
    for i in 0..n {
        endpoints.swap(i, (i * 7919 + 13) % n);
    }
    endpoints
}

fn resolve(c: &mut Criterion) {
    let mut group = c.benchmark_group("resolve");
    for n in [3u32, 100, 1000] {
        group.throughput(Throughput::Elements(n.into()));
        let pods: Vec<Arc<Endpoint>> = endpoints(n, 0).into_iter().map(Arc::new).collect();
        let stored = Mutex::new(Arc::new(pods.clone()));
        group.bench_function(BenchmarkId::new("floor: clone and store", n), |b| {
            b.iter(|| *stored.lock().unwrap() = Arc::new(black_box(&pods).clone()));
        });

        let resolution = |endpoints| Resolution::new(endpoints, tokio::time::Instant::now());
        let same = shuffled(endpoints(n, 0));
        let mut set = Set::new(&resolution(same.clone()).endpoints);
        group.bench_function(BenchmarkId::new("unchanged", n), |b| {
            b.iter_batched(
                || same.clone(),
                |answer| assert!(!set.apply(&resolution(answer).endpoints)),
                BatchSize::SmallInput,
            );
        });

        // One Pod goes and another comes, in turns.
        let other = shuffled(endpoints(n, 1));
        let mut set = Set::new(&resolution(other.clone()).endpoints);
        let mut turn = false;
        group.bench_function(BenchmarkId::new("one changed", n), |b| {
            b.iter_batched(
                || {
                    turn = !turn;
                    if turn { same.clone() } else { other.clone() }
                },
                |answer| assert!(set.apply(&resolution(answer).endpoints)),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, resolve);
criterion_main!(benches);
