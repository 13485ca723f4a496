//! Tests that a pool grows and shrinks within its limits, with a server that delays and counts handshakes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use podpool::{
    Config, Endpoint, Pool, State, Target,
    config::{
        Limits,
        ssl::{Ssl, SslMode},
    },
    discovery::Fixed,
};

use crate::{
    common::{in_state, until},
    counting_server::{CountingServer, Counts},
};

fn limits(change: impl FnOnce(&mut Limits)) -> Limits {
    let mut limits = Limits::default();
    change(&mut limits);
    limits
}

fn pool(servers: &[&CountingServer], limits: Limits) -> Pool {
    let config =
        Config::new("pods").expect("the name parses").with_user("user").with_dbname("database").with_limits(limits);
    // The counting server does not implement SSLRequest.
    let config = config.with_ssl(Ssl::new(SslMode::Disable));
    let endpoints: Vec<_> = servers.iter().map(|server| Endpoint::new(server.address())).collect();
    Pool::builder(config).resolver(Fixed::new(endpoints)).build().expect("the pool is created")
}

/// If a caller is cancelled while a connection is being opened for it, the handshake completes and the connection
/// becomes idle in the pool.
#[tokio::test(flavor = "current_thread")]
async fn a_connection_opened_for_a_cancelled_caller_is_kept() {
    let server = CountingServer::start(Duration::from_millis(150), usize::MAX).await;
    let pool = pool(&[&server], limits(|limits| limits.min_idle = 0));
    until(Duration::from_secs(5), "the Pod is healthy", || in_state(&pool, State::Healthy) == 1).await;
    for _ in 0..5 {
        // All calls are cancelled long before the handshake of 150 ms completes.
        tokio::time::timeout(Duration::from_millis(2), pool.get()).await.expect_err("no connection is open yet");
    }
    until(Duration::from_secs(5), "the handshake is complete", || pool.status().endpoints[0].idle == 1).await;
    let before = pool.status().counters.opened;
    let began = Instant::now();
    drop(pool.get().await.expect("checkout succeeds"));
    assert!(began.elapsed() < Duration::from_millis(100), "the checkout waited for another handshake");
    assert_eq!((before, pool.status().counters.opened), (1, 1), "more than one connection was opened");
}

/// Starts 200 concurrent callers while no connection to the six Pods is open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_callers_stay_within_the_handshake_limits() {
    let (mut servers, overall) = (Vec::new(), Arc::<Counts>::default());
    for _ in 0..6 {
        servers.push(CountingServer::start_among(overall.clone(), Duration::from_millis(50), usize::MAX).await);
    }
    let counts: Vec<Arc<Counts>> = servers.iter().map(CountingServer::counts).collect();
    let limits = limits(|limits| {
        limits.handshakes_per_pod = 2;
        limits.handshakes = 7;
        limits.min_idle = 0;
    });
    let pool = pool(&servers.iter().collect::<Vec<_>>(), limits);
    until(Duration::from_secs(5), "every Pod is healthy", || in_state(&pool, State::Healthy) == 6).await;
    counts.iter().for_each(|counts| counts.reset_max_handshakes());
    overall.reset_max_handshakes();
    let began = Instant::now();
    let callers = (0..200).map(|_| async {
        let client = pool.get().await.expect("checkout succeeds");
        tokio::time::sleep(Duration::from_millis(1)).await; // the caller's work
        drop(client);
    });
    join_all(callers).await;
    let status = pool.status();
    let max: Vec<_> = counts.iter().map(|counts| counts.max_handshakes.load(Ordering::SeqCst)).collect();
    let max_overall = overall.max_handshakes.load(Ordering::SeqCst);
    println!(
        "200 callers served in {:.0?} by {} connections; concurrent handshakes per Pod {max:?}, overall {max_overall}",
        began.elapsed(),
        status.counters.opened
    );
    // Each Pod's probe may add one handshake, which does not count towards the pool's limits.
    assert!(max.iter().all(|&max| max <= 2 + 1), "too many concurrent handshakes per Pod: {max:?}");
    assert!(max_overall <= 7 + 6, "too many concurrent handshakes overall: {max_overall}");
    assert!(max_overall >= 5, "handshakes did not run concurrently: {max_overall}");
    assert!(status.endpoints.iter().all(|pod| pod.open <= 8), "more connections than `pool_size`: {status:?}");
    // Each caller holds its connection for 1 ms, so far fewer connections than callers are needed.
    assert!(status.counters.opened <= 48, "too many connections were opened: {:?}", status.counters);
}

