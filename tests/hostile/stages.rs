//! Each stage ends by itself, with a server that does nothing for it.

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

use crate::{common::until, patient::Patient};

fn pool(url: &str) -> Pool {
    let config: Config = url.parse().expect("a URL");
    Pool::builder(config).build().expect("a pool")
}

fn poll_once(future: impl Future) {
    let _ = pin!(future).poll(&mut Context::from_waker(Waker::noop()));
}

/// A name server that says nothing.
#[tokio::test(flavor = "current_thread")]
async fn resolving_ends() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let nameserver = silent.local_addr().expect("an address");
    let pool = pool(&format!("postgres://user@pods.example.svc/database?nameservers={nameserver}&dns_timeout=300ms"));
    let began = Instant::now();
    until(Duration::from_secs(5), "three resolutions have failed", || pool.status().resolve.failures >= 3).await;
    println!("three resolutions of 300 ms each: {:?}; {:?}", began.elapsed(), pool.status().resolve.error);
    let error = pool.wait_ready(Target::Any, Duration::from_millis(100)).await.expect_err("no name");
    assert_eq!(error.kind(), Kind::Dns, "{error}");
}

/// Neither the statement nor the request to cancel it is answered.
#[tokio::test(flavor = "current_thread")]
async fn settling_ends() {
    let server = Patient::start(Duration::ZERO, usize::MAX).await;
    let pool = pool(&server.url("pool_size=1&connect_timeout=500ms"));
    let client = pool.get().await.expect("a connection");
    server.counts().mute.store(true, Ordering::SeqCst);
    poll_once(client.simple_query("SELECT 1"));
    let began = Instant::now();
    drop(client);
    assert_eq!(pool.status().endpoints[0].in_use, 1, "it settles");
    until(Duration::from_secs(5), "it has settled", || pool.status().endpoints[0].in_use == 0).await;
    let most = Limits::RECYCLE_QUIET + Duration::from_millis(500) + 2 * Limits::RECYCLE_CANCELLED;
    println!("settled after {:?}, at most {most:?}", began.elapsed());
    assert!(began.elapsed() < most + Duration::from_millis(250), "{:?}", began.elapsed());
}

/// The server reads nothing any more, so not even Terminate can be sent.
#[tokio::test(flavor = "current_thread")]
async fn saying_goodbye_ends() {
    let server = Patient::start(Duration::ZERO, usize::MAX).await;
    // Its kernel goes on acknowledging.
    let pool = pool(&server.url("pool_size=1&min_idle=0&connect_timeout=500ms"));
    let client = pool.get().await.expect("a connection");
    server.counts().deaf.store(true, Ordering::SeqCst);
    let metrics = tokio::runtime::Handle::current().metrics();
    let long = format!("SELECT '{}'", "x".repeat(64 << 20));
    let query = tokio::time::timeout(Duration::from_millis(100), client.simple_query(&long));
    query.await.expect_err("nobody reads it");
    drop(client);
    until(Duration::from_secs(5), "it has settled", || pool.status().endpoints[0].open == 0).await;
    let closed = Instant::now();
    drop(pool);
    // The driver's task, and its socket with it.
    until(Duration::from_secs(5), "every task has ended", || metrics.num_alive_tasks() == 0).await;
    println!("cut {:?} after the connection was closed, at most {:?}", closed.elapsed(), Limits::FAREWELL);
    assert!(closed.elapsed() < Limits::FAREWELL + Duration::from_millis(250), "{:?}", closed.elapsed());
}

/// Names one Pod or another.
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
        "a Pod, and then another".to_owned()
    }
}

/// A borrower who does not come back from a Pod that has left: his statement is cancelled and his connection cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn draining_ends() {
    let cluster = Cluster::start(2).await.expect("a cluster");
    let config: Config = format!("{}&drain_timeout=500ms", cluster.url()).parse().expect("a URL");
    let mut limits = *config.limits();
    (limits.refresh_min, limits.refresh_max) = (Duration::from_millis(100), Duration::from_millis(200));
    let moved = Arc::new(AtomicBool::new(false));
    let pods = [cluster.pod(0).endpoint().clone(), cluster.pod(1).endpoint().clone()];
    let resolver = Moves { pods: pods.clone(), moved: moved.clone() };
    let pool = Pool::builder(config.with_limits(limits)).resolver(resolver).build().expect("a pool");
    let client = pool.get().await.expect("a connection");
    let query = tokio::spawn(async move { client.simple_query("SELECT pg_sleep(600)").await.expect_err("cut") });
    let observer = cluster.client(0).await.expect("a superuser");
    let running = async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(6%' AND state = 'active'";
        observer.query_one(sql, &[]).await.expect("an answer").get::<_, i64>(0)
    };
    while running().await == 0 {}
    moved.store(true, Ordering::SeqCst);
    let other = || pool.status().endpoints.iter().all(|pod| pod.endpoint == pods[1]);
    until(Duration::from_secs(10), "the Pod has left", other).await;
    let left = Instant::now();
    query.await.expect("no panic");
    println!("cut {:?} after the Pod left, at 500 ms", left.elapsed());
    assert!((450..800).contains(&left.elapsed().as_millis()), "{:?}", left.elapsed());
    while running().await > 0 {
        assert!(left.elapsed() < Duration::from_secs(3), "the statement runs on");
    }
    drop(pool);
    cluster.shutdown().await.expect("an orderly end");
}
