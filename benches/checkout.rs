//! `Pool::get` and giving back, beside a bare deadpool-postgres pool, on real servers and in one run. Two bare pools
//! are measured, so that the noise between two things that are the same shows.
#![allow(missing_docs, reason = "criterion's macros make public items")]

use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use deadpool_postgres::{Manager, ManagerConfig, RecyclingMethod};
use podpool::{Config, Pool, Target, testkit::Cluster};
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

/// Connections in each pool.
const SIZE: usize = 8;

fn bare(url: &str) -> deadpool_postgres::Pool {
    let config = url.parse().expect("a URL");
    let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
    deadpool_postgres::Pool::builder(manager).max_size(SIZE).build().expect("a pool")
}

async fn warm_bare(pool: &deadpool_postgres::Pool) {
    let mut all = Vec::new();
    for _ in 0..SIZE {
        all.push(pool.get().await.expect("a connection"));
    }
}

async fn warm(pool: &Pool, connections: usize) {
    pool.wait_ready(Target::Any, Duration::from_secs(10)).await.expect("ready");
    let mut all = Vec::new();
    for _ in 0..connections {
        all.push(pool.get().await.expect("a connection"));
    }
}

/// The time that `tasks` tasks take for `iterations` together.
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
            task.await.expect("no panic");
        }
        began.elapsed()
    })
}

fn checkout(c: &mut Criterion) {
    for (workers, tasks) in [(1, 1), (2, 8)] {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(workers).enable_all().build().unwrap();
        let cluster = runtime.block_on(Cluster::builder().pods(3).start()).expect("a cluster");
        let (one, other) = (bare(&cluster.pod_url(0)), bare(&cluster.pod_url(0)));
        let single: Config = format!("{}?pool_size={SIZE}", cluster.pod_url(0)).parse().expect("a URL");
        let three: Config = format!("{}&pool_size={SIZE}", cluster.url()).parse().expect("a URL");
        let (single, three) = runtime.block_on(async {
            warm_bare(&one).await;
            warm_bare(&other).await;
            let single = Pool::builder(single).build().expect("a pool");
            let three = Pool::builder(three).build().expect("a pool");
            warm(&single, SIZE).await;
            warm(&three, 3 * SIZE).await;
            (single, three)
        });

        let mut group = c.benchmark_group(format!("checkout/{workers}threads/{tasks}tasks"));
        for (name, pool) in [("bare deadpool-postgres", one), ("bare deadpool-postgres again", other)] {
            group.bench_function(name, |b| {
                b.iter_custom(|iterations| {
                    let pool = pool.clone();
                    on_tasks(&runtime, tasks, iterations, move || {
                        let pool = pool.clone();
                        async move { drop(pool.get().await.expect("a connection")) }
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
                        async move { drop(pool.get().await.expect("a connection")) }
                    })
                });
            });
        }
        group.finish();
        runtime.block_on(cluster.shutdown()).expect("an orderly end");
    }
}

criterion_group!(benches, checkout);
criterion_main!(benches);
