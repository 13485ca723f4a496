//! Tests that name resolution, recycling, closing and draining time out if the server does not respond.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
    time::{Duration, Instant},
};

use podpool::{
    Config, Endpoint, Kind, Pool, Target,
    config::Limits,
    discovery::{Resolution, Resolve, ResolveError},
    testkit::Cluster,
};
use tokio::net::UdpSocket;

use crate::{common::until, counting_server::CountingServer};

fn pool(url: &str) -> Pool {
    let config: Config = url.parse().expect("the URL parses");
    Pool::builder(config).build().expect("the pool is created")
}

fn poll_once(future: impl Future) {
    let _ = pin!(future).poll(&mut Context::from_waker(Waker::noop()));
}

#[tokio::test(flavor = "current_thread")]
async fn resolution_times_out_if_the_name_server_does_not_respond() {
    let unresponsive = UdpSocket::bind("127.0.0.1:0").await.expect("the socket binds");
    let nameserver = unresponsive.local_addr().expect("the socket has an address");
    let pool = pool(&format!("postgres://user@pods.example.svc/database?nameservers={nameserver}&dns_timeout=300ms"));
    let began = Instant::now();
    until(Duration::from_secs(5), "three resolutions have failed", || pool.status().resolve.failures >= 3).await;
    println!("three resolutions of 300 ms failed within {:?}: {:?}", began.elapsed(), pool.status().resolve.error);
    let error = pool.wait_ready(Target::Any, Duration::from_millis(100)).await.expect_err("the name is not resolved");
    assert_eq!(error.kind(), Kind::Dns, "unexpected error: {error}");
}

/// The server responds neither to the statement nor to the cancel request.
#[tokio::test(flavor = "current_thread")]
async fn recycling_times_out_if_the_server_does_not_respond() {
    let server = CountingServer::start(Duration::ZERO, usize::MAX).await;
    let pool = pool(&server.url("pool_size=1&connect_timeout=500ms"));
    let client = pool.get().await.expect("checkout succeeds");
    server.counts().unresponsive.store(true, Ordering::SeqCst);
    poll_once(client.simple_query("SELECT 1"));
    let began = Instant::now();
    drop(client);
    assert_eq!(pool.status().endpoints[0].in_use, 1, "the connection is not being recycled");
    until(Duration::from_secs(5), "recycling has ended", || pool.status().endpoints[0].in_use == 0).await;
    let limit = Limits::RECYCLE_GRACE + Duration::from_millis(500) + 2 * Limits::RECYCLE_TIMEOUT;
    println!("recycling ended after {:?}, limit {limit:?}", began.elapsed());
    assert!(began.elapsed() < limit + Duration::from_millis(250), "recycling took {:?}", began.elapsed());
}

/// The server does not read, so the pool cannot send Terminate. The connection does not fail either, because the
/// server's kernel still acknowledges keepalives.
#[tokio::test(flavor = "current_thread")]
async fn closing_times_out_if_the_server_does_not_read() {
    let server = CountingServer::start(Duration::ZERO, usize::MAX).await;
    let pool = pool(&server.url("pool_size=1&min_idle=0&connect_timeout=500ms"));
    let client = pool.get().await.expect("checkout succeeds");
    server.counts().stops_reading.store(true, Ordering::SeqCst);
    let metrics = tokio::runtime::Handle::current().metrics();
    let long = format!("SELECT '{}'", "x".repeat(16 << 20));
    let query = tokio::time::timeout(Duration::from_millis(100), client.simple_query(&long));
    query.await.expect_err("the server does not read the query");
    drop(client);
    until(Duration::from_secs(5), "recycling has ended", || pool.status().endpoints[0].open == 0).await;
    drop(pool);
    // A timer of the same thread, because other programs can delay the thread.
    let timer = async {
        tokio::time::sleep(Limits::TERMINATE_TIMEOUT).await;
        Instant::now()
    };
    // The last task is the connection's driver, which owns the socket.
    let closing = async {
        until(Duration::from_secs(30), "every task has ended", || metrics.num_alive_tasks() == 0).await;
        Instant::now()
    };
    let (due, closed) = tokio::join!(timer, closing);
    let late = closed.saturating_duration_since(due);
    println!("socket closed {late:?} after the limit of {:?}", Limits::TERMINATE_TIMEOUT);
    assert!(late < Duration::from_millis(250), "the socket was closed {late:?} after the limit");
}

/// A resolver that returns the first Pod, and the second one after `moved` is set.
#[derive(Debug)]
struct Moves {
    pods: [Endpoint; 2],
    moved: Arc<AtomicBool>,
}

impl Resolve for Moves {
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
        Box::pin(async move {
            let valid_until = tokio::time::Instant::now() + Duration::from_millis(200);
            let pod = self.pods[usize::from(self.moved.load(Ordering::SeqCst))].clone();
            Ok(Resolution::new(vec![pod], valid_until))
        })
    }

    fn source(&self) -> String {
        "one Pod, then another".to_owned()
    }
}

/// If a connection to a removed Pod is still in use after the drain timeout, the pool cancels its statement and closes
/// the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_closes_in_use_connections_after_the_drain_timeout() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    let config: Config = format!("{}&drain_timeout=500ms", cluster.url()).parse().expect("the URL parses");
    let mut limits = *config.limits();
    (limits.refresh_min, limits.refresh_max) = (Duration::from_millis(100), Duration::from_millis(200));
    limits.detach_linger = Duration::ZERO;
    let moved = Arc::new(AtomicBool::new(false));
    let pods = [cluster.pod(0).endpoint().clone(), cluster.pod(1).endpoint().clone()];
    let resolver = Moves { pods: pods.clone(), moved: moved.clone() };
    let pool = Pool::builder(config.with_limits(limits)).resolver(resolver).build().expect("the pool is created");
    let client = pool.get().await.expect("checkout succeeds");
    let query = tokio::spawn(async move {
        client.simple_query("SELECT pg_sleep(600)").await.expect_err("the connection is closed");
    });
    let observer = cluster.client(0).await.expect("the superuser connects");
    let running = async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(6%' AND state = 'active'";
        observer.query_one(sql, &[]).await.expect("the query succeeds").get::<_, i64>(0)
    };
    while running().await == 0 {}
    moved.store(true, Ordering::SeqCst);
    let other = || pool.status().endpoints.iter().all(|pod| pod.endpoint == pods[1]);
    until(Duration::from_secs(10), "the Pod is removed", other).await;
    let removed = Instant::now();
    query.await.expect("the task does not panic");
    println!("connection closed {:?} after the removal, drain timeout 500 ms", removed.elapsed());
    assert!(
        (450..800).contains(&removed.elapsed().as_millis()),
        "the connection was closed {:?} after the removal, drain timeout 500 ms",
        removed.elapsed()
    );
    while running().await > 0 {
        assert!(removed.elapsed() < Duration::from_secs(3), "the statement still runs on the server");
    }
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}
