//! A call that is cut short loses nothing, and a pool that is dropped leaves nothing.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use podpool::{Config, Pool, State, testkit::Cluster};

mod common;
use common::{in_state, server_addr, until};

fn config(cluster: &Cluster, more: &str) -> Config {
    format!("{}&{more}", cluster.url()).parse().expect("a URL")
}

/// Nothing lent, and as many idle as open.
fn at_rest(pool: &Pool) -> bool {
    pool.status().endpoints.iter().all(|pod| pod.in_use == 0 && pod.waiting == 0 && pod.idle == pod.open)
}

/// `get` is polled a given number of times and dropped, with every connection lent, with some idle, and with none open
/// yet, so that each of its awaits is left at some time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_get_loses_nothing() {
    let cluster = Cluster::start(2).await.expect("a cluster");
    // With and without connections that want a ping first.
    for (size, rounds, rest) in [(1, 300, 0), (3, 300, 0), (1, 60, 250)] {
        let mut config = config(&cluster, &format!("pool_size={size}&min_idle=0&acquire_timeout=30s"));
        if rest > 0 {
            let mut limits = *config.limits();
            limits.ping_after = Duration::ZERO;
            config = config.with_limits(limits);
        }
        let pool = Pool::builder(config).build().expect("a pool");
        until(Duration::from_secs(10), "two Pods are healthy", || in_state(&pool, State::Healthy) == 2).await;
        let mut cancelled = 0;
        for round in 0..rounds {
            let began = Instant::now();
            until(Duration::from_secs(5), "they have rested", || began.elapsed().as_millis() >= rest).await;
            let polls = round % 6;
            // In every third round somebody holds everything, in every third one.
            let hold = [0, 1, 2 * size][round / 6 % 3];
            let mut held = Vec::new();
            for _ in 0..hold {
                held.push(pool.get().await.expect("a connection"));
            }
            {
                let mut get = pin!(pool.get());
                for poll in 0..=polls {
                    let mut cx = Context::from_waker(Waker::noop());
                    if let Poll::Ready(client) = get.as_mut().poll(&mut cx) {
                        drop(client.expect("a connection"));
                        break;
                    }
                    cancelled += usize::from(poll == polls);
                    if poll == 2 {
                        held.clear(); // a connection is handed over while the caller sleeps
                    }
                    tokio::task::yield_now().await;
                }
            }
            drop(held);
        }
        until(Duration::from_secs(10), "everything is back", || at_rest(&pool)).await;
        let status = pool.status();
        println!("{cancelled} of {rounds} calls cancelled; {:?}", status.counters);
        assert!(cancelled > rounds / 8, "the calls were to be cancelled: {cancelled}");
        for pod in &status.endpoints {
            assert!(pod.open <= size, "{pod:?}");
        }
        // Every place can still be had at once, and works.
        let mut all = Vec::new();
        for _ in 0..2 * size {
            all.push(pool.get().await.expect("a connection"));
        }
        for client in &all {
            server_addr(client).await;
        }
        let lent: usize = pool.status().endpoints.iter().map(|pod| pod.in_use).sum();
        assert_eq!(lent, 2 * size);
        drop(all);
        until(Duration::from_secs(10), "everything is back", || at_rest(&pool)).await;
    }
    cluster.shutdown().await.expect("an orderly end");
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// On one thread, each pool at a different moment of its youth.
#[tokio::test(flavor = "current_thread")]
async fn ten_thousand_pools_leave_no_task_descriptor_or_memory_behind() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let metrics = tokio::runtime::Handle::current().metrics();
    let make = async |count: usize| {
        for i in 0..count {
            let pool = Pool::builder(config(&cluster, "acquire_timeout=5s")).build().expect("a pool");
            match i % 100 {
                0 => drop(pool.get().await.expect("a connection")),
                1 => drop(tokio::time::timeout(Duration::from_millis(1), pool.get()).await),
                2..50 => tokio::task::yield_now().await,
                _ => {}
            }
        }
    };
    make(1_000).await; // allocators and caches fill
    let quiet = |tasks, files| async move {
        let metrics = tokio::runtime::Handle::current().metrics();
        until(Duration::from_secs(10), "the tasks have ended", || {
            metrics.num_alive_tasks() <= tasks && descriptors() <= files
        })
        .await;
    };
    let base = 40; // the cluster's own
    quiet(base, usize::MAX).await;
    let (tasks, files, memory) = (metrics.num_alive_tasks(), descriptors(), resident());
    make(10_000).await;
    quiet(tasks, files).await;
    let grown = resident().saturating_sub(memory);
    println!(
        "after 10,000 pools: {} tasks (before: {tasks}), {} descriptors (before: {files}), {} KiB more resident",
        metrics.num_alive_tasks(),
        descriptors(),
        grown / 1024
    );
    // Were a pool to leave as little as one kibibyte, it would be ten mebibytes.
    assert!(grown < 8 << 20, "{grown} bytes");
    cluster.shutdown().await.expect("an orderly end");
}