/// A pool of 1,000 Pods opens its first connections within the handshake limits, and it is ready as soon as the first
/// Pod has passed its probe.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_pool_starts_within_the_handshake_limits() {
    const PODS: usize = 1_000;
    let overall = Arc::<Counts>::default();
    let servers = CountingServer::start_many(PODS, &overall, Duration::from_millis(20)).await;
    let began = Instant::now();
    let pool = pool(&servers.iter().collect::<Vec<_>>(), Limits::default());
    pool.wait_ready(Target::Any, Duration::from_secs(5)).await.expect("a Pod is ready");
    let ready = began.elapsed();
    until(Duration::from_secs(60), "every Pod is healthy", || in_state(&pool, State::Healthy) == PODS).await;
    let healthy = began.elapsed();
    let max = overall.max_handshakes.load(Ordering::SeqCst);
    println!("ready after {ready:.0?}, all {PODS} Pods healthy after {healthy:.1?}; concurrent handshakes: {max}");
    assert!(max <= 64, "too many concurrent handshakes: {max}");
    assert!(max >= 16, "handshakes did not run concurrently: {max}");
    assert!(ready < Duration::from_secs(1) && ready * 2 < healthy, "ready only after {ready:?}");
}

/// If the server has no free connection slot, open connections keep serving, and the pool backs off before it dials
/// again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_server_keeps_serving_while_dials_back_off() {
    let server = CountingServer::start(Duration::ZERO, 4).await; // three for checkouts, one for probes
    let counts = server.counts();
    let pool = pool(&[&server], limits(|limits| limits.acquire_timeout = Duration::from_secs(10)));
    until(Duration::from_secs(5), "the Pod is healthy", || in_state(&pool, State::Healthy) == 1).await;
    let began = Instant::now();
    let served = AtomicUsize::new(0);
    let callers = (0..16).map(|_| async {
        while began.elapsed() < Duration::from_secs(3) {
            let client = pool.get().await.expect("checkout succeeds");
            client.check_connection().await.expect("the query succeeds");
            served.fetch_add(1, Ordering::Relaxed);
        }
    });
    join_all(callers).await;
    let (refused, status) = (counts.refused.load(Ordering::SeqCst), pool.status());
    println!(
        "{} checkouts served by {} connections in 3 s; {refused} handshakes refused",
        served.into_inner(),
        status.endpoints[0].open
    );
    assert_eq!(status.endpoints[0].open, 3);
    assert_eq!(status.endpoints[0].state, State::Healthy, "the full Pod was ejected");
    // The backoff starts at 50 ms and doubles up to 1 s, and at most two handshakes run at a time. Without backoff, the
    // pool would make thousands of attempts.
    assert!((1..=20).contains(&refused), "expected 1 to 20 refused handshakes, got {refused}");
}

/// Connections that were opened together are closed at different ages: none before 90 % of `max_lifetime`, and none
/// while it is in use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_connections_are_closed_gradually_and_not_while_in_use() {
    let server = CountingServer::start(Duration::ZERO, usize::MAX).await;
    let counts = server.counts();
    let limits = limits(|limits| {
        limits.max_lifetime = Duration::from_secs(20);
        limits.pool_size = 40;
        limits.min_idle = 40;
        limits.handshakes_per_pod = 40;
    });
    let pool = pool(&[&server], limits);
    pool.wait_ready(Target::Any, Duration::from_secs(5)).await.expect("a Pod is ready");
    until(Duration::from_secs(5), "all connections are open", || pool.status().endpoints[0].idle == 40).await;
    // The connection of the first probe is closed as soon as an idle connection can replace it.
    until(Duration::from_secs(5), "the probe's connection is closed", || lock(&counts.ages).len() == 1).await;
    lock(&counts.ages).clear();
    let in_use = pool.get().await.expect("checkout succeeds");
    until(Duration::from_secs(30), "39 connections are closed", || lock(&counts.ages).len() >= 39).await;
    let mut ages = lock(&counts.ages).clone();
    ages.truncate(39);
    ages.sort();
    println!("39 connections were closed at the age of {:.1?} to {:.1?}", ages[0], ages[38]);
    // The connections expire at ages from 18 s to 20 s. The reaper, the task that closes expired connections, runs
    // every second, so it closes them in two or three runs. The pool's clock ticks every 100 ms, so the ages are not
    // exact.
    assert!(ages[0] > Duration::from_millis(17_800), "a connection was closed too early: {ages:?}");
    assert!(ages[38] < Duration::from_millis(21_500), "a connection was closed too late: {ages:?}");
    let together = ages.iter().filter(|age| **age - ages[0] < Duration::from_millis(200)).count();
    assert!(together < 39, "all connections were closed at the same time");
    in_use.check_connection().await.expect("the connection in use works");
    drop(in_use);
    let closed = || lock(&counts.ages).len() >= 40;
    until(Duration::from_secs(5), "the old connection is closed after its return", closed).await;
    let replaced = || pool.status().endpoints[0].idle == 40;
    until(Duration::from_secs(5), "closed connections are replaced", replaced).await;
}

