//! Tests fairness and accounting under contention: many callers share few connections while backends are terminated
//! continually. Every caller is served, and no connection or permit is lost.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use podpool::{Config, Pool, State, Target, testkit::Cluster};

mod common;
use common::{in_state, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serves_every_caller_while_connections_are_terminated() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    let url = format!("{}&pool_size=2&acquire_timeout=20s", cluster.url());
    let config: Config = url.parse().expect("the URL parses");
    let pool = Pool::builder(config).build().expect("the pool is created");
    until(Duration::from_secs(10), "two Pods serve", || in_state(&pool, State::Healthy) == 2).await;

    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..64)
        .map(|caller| {
            let (pool, stop, served) = (pool.clone(), stop.clone(), served.clone());
            tokio::spawn(async move {
                let mut slowest = Duration::ZERO;
                for call in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let began = Instant::now();
                    // One call in seven is cancelled after up to 2 ms, at an arbitrary await.
                    if (caller + call) % 7 == 0 {
                        let limit = Duration::from_micros(100 * (call % 20));
                        let _ = tokio::time::timeout(limit, pool.get()).await;
                        continue;
                    }
                    let client = pool.get().await.expect("checkout succeeds");
                    slowest = slowest.max(began.elapsed());
                    // The statement may fail, because its backend may be terminated.
                    let _ = match call % 5 {
                        0 => client.batch_execute("BEGIN").await,
                        1 => client.query_one("SELECT pg_sleep(0.002)", &[]).await.map(drop),
                        _ => client.simple_query("SELECT 1").await.map(drop),
                    };
                    served.fetch_add(1, Ordering::Relaxed);
                }
                slowest
            })
        })
        .collect();

    let killers = [
        cluster.client(0).await.expect("the superuser connects"),
        cluster.client(1).await.expect("the superuser connects"),
    ];
    let began = Instant::now();
    let mut killed = 0i64;
    while began.elapsed() < Duration::from_secs(8) {
        for killer in &killers {
            let sql = "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity \
                       WHERE usename = 'user' ORDER BY random() LIMIT 1) one";
            killed += killer.query_one(sql, &[]).await.expect("the query succeeds").get::<_, i64>(0);
        }
        let before = served.load(Ordering::Relaxed);
        until(Duration::from_secs(10), "callers are served", || served.load(Ordering::Relaxed) > before + 20).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut slowest = Duration::ZERO;
    for caller in callers {
        let done = tokio::time::timeout(Duration::from_secs(30), caller).await;
        slowest = slowest.max(done.expect("every caller ends within 30 s").expect("no caller panics"));
    }
    println!(
        "{} checkouts served, {killed} connections terminated, slowest checkout {slowest:?}",
        served.load(Ordering::Relaxed)
    );
    assert!(killed > 10, "too few connections were terminated: {killed}");

    let at_rest =
        || pool.status().endpoints.iter().all(|pod| pod.in_use == 0 && pod.waiting == 0 && pod.idle == pod.open);
    until(Duration::from_secs(10), "every connection is idle", at_rest).await;
    pool.wait_ready(Target::Any, Duration::from_secs(5)).await.expect("the pool still serves");
    cluster.shutdown().await.expect("the cluster shuts down");
}