/// 10,000 calls that are dropped while they wait: for a connection that is lent out, for one that is being opened, for a
/// ping, and with a connection just handed to them.
async fn ten_thousand_cancelled_checkouts() {
    const CANCELLED: usize = 10_000;
    const SIZE: usize = 3;
    let cluster = Cluster::start(1).await.expect("a cluster");
    let observer = cluster.client(0).await.expect("a superuser");
    let mut limits = *config(&cluster, "min_idle=0&acquire_timeout=30s&idle_timeout=365d").limits();
    limits.ping_after = Duration::ZERO; // wherever the clock has moved
    limits.pool_size = SIZE;
    let pool = Pool::builder(config(&cluster, "pool_size=3").with_limits(limits)).build().expect("a pool");
    // Until every place is taken by a connection that works: some that were terminated may not have been used since.
    let fill = async || {
        loop {
            let (mut all, mut work) = (Vec::new(), true);
            for _ in 0..SIZE {
                all.push(pool.get().await.expect("a connection"));
            }
            for client in &all {
                work &= client.simple_query("SELECT 1").await.is_ok();
            }
            if work {
                break;
            }
        }
    };
    let backends = async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'user'";
        observer.query_one(sql, &[]).await.expect("an answer").get::<_, i64>(0) as usize
    };
    let metrics = tokio::runtime::Handle::current().metrics();
    fill().await;
    until(Duration::from_secs(10), "everything is back", || at_rest(&pool)).await;
    let (tasks, files, sessions) = (metrics.num_alive_tasks(), descriptors(), backends().await);
    assert_eq!(sessions, SIZE + 1, "the pool's, and the probe's");

    let (mut cancelled, mut handed, mut round) = (0, 0, 0);
    while cancelled < CANCELLED {
        round += 1;
        assert!(round < 4 * CANCELLED, "only {cancelled} of {round} calls had to wait");
        let mut held = Vec::new();
        for _ in 0..[SIZE, SIZE, SIZE - 1, 0][round % 4] {
            held.push(pool.get().await.expect("a connection"));
        }
        if round % 97 == 0 {
            // One fewer is open, so one is opened for whoever waits.
            let sql = "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity \
                       WHERE usename = 'user' AND query NOT LIKE '%pg_is_in_recovery%' LIMIT 1) one";
            observer.query_one(sql, &[]).await.expect("an answer");
        }
        let mut gets: Vec<_> = (0..4).map(|_| Box::pin(pool.get())).collect();
        let mut cx = Context::from_waker(Waker::noop());
        for poll in 0..1 + round % 3 {
            // What is ready is given back at once, and so to the next.
            gets.retain_mut(|get| get.as_mut().poll(&mut cx).is_pending());
            if poll == 1 {
                // To those who wait; they are dropped before they see it.
                handed += held.len().min(gets.len());
                held.clear();
            }
            if round % 5 == 0 {
                tokio::task::yield_now().await;
            }
        }
        cancelled += gets.len();
        // In any order, the first of the queue first or last.
        if round % 2 == 0 {
            gets.reverse();
        }
        drop(gets);
    }

    // The end of a session that was terminated may be heard of late, and closes the others.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        until(Duration::from_secs(10), "everything is back", || at_rest(&pool)).await;
        fill().await;
        until(Duration::from_secs(10), "everything is back", || at_rest(&pool)).await;
        let (now, pod) = (backends().await, pool.status().endpoints.remove(0));
        if now == sessions && pod.open == SIZE && pod.idle == SIZE {
            break;
        }
        assert!(Instant::now() < deadline, "{now} sessions at the server, {pod:?}");
    }
    until(Duration::from_secs(10), "no task and no descriptor is left", || {
        metrics.num_alive_tasks() <= tasks && descriptors() <= files
    })
    .await;
    let status = pool.status();
    let (pod, counters) = (&status.endpoints[0], status.counters);
    println!(
        "{cancelled} cancelled, up to {handed} of them with a connection in their hands; {} tasks (before: {tasks}), \
         {} descriptors (before: {files}), {sessions} sessions; {counters:?}",
        metrics.num_alive_tasks(),
        descriptors()
    );
    assert_eq!((pod.open, pod.idle, pod.in_use, pod.waiting), (SIZE, SIZE, 0, 0), "{pod:?}");
    assert_eq!(counters.opened - counters.closed, SIZE as u64, "{counters:?}");
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "current_thread")]
async fn ten_thousand_cancelled_checkouts_leave_nothing_behind_on_one_thread() {
    ten_thousand_cancelled_checkouts().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_cancelled_checkouts_leave_nothing_behind_on_many_threads() {
    ten_thousand_cancelled_checkouts().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_waits_for_what_is_lent_and_cuts_what_does_not_come_back() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let pool = Pool::connect(&cluster.url()).await.expect("a pool");
    let client = pool.get().await.expect("a connection");
    let closing = tokio::spawn({
        let pool = pool.clone();
        async move { pool.close().await }
    });
    until(Duration::from_secs(5), "the pool is closing", || pool.status().closed).await;
    let error = pool.get().await.expect_err("closed");
    assert_eq!(error.kind(), podpool::Kind::Shutdown);
    server_addr(&client).await; // what is lent goes on working
    drop(client);
    assert_eq!(closing.await.expect("no panic"), 0);

    let config = config(&cluster, "close_timeout=200ms");
    let pool = Pool::builder(config).build().expect("a pool");
    let client = pool.get().await.expect("a connection");
    assert_eq!(pool.close().await, 1);
    client.query_one("SELECT 1", &[]).await.expect_err("cut");
    cluster.shutdown().await.expect("an orderly end");
}

/// The runtime that the pool ran on is gone; what is lent can still be dropped, and calls fail instead of hanging.
#[test]
fn a_client_and_a_pool_outlive_their_runtime() {
    let servers = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let cluster = servers.block_on(Cluster::start(1)).expect("a cluster");
    let pools = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let pool = pools.block_on(Pool::connect(&cluster.url())).expect("a pool");
    let client = pools.block_on(pool.get()).expect("a connection");
    let busy = pools.block_on(pool.get()).expect("a connection");
    pools.block_on(async {
        // Left in the middle of a statement.
        let mut query = pin!(busy.query_one("SELECT pg_sleep(10)", &[]));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(query.as_mut().poll(&mut cx).is_pending());
    });
    drop(pools);
    drop(busy);
    drop(client);
    assert_eq!(servers.block_on(pool.close()), 0);
    drop(pool);
    servers.block_on(cluster.shutdown()).expect("an orderly end");
}
