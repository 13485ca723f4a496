//! One pick, as a checkout makes it: alone and counted, on one thread and on two, in peace and with a writer that
//! publishes ten times a second.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::{
    hint::black_box,
    sync::{
        Arc, Barrier,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use podpool::{
    Endpoint,
    bench::{Picker, Set},
};

fn set(n: u32) -> Set {
    let pods: Vec<_> = (0..n).map(|i| Endpoint::new(((0x0a00_0000 + i).to_be_bytes(), 5432).into())).collect();
    Set::new(&pods)
}

/// The time that `threads` threads take for `iterations` each.
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
    workers.into_iter().map(|worker| worker.join().expect("no panic")).max().unwrap_or_default()
}

type Work = fn(&Picker);

fn pick(picker: &Picker) {
    black_box(picker.pick().expect("a Pod"));
}

fn counted(picker: &Picker) {
    drop(black_box(picker.pick_counted().expect("a Pod")));
}

fn select(c: &mut Criterion) {
    let mut group = c.benchmark_group("select");
    group.measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(500));
    for n in [3, 20, 100, 1000] {
        for (name, work) in [("pick", pick as Work), ("counted", counted as Work)] {
            for threads in [1, 2] {
                let mut set = set(n);
                let picker = set.picker();
                group.bench_function(
                    BenchmarkId::new(format!("{name}/least_in_flight/{n}Pods"), format!("{threads}threads")),
                    |b| {
                        b.iter_custom(|iterations| on_threads(threads, iterations, &picker, work));
                    },
                );
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
                let id =
                    BenchmarkId::new(format!("{name}/least_in_flight/{n}Pods"), format!("{threads}threads+writer10Hz"));
                group.bench_function(id, |b| {
                    b.iter_custom(|iterations| on_threads(threads, iterations, &picker, work));
                });
                stop.store(true, Ordering::Relaxed);
                writer.join().expect("no panic");
            }
        }
    }
    group.finish();
}

criterion_group!(benches, select);
criterion_main!(benches);
