//! Tests cancellation and shutdown: a cancelled `get` does not leak connections or permits, and a dropped or closed
//! pool does not leak tasks, file descriptors, memory or sessions.

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
    format!("{}&{more}", cluster.url()).parse().expect("the URL parses")
}

/// Returns true if every open connection is idle and no caller waits.
fn at_rest(pool: &Pool) -> bool {
    pool.status().endpoints.iter().all(|pod| pod.in_use == 0 && pod.waiting == 0 && pod.idle == pod.open)
}

/// Polls `get` a few times and then drops it. The rounds differ in the state of the pool: all connections are in use,
/// some are idle, or none is open yet. Together, the rounds cancel `get` at each of its awaits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_get_does_not_leak_connections_or_permits() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    // Each tuple has the pool size, the number of rounds, and the idle time before each round in milliseconds. After an
    // idle time, `get` pings a connection before it returns it.
    for (size, rounds, rest) in [(1, 300, 0), (3, 300, 0), (1, 60, 250)] {
        let mut config = config(&cluster, &format!("pool_size={size}&min_idle=0&acquire_timeout=30s"));
        if rest > 0 {
            let mut limits = *config.limits();
            limits.ping_after = Duration::ZERO;
            config = config.with_limits(limits);
        }
        let pool = Pool::builder(config).build().expect("the pool is created");
        until(Duration::from_secs(10), "two Pods are healthy", || in_state(&pool, State::Healthy) == 2).await;
        let mut cancelled = 0;
        for round in 0..rounds {
            let began = Instant::now();
            until(Duration::from_secs(5), "the idle time has passed", || began.elapsed().as_millis() >= rest).await;
            let polls = round % 6;
            // Number of connections in use during the round: none, one, or all.
            let hold = [0, 1, 2 * size][round / 6 % 3];
            let mut held = Vec::new();
            for _ in 0..hold {
                held.push(pool.get().await.expect("checkout succeeds"));
            }
            {
                let mut get = pin!(pool.get());
                for poll in 0..=polls {
                    let mut cx = Context::from_waker(Waker::noop());
                    if let Poll::Ready(client) = get.as_mut().poll(&mut cx) {
                        drop(client.expect("checkout succeeds"));
                        break;
                    }
                    cancelled += usize::from(poll == polls);
                    if poll == 2 {
                        held.clear(); // the returned connection is handed to the waiting call
                    }
                    tokio::task::yield_now().await;
                }
            }
            drop(held);
        }
        until(Duration::from_secs(10), "every connection is idle", || at_rest(&pool)).await;
        let status = pool.status();
        println!("{cancelled} of {rounds} calls cancelled; {:?}", status.counters);
        assert!(cancelled > rounds / 8, "too few calls were cancelled: {cancelled} of {rounds}");
        for pod in &status.endpoints {
            assert!(pod.open <= size, "more connections than `pool_size`: {pod:?}");
        }
        // All connections can still be checked out at the same time, and all of them work.
        let mut all = Vec::new();
        for _ in 0..2 * size {
            all.push(pool.get().await.expect("checkout succeeds"));
        }
        for client in &all {
            server_addr(client).await;
        }
        let in_use: usize = pool.status().endpoints.iter().map(|pod| pod.in_use).sum();
        assert_eq!(in_use, 2 * size);
        drop(all);
        until(Duration::from_secs(10), "every connection is idle", || at_rest(&pool)).await;
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Returns the number of open file descriptors.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Returns the resident memory in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// Drops pools at different stages of their startup. The test and the pools share one thread.
#[tokio::test(flavor = "current_thread")]
async fn dropped_pools_do_not_leak_tasks_descriptors_or_memory() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let metrics = tokio::runtime::Handle::current().metrics();
    let make = async |count: usize| {
        for i in 0..count {
            let pool = Pool::builder(config(&cluster, "acquire_timeout=5s")).build().expect("the pool is created");
            match i % 100 {
                0 => drop(pool.get().await.expect("checkout succeeds")),
                1 => drop(tokio::time::timeout(Duration::from_millis(1), pool.get()).await),
                2..50 => tokio::task::yield_now().await,
                _ => {}
            }
        }
    };
    make(1_000).await; // fills allocators and caches
    let quiet = |tasks, files| async move {
        let metrics = tokio::runtime::Handle::current().metrics();
        until(Duration::from_secs(10), "the tasks have ended", || {
            metrics.num_alive_tasks() <= tasks && descriptors() <= files
        })
        .await;
    };
    let base = 40; // more than the tasks of the cluster
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
    // A leak of one KiB per pool would add up to about 10 MiB.
    assert!(grown < 8 << 20, "resident memory grew by {grown} bytes");
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Cancels 10,000 checkouts. Most of them are waiting for a connection to be returned or opened, or for a ping
/// response. Some have just been handed a connection. Asserts that no connection, task, file descriptor or session
/// leaks.
async fn cancel_ten_thousand_checkouts() {
    const CANCELLED: usize = 10_000;
    const SIZE: usize = 3;
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let observer = cluster.client(0).await.expect("the superuser connects");
    let mut limits = *config(&cluster, "min_idle=0&acquire_timeout=30s&idle_timeout=365d").limits();
    limits.ping_after = Duration::ZERO; // every checkout pings as soon as the coarse clock has advanced
    limits.pool_size = SIZE;
    let pool = Pool::builder(config(&cluster, "pool_size=3").with_limits(limits)).build().expect("the pool is created");
    // Uses all connections repeatedly until all of them work. The pool may detect a terminated connection only when it
    // is next used.
    let fill = async || {
        loop {
            let (mut all, mut work) = (Vec::new(), true);
            for _ in 0..SIZE {
                all.push(pool.get().await.expect("checkout succeeds"));
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
        observer.query_one(sql, &[]).await.expect("the query succeeds").get::<_, i64>(0) as usize
    };
    let metrics = tokio::runtime::Handle::current().metrics();
    fill().await;
    until(Duration::from_secs(10), "every connection is idle", || at_rest(&pool)).await;
    // The connection of the first probe is closed once an idle connection can replace it.
    let deadline = Instant::now() + Duration::from_secs(10);
    while backends().await > SIZE && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (tasks, files, sessions) = (metrics.num_alive_tasks(), descriptors(), backends().await);
    assert_eq!(sessions, SIZE, "sessions of the pool");

    let (mut cancelled, mut handed, mut round) = (0, 0, 0);
    while cancelled < CANCELLED {
        round += 1;
        assert!(round < 4 * CANCELLED, "only {cancelled} calls had to wait in {round} rounds");
        let mut held = Vec::new();
        for _ in 0..[SIZE, SIZE, SIZE - 1, 0][round % 4] {
            held.push(pool.get().await.expect("checkout succeeds"));
        }
        if round % 97 == 0 {
            // Terminates one backend, so that the pool opens another connection for the waiting calls.
            let sql = "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity \
                       WHERE usename = 'user' AND query NOT LIKE '%pg_is_in_recovery%' LIMIT 1) one";
            observer.query_one(sql, &[]).await.expect("the query succeeds");
        }
        let mut gets: Vec<_> = (0..4).map(|_| Box::pin(pool.get())).collect();
        let mut cx = Context::from_waker(Waker::noop());
        for poll in 0..1 + round % 3 {
            // Dropping the result of a ready call returns its connection to the pool, which hands it to the next
            // waiting call.
            gets.retain_mut(|get| get.as_mut().poll(&mut cx).is_pending());
            if poll == 1 {
                // Returns the held connections, which the pool hands to waiting calls. In half of these rounds, the
                // calls are dropped before their next poll.
                handed += held.len().min(gets.len());
                held.clear();
            }
            if round % 5 == 0 {
                tokio::task::yield_now().await;
            }
        }
        cancelled += gets.len();
        // Drops the waiting calls in queue order, or in reverse order in every second round.
        if round % 2 == 0 {
            gets.reverse();
        }
        drop(gets);
    }

    // The pool may detect a terminated session only after some time. It then also closes the Pod's other connections,
    // so the check below is repeated.
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        until(Duration::from_secs(10), "every connection is idle", || at_rest(&pool)).await;
        fill().await;
        until(Duration::from_secs(10), "every connection is idle", || at_rest(&pool)).await;
        let (now, pod) = (backends().await, pool.status().endpoints.remove(0));
        if now == sessions && pod.open == SIZE && pod.idle == SIZE {
            break;
        }
        assert!(Instant::now() < deadline, "{now} sessions on the server, expected {sessions}: {pod:?}");
    }
    until(Duration::from_secs(10), "no task or descriptor is leaked", || {
        metrics.num_alive_tasks() <= tasks && descriptors() <= files
    })
    .await;
    let status = pool.status();
    let (pod, counters) = (&status.endpoints[0], status.counters);
    println!(
        "{cancelled} checkouts cancelled, up to {handed} of them after the handover; {} tasks (before: {tasks}), \
         {} descriptors (before: {files}), {sessions} sessions; {counters:?}",
        metrics.num_alive_tasks(),
        descriptors()
    );
    assert_eq!((pod.open, pod.idle, pod.in_use, pod.waiting), (SIZE, SIZE, 0, 0), "connections are missing: {pod:?}");
    assert_eq!(
        counters.opened - counters.closed,
        SIZE as u64,
        "opened and closed connections do not add up: {counters:?}"
    );
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "current_thread")]
async fn cancelled_checkouts_leak_nothing_on_one_thread() {
    cancel_ten_thousand_checkouts().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancelled_checkouts_leak_nothing_on_many_threads() {
    cancel_ten_thousand_checkouts().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_waits_for_in_use_connections_and_then_closes_them() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let pool = Pool::connect(&cluster.url()).await.expect("the pool is created");
    let client = pool.get().await.expect("checkout succeeds");
    let closing = tokio::spawn({
        let pool = pool.clone();
        async move { pool.close().await }
    });
    until(Duration::from_secs(5), "the pool is closing", || pool.status().closed).await;
    let error = pool.get().await.expect_err("the pool is closing");
    assert_eq!(error.kind(), podpool::Kind::Shutdown);
    server_addr(&client).await; // a checked-out connection still works
    drop(client);
    assert_eq!(closing.await.expect("the task does not panic"), 0);

    let config = config(&cluster, "close_timeout=200ms");
    let pool = Pool::builder(config).build().expect("the pool is created");
    let client = pool.get().await.expect("checkout succeeds");
    assert_eq!(pool.close().await, 1);
    client.query_one("SELECT 1", &[]).await.expect_err("the connection is closed");
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// After the pool's runtime has shut down, checked-out connections can still be dropped and the pool can be closed.
#[test]
fn a_client_and_a_pool_can_outlive_their_runtime() {
    let servers = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let cluster = servers.block_on(Cluster::start(1)).expect("the cluster starts");
    let pools = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let pool = pools.block_on(Pool::connect(&cluster.url())).expect("the pool is created");
    let client = pools.block_on(pool.get()).expect("checkout succeeds");
    let busy = pools.block_on(pool.get()).expect("checkout succeeds");
    pools.block_on(async {
        // Abandons a statement after its first poll.
        let mut query = pin!(busy.query_one("SELECT pg_sleep(10)", &[]));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(query.as_mut().poll(&mut cx).is_pending(), "the statement has completed");
    });
    drop(pools);
    drop(busy);
    drop(client);
    assert_eq!(servers.block_on(pool.close()), 0);
    drop(pool);
    servers.block_on(cluster.shutdown()).expect("the cluster shuts down");
}
