//! Compares how long podpool and a plain deadpool-postgres pool take to check out and return a warm connection, with
//! real servers and in the same run. Two identical deadpool-postgres pools are measured; their difference is the noise.
#![allow(missing_docs, reason = "criterion's macros generate undocumented public items")]

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
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

/// Opens this many connections and returns them to the pool.
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
            task.await.expect("no thread panicked");
        }
        began.elapsed()
    })
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
            group.bench_function(name, |b| {
                b.iter_custom(|iterations| {
                    let pool = pool.clone();
                    on_tasks(&runtime, tasks, iterations, move || {
                        let pool = pool.clone();
                        async move { drop(pool.get().await.expect("checkout succeeds")) }
                    })
                });
            });
        }
        for (name, pool) in [("podpool, one Pod", single), ("podpool, three Pods", three)] {
            group.bench_function(name, |b| {
                b.iter_custom(|iterations| {
                    let pool = pool.clone();
                    on_tasks(&runtime, tasks, iterations, move || {
                        let pool = pool.clone();
                        async move { drop(pool.get().await.expect("checkout succeeds")) }
                    })
                });
            });
        }
        group.finish();
        runtime.block_on(cluster.shutdown()).expect("the cluster shuts down");
    }
}

criterion_group!(benches, checkout);
criterion_main!(benches);