fn lock<T>(mutex: &std::sync::Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("the lock is not poisoned")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_connections_are_closed_down_to_min_idle_under_load() {
    let server = CountingServer::start(Duration::ZERO, usize::MAX).await;
    let limits = limits(|limits| {
        limits.idle_timeout = Duration::from_secs(1);
        limits.min_idle = 3;
        limits.pool_size = 20;
    });
    let pool = pool(&[&server], limits);
    pool.wait_ready(Target::Any, Duration::from_secs(5)).await.expect("a Pod is ready");
    until(Duration::from_secs(5), "`min_idle` connections are idle", || pool.status().endpoints[0].idle == 3).await;
    drop(join_all((0..20).map(|_| pool.get())).await);
    // The last connection is handed to its caller just before the pool stops counting it as being opened.
    until(Duration::from_secs(5), "20 connections are open", || pool.status().endpoints[0].open == 20).await;
    // The callers check out connections while the reaper, which closes connections that have been idle for too long,
    // takes idle connections out of the pool to inspect them.
    let stop = Instant::now() + Duration::from_secs(4);
    let callers = (0..2).map(|_| async {
        let mut calls = 0;
        while Instant::now() < stop {
            let client = pool.get().await.expect("checkout succeeds");
            tokio::task::yield_now().await;
            drop(client);
            calls += 1;
            if calls % 100 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await; // lets other tasks run
            }
        }
        calls
    });
    let calls: usize = join_all(callers).await.into_iter().sum();
    let few = || pool.status().endpoints[0].open <= 5;
    until(Duration::from_secs(5), "idle connections are closed", few).await;
    let status = pool.status();
    println!(
        "{calls} checkouts; {} open, {} idle; {:?}",
        status.endpoints[0].open, status.endpoints[0].idle, status.counters
    );
    assert!(status.endpoints[0].idle >= 3, "fewer than `min_idle` connections are idle: {status:?}");
    let counters = status.counters;
    assert!(counters.opened <= 26, "connections were closed and reopened: {counters:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkout_pings_only_connections_idle_for_over_a_second() {
    let server = CountingServer::start(Duration::ZERO, usize::MAX).await;
    let counts = server.counts();
    // The probe interval is so long that no further probe runs during the test.
    let limits = limits(|limits| limits.probe_interval = Duration::from_secs(600));
    let pool = pool(&[&server], limits);
    pool.wait_ready(Target::Any, Duration::from_secs(5)).await.expect("a Pod is ready");
    drop(pool.get().await.expect("checkout succeeds"));
    let before = counts.syncs.load(Ordering::SeqCst);
    for _ in 0..1_000 {
        drop(pool.get().await.expect("checkout succeeds"));
    }
    assert_eq!(counts.syncs.load(Ordering::SeqCst), before, "a busy connection was pinged");
    let idle_since = Instant::now();
    let long_idle = || idle_since.elapsed() > Duration::from_millis(1300);
    until(Duration::from_secs(5), "the connection has been idle for 1.3 s", long_idle).await;
    drop(pool.get().await.expect("checkout succeeds"));
    assert_eq!(counts.syncs.load(Ordering::SeqCst), before + 1, "expected one ping of the idle connection");
}
