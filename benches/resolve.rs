//! Measures the time from a parsed DNS response to a published snapshot of the set of Pods. The case "floor" is the
//! minimum cost of publishing a new set of Pods: cloning a vector of the Pods and storing a pointer to the clone.
#![allow(missing_docs, reason = "criterion's macros generate undocumented public items")]

use std::{
    hint::black_box,
    sync::{Arc, Mutex},
};

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use podpool::{Endpoint, bench::Set, discovery::Resolution};

fn endpoints(n: u32, first: u32) -> Vec<Endpoint> {
    (first..first + n).map(|i| Endpoint::new(((0x0a00_0000 + i).to_be_bytes(), 5432).into())).collect()
}

/// Shuffles the Pods, as name servers shuffle the records in a response.
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

        // Allocates new endpoints for each iteration, as parsing a response does. Neither allocating nor dropping the
        // endpoints is measured.
        let parsed = |first| shuffled(endpoints(n, first));
        let resolution = |endpoints| Resolution::new(endpoints, tokio::time::Instant::now());
        let mut set = Set::new(&parsed(0));
        group.bench_function(BenchmarkId::new("unchanged", n), |b| {
            b.iter_batched(
                || parsed(0),
                |endpoints| {
                    let resolution = resolution(endpoints);
                    assert!(!set.apply(&resolution.endpoints));
                    resolution
                },
                BatchSize::PerIteration,
            );
        });

        // Each iteration replaces one Pod, by alternating between two sets of Pods.
        let mut set = Set::new(&parsed(1));
        let mut shifted = false;
        group.bench_function(BenchmarkId::new("one changed", n), |b| {
            b.iter_batched(
                || {
                    shifted = !shifted;
                    parsed(u32::from(!shifted))
                },
                |endpoints| {
                    let resolution = resolution(endpoints);
                    assert!(set.apply(&resolution.endpoints));
                    resolution
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, resolve);
criterion_main!(benches);
