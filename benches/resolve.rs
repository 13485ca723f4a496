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

        // What comes is new to the last Pod, as it is when an answer has been parsed; letting go of it is not counted.
        let parsed = |first| shuffled(endpoints(n, first));
        let resolution = |answer| Resolution::new(answer, tokio::time::Instant::now());
        let mut set = Set::new(&parsed(0));
        group.bench_function(BenchmarkId::new("unchanged", n), |b| {
            b.iter_batched(
                || parsed(0),
                |answer| {
                    let answer = resolution(answer);
                    assert!(!set.apply(&answer.endpoints));
                    answer
                },
                BatchSize::PerIteration,
            );
        });

        // One Pod goes and another comes, in turns.
        let mut set = Set::new(&parsed(1));
        let mut turn = false;
        group.bench_function(BenchmarkId::new("one changed", n), |b| {
            b.iter_batched(
                || {
                    turn = !turn;
                    parsed(u32::from(!turn))
                },
                |answer| {
                    let answer = resolution(answer);
                    assert!(set.apply(&answer.endpoints));
                    answer
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, resolve);
criterion_main!(benches);
