//! Measures the CPU time of a pool with many waiters while all Pods are down. This test has its own program, because it
//! measures the whole process.
#![cfg(target_os = "linux")]

#[path = "common/mod.rs"]
mod common;

use std::{fs, time::Duration};

use podpool::{Config, Pool, State, testkit::Cluster};
use tokio::{task::JoinSet, time::sleep};

use crate::common::{in_state, until};

const WAITERS: usize = 20_000;
const MEASURED: Duration = Duration::from_secs(5);

/// Returns the CPU time that the process has used. The kernel counts it in steps of 10 ms.
fn cpu_time() -> Duration {
    let stat = fs::read_to_string("/proc/self/stat").expect("the process has statistics");
    // The name of the program, in parentheses, may contain spaces. `utime` is field 14 of the whole line.
    let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().expect("a number")).sum();
    Duration::from_millis(10 * ticks)
}

/// All three Pods are down, and 20,000 callers wait. The process uses less than 5 % of one core.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_waiters_use_little_cpu_during_an_outage() {
    let limit = Duration::from_secs(30);
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let config: Config = cluster.url().parse().expect("the URL parses");
    let mut limits = *config.limits();
    limits.acquire_timeout = Duration::from_secs(120);
    let pool = Pool::builder(config.with_limits(limits)).build().expect("the pool is created");
    until(limit, "all Pods are healthy", || in_state(&pool, State::Healthy) == 3).await;
    for ordinal in 0..3 {
        cluster.kill(ordinal).await.expect("SIGKILL is sent");
    }
    until(limit, "all Pods are ejected", || in_state(&pool, State::Ejected) == 3).await;
    let mut waiters = JoinSet::new();
    for _ in 0..WAITERS {
        let pool = pool.clone();
        drop(waiters.spawn(async move { pool.get().await.map(drop) }));
    }
    let all_wait = || pool.status().endpoints.iter().any(|pod| pod.waiting == WAITERS);
    until(limit, "every caller is in the queue", all_wait).await;
    let before = cpu_time();
    sleep(MEASURED).await;
    let used = cpu_time() - before;
    let share = used.as_secs_f64() / MEASURED.as_secs_f64();
    println!("{WAITERS} waiters: {used:?} of CPU time in {MEASURED:?}, {:.1} % of one core", 100.0 * share);
    assert_eq!(waiters.len(), WAITERS);
    assert!(waiters.try_join_next().is_none(), "all callers still wait");
    assert!(share < 0.05, "{used:?}");
    drop((waiters, pool));
    cluster.shutdown().await.expect("the cluster shuts down");
}
