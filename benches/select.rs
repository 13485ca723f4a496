//! Measures how long a checkout takes to pick a Pod: with and without in-flight counting, on one thread and on two, and
//! with and without a concurrent writer that publishes a snapshot of the set of Pods ten times per second.
#![allow(missing_docs, reason = "criterion's macros generate undocumented public items")]

use std::{
    hint::black_box,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use podpool::{
    Endpoint,
    balance::{LeastCost, LeastInFlight, PeakEwma, Policy, Random, RoundRobin},
    bench::{Picker, Set},
};

fn set(n: u32) -> Set {
    let pods: Vec<_> = (0..n).map(|i| Endpoint::new(((0x0a00_0000 + i).to_be_bytes(), 5432).into())).collect();
    Set::new(&pods)
}

/// Runs `iterations` iterations on each of `threads` concurrent threads. Returns the time of the slowest thread.
fn on_threads(threads: usize, iterations: u64, picker: &Picker, work: fn(&Picker)) -> Duration {
    if threads == 1 {
        let began = Instant::now();
        (0..iterations).for_each(|_| work(picker));
        return began.elapsed();
    }
    let barrier = Arc::new(Barrier::new(threads));
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let (barrier, picker) = (barrier.clone(), picker.clone());
            thread::spawn(move || {
                work(&picker);
                barrier.wait();
                let began = Instant::now();
                (0..iterations).for_each(|_| work(&picker));
                began.elapsed()
            })
        })
        .collect();
    workers.into_iter().map(|worker| worker.join().expect("no thread panicked")).max().unwrap_or_default()
}

type Work = fn(&Picker);

fn pick(picker: &Picker) {
    black_box(picker.pick().expect("a Pod is picked"));
}

fn counted(picker: &Picker) {
    drop(black_box(picker.pick_counted().expect("a Pod is picked")));
}

/// Measures how long a policy takes to pick a Pod, for each number of Pods in `sizes`. If `writer` is true, repeats the
/// measurement with a concurrent writer.
fn measure<P: Policy>(c: &mut Criterion, name: &str, policy: fn() -> P, sizes: &[u32], writer: bool) {
    for &n in sizes {
        for (group, work) in [("pick", pick as Work), ("counted", counted as Work)] {
            let mut group = c.benchmark_group(group);
            group.measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
            for threads in [1, 2] {
                let mut set = set(n);
                let picker = set.picker(policy());
                group.bench_function(BenchmarkId::new(format!("{name}/{n}Pods"), format!("{threads}threads")), |b| {
                    b.iter_custom(|iterations| on_threads(threads, iterations, &picker, work));
                });
                if !writer {
                    continue;
                }
                let stop = Arc::new(AtomicBool::new(false));
                let writer = thread::spawn({
                    let stop = stop.clone();
                    move || {
                        while !stop.load(Ordering::Relaxed) {
                            set.publish();
                            thread::sleep(Duration::from_millis(100));
                        }
                    }
                });
                let id = BenchmarkId::new(format!("{name}/{n}Pods"), format!("{threads}threads+writer10Hz"));
                group.bench_function(id, |b| {
                    b.iter_custom(|iterations| on_threads(threads, iterations, &picker, work));
                });
                stop.store(true, Ordering::Relaxed);
                writer.join().expect("no thread panicked");
            }
            group.finish();
        }
    }
}

/// Measures the minimum cost of a pick with in-flight counting: an `Arc` clone and drop, and one atomic addition.
fn floor(c: &mut Criterion) {
    let mut group = c.benchmark_group("floor");
    group.measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(300));
    let (shared, count) = (Arc::new(0u64), AtomicU64::new(0));
    group.bench_function("Arc clone and drop, one fetch_add", |b| {
        b.iter(|| {
            count.fetch_add(1, Ordering::Relaxed);
            drop(black_box(shared.clone()));
        });
    });
    group.finish();
}

fn select(c: &mut Criterion) {
    floor(c);
    measure(c, "LeastCost", LeastCost::new, &[3, 20, 100, 1000], true);
    measure(c, "LeastInFlight", LeastInFlight::new, &[3, 1000], false);
    measure(c, "PeakEwma", PeakEwma::new, &[3, 1000], false);
    measure(c, "RoundRobin", RoundRobin::new, &[3, 1000], false);
    measure(c, "Random", Random::new, &[3, 1000], false);
}

criterion_group!(benches, select);
criterion_main!(benches);
