//! Compares the time that podpool and a plain deadpool-postgres pool take to check out and return a warm connection.
//! Both pools connect to real servers and are measured in the same run. A second, identical deadpool-postgres pool is
//! measured too; the difference between the two deadpool-postgres pools shows the noise. A second benchmark compares
//! checkouts from a standby with and without 5,000 callers that wait for a primary while there is none.
#![allow(missing_docs, reason = "criterion's macros generate undocumented public items")]

use std::time::{Duration, Instant};

use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use deadpool_postgres::{Manager, ManagerConfig, RecyclingMethod};
use podpool::{Config, Pool, Target, testkit::Cluster};
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

/// Number of connections to each Pod.
const SIZE: usize = 8;

fn plain(url: &str) -> deadpool_postgres::Pool {
    let config = url.parse().expect("the URL parses");
    let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
    deadpool_postgres::Pool::builder(manager).max_size(SIZE).build().expect("the pool is created")
}

/// Opens all connections of the pool and returns them to it.
async fn warm_plain(pool: &deadpool_postgres::Pool) {
    let mut all = Vec::new();
    for _ in 0..SIZE {
        all.push(pool.get().await.expect("checkout succeeds"));
    }
}

/// Opens `connections` connections and returns them to the pool.
async fn warm(pool: &Pool, connections: usize) {
    pool.wait_ready(Target::Any, Duration::from_secs(10)).await.expect("a Pod becomes ready");
    let mut all = Vec::new();
    for _ in 0..connections {
        all.push(pool.get().await.expect("checkout succeeds"));
    }
}

/// Returns the time that `tasks` concurrent tasks take to complete `iterations` iterations in total.
fn on_tasks<F, Fut>(runtime: &Runtime, tasks: u64, iterations: u64, work: F) -> Duration
where
    F: Fn() -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    runtime.block_on(async {
        let began = Instant::now();
        let each = iterations.div_ceil(tasks);
        let tasks: Vec<_> = (0..tasks)
            .map(|_| {
                let work = work.clone();
                tokio::spawn(async move {
                    for _ in 0..each {
                        work().await;
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no task panicked");
        }
        began.elapsed()
    })
}

/// Measures `work`, which checks out and returns a connection of the pool, in `tasks` concurrent tasks.
fn measure<P, F, Fut>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    runtime: &Runtime,
    tasks: u64,
    pool: &P,
    work: F,
) where
    P: Clone + Send + 'static,
    F: Fn(P) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = ()> + Send,
{
    group.bench_function(name, |b| {
        b.iter_custom(|iterations| {
            let (pool, work) = (pool.clone(), work.clone());
            on_tasks(runtime, tasks, iterations, move || work(pool.clone()))
        });
    });
}

fn checkout(c: &mut Criterion) {
    for (workers, tasks) in [(1, 1), (2, 8)] {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap();
        let cluster = runtime.block_on(Cluster::builder().pods(3).start()).expect("the cluster starts");
        let (first, second) = (plain(&cluster.pod_url(0)), plain(&cluster.pod_url(0)));
        let single: Config = format!("{}?pool_size={SIZE}", cluster.pod_url(0)).parse().expect("the URL parses");
        let three: Config = format!("{}&pool_size={SIZE}", cluster.url()).parse().expect("the URL parses");
        let (single, three) = runtime.block_on(async {
            warm_plain(&first).await;
            warm_plain(&second).await;
            let single = Pool::builder(single).build().expect("the pool is created");
            let three = Pool::builder(three).build().expect("the pool is created");
            warm(&single, SIZE).await;
            warm(&three, 3 * SIZE).await;
            (single, three)
        });

        let mut group = c.benchmark_group(format!("checkout/{workers}threads/{tasks}tasks"));
        for (name, pool) in [("deadpool-postgres", first), ("deadpool-postgres, repeated", second)] {
            measure(&mut group, name, &runtime, tasks, &pool, |pool| async move {
                drop(pool.get().await.expect("checkout succeeds"));
            });
        }
        for (name, pool) in [("podpool, one Pod", single), ("podpool, three Pods", three)] {
            measure(&mut group, name, &runtime, tasks, &pool, |pool| async move {
                drop(pool.get().await.expect("checkout succeeds"));
            });
        }
        group.finish();
        runtime.block_on(cluster.shutdown()).expect("the cluster shuts down");
    }
}

/// Number of callers that wait for a primary.
const WAITERS: u64 = 5_000;

/// Measures checkouts from a standby while other callers wait for a primary.
fn waiting(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let cluster = runtime.block_on(Cluster::start(2)).expect("the cluster starts");
    let primary = cluster.primary().expect("the cluster has a primary");
    cluster.unpublish(primary).expect("the DNS server is updated");
    let config: Config = format!("{}&pool_size={SIZE}", cluster.url()).parse().expect("the URL parses");
    let mut limits = *config.limits();
    limits.acquire_timeout = Duration::from_secs(600);
    let pool = runtime.block_on(async {
        let pool = Pool::builder(config.with_limits(limits)).build().expect("the pool is created");
        pool.wait_ready(Target::Standby, Duration::from_secs(10)).await.expect("the standby becomes ready");
        pool
    });
    let mut group = c.benchmark_group("waiting");
    let mut waiters = Vec::new();
    for name in ["get_for(Standby), no waiters", "get_for(Standby), 5,000 callers wait for a primary"] {
        measure(&mut group, name, &runtime, 1, &pool, |pool| async move {
            drop(pool.get_for(Target::Standby).await.expect("checkout succeeds"));
        });
        if waiters.is_empty() {
            let before = pool.status().counters.waits;
            for _ in 0..WAITERS {
                let pool = pool.clone();
                waiters.push(runtime.spawn(async move { pool.get_for(Target::Primary).await.map(drop) }));
            }
            while pool.status().counters.waits < before + WAITERS {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }
    group.finish();
    assert!(waiters.iter().all(|waiter| !waiter.is_finished()), "all callers still wait");
    waiters.iter().for_each(tokio::task::JoinHandle::abort);
    runtime.block_on(cluster.shutdown()).expect("the cluster shuts down");
}

criterion_group!(benches, checkout, waiting);
criterion_main!(benches);
