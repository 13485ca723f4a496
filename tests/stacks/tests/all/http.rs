//! The HTTP services: requests, deadlines, readiness and graceful shutdown.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    time::{Duration, Instant},
};

use podpool::{Pool, Target, testkit::Cluster};
use podpool_stacks::{actix_service, axum_service};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
    time::{sleep, timeout},
};

use crate::site::{SOON, migrated, start, until, until_locked};

type Shutdown = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A running service.
struct Service {
    address: SocketAddr,
    shutdown: oneshot::Sender<()>,
    server: JoinHandle<io::Result<usize>>,
}

#[derive(Clone, Copy, Debug)]
enum Framework {
    Axum,
    Actix,
}

impl Framework {
    async fn start(self, pool: &Pool, deadline: Duration) -> Service {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("the port is bound");
        let address = listener.local_addr().expect("the socket has an address");
        let (shutdown, received) = oneshot::channel();
        let shutdown_received: Shutdown = Box::pin(async move { drop(received.await) });
        let pool = pool.clone();
        let server = match self {
            Self::Axum => {
                listener.set_nonblocking(true).expect("the mode is set");
                let listener = tokio::net::TcpListener::from_std(listener).expect("the listener is registered");
                tokio::spawn(axum_service::serve(listener, pool, deadline, shutdown_received))
            }
            Self::Actix => tokio::spawn(actix_service::serve(listener, pool, deadline, shutdown_received)),
        };
        Service { address, shutdown, server }
    }
}

/// Sends a request. Returns the status code and the body, or an error if the service refuses the connection.
async fn request(address: SocketAddr, line: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(address).await?;
    let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut response = String::new();
    timeout(SOON, stream.read_to_string(&mut response)).await.expect("the service responds")?;
    let (head, body) = response.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok((code, body.to_owned()))
}

/// Locks the table `orders`. Dropping the client releases the lock.
async fn lock(cluster: &Cluster) -> tokio_postgres::Client {
    let admin = cluster.client(0).await.expect("the superuser connects");
    admin.batch_execute("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE").await.expect("the table is locked");
    admin
}

async fn answers_requests_and_is_ready_while_a_pod_is(framework: Framework) {
    let (cluster, pool) = start(1).await;
    migrated(&cluster, &pool).await;
    let service = framework.start(&pool, SOON).await;
    let get = async |line: &str| request(service.address, line).await.expect("the service responds");
    until("the service listens", || std::net::TcpStream::connect(service.address).is_ok()).await;
    assert_eq!(get("GET /ready").await.0, 200);
    for _ in 0..3 {
        assert_eq!(get("POST /orders/lamp").await.0, 201);
    }
    assert_eq!(get("GET /orders/lamp").await, (200, "3".to_owned()));

    cluster.kill(0).await.expect("SIGKILL is sent");
    let killed = Instant::now();
    while get("GET /ready").await.0 != 503 {
        assert!(killed.elapsed() < SOON, "the service is still ready");
        sleep(Duration::from_millis(5)).await;
    }
    println!("{framework:?}: not ready {:?} after the kill", killed.elapsed());
    cluster.start_pod(0).await.expect("the Pod starts");
    let started = Instant::now();
    while get("GET /ready").await.0 != 200 {
        assert!(started.elapsed() < SOON, "the service is not ready");
        sleep(Duration::from_millis(5)).await;
    }
    println!("{framework:?}: ready {:?} after the start", started.elapsed());
    assert_eq!(get("GET /orders/lamp").await, (200, "3".to_owned()));
    drop(service.shutdown);
    assert_eq!(service.server.await.expect("no panic").expect("no I/O error"), 0, "every connection was returned");
}

async fn drops_a_request_at_its_deadline(framework: Framework) {
    let (cluster, pool) = start(1).await;
    migrated(&cluster, &pool).await;
    let deadline = Duration::from_millis(500);
    let service = framework.start(&pool, deadline).await;
    until("the service listens", || std::net::TcpStream::connect(service.address).is_ok()).await;
    pool.wait_ready(Target::Primary, SOON).await.expect("a connection is open");
    // The connection of the migrations is not pooled, and ends with its client.
    until("the connection of the migrations is closed", || pool.status().endpoints[0].owned == 0).await;
    let before = pool.status().counters;
    let locked = lock(&cluster).await;
    let began = Instant::now();
    let (code, _) = request(service.address, "POST /orders/lamp").await.expect("the service responds");
    println!("{framework:?}: {code} after {:?}", began.elapsed());
    assert_eq!(code, 504);
    assert!((deadline..deadline + Duration::from_millis(500)).contains(&began.elapsed()), "{:?}", began.elapsed());
    // The lock is still held, so only a cancellation ends the statement.
    let admin = cluster.client(0).await.expect("the superuser connects");
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT%' AND state = 'active'";
    let cancelled = Instant::now();
    while admin.query_one(sql, &[]).await.expect("the query succeeds").get::<_, i64>(0) > 0 {
        assert!(cancelled.elapsed() < Duration::from_secs(2), "the statement still runs");
        sleep(Duration::from_millis(5)).await;
    }
    drop(locked);
    until("the connection is idle again", || pool.status().endpoints[0].in_use == 0).await;
    let response = request(service.address, "GET /orders/lamp").await.expect("the service responds");
    assert_eq!(response, (200, "0".to_owned()));
    let counters = pool.status().counters;
    assert_eq!((counters.opened, counters.closed), (before.opened, before.closed), "the connection was not reused");
    drop(service.shutdown);
    assert_eq!(service.server.await.expect("no panic").expect("no I/O error"), 0);
}

async fn the_shutdown_finishes_the_request_in_flight(framework: Framework) {
    let (cluster, pool) = start(1).await;
    migrated(&cluster, &pool).await;
    let service = framework.start(&pool, SOON).await;
    until("the service listens", || std::net::TcpStream::connect(service.address).is_ok()).await;
    let locked = lock(&cluster).await;
    let address = service.address;
    let in_flight = tokio::spawn(async move { request(address, "POST /orders/lamp").await });
    until_locked(&cluster, 0, "INSERT").await;
    service.shutdown.send(()).expect("the service runs");
    until("new connections are refused", || std::net::TcpStream::connect(address).is_err()).await;
    assert!(!service.server.is_finished() && !in_flight.is_finished(), "the request is still in flight");
    drop(locked);
    let response = in_flight.await.expect("no panic").expect("the service responds");
    assert_eq!(response.0, 201);
    let closed = timeout(SOON, service.server).await.expect("the service ends").expect("no panic");
    assert_eq!(closed.expect("no I/O error"), 0, "every connection was returned");
    assert!(pool.status().closed);
    let admin = cluster.client(0).await.expect("the superuser connects");
    let count = admin.query_one("SELECT count(*) FROM orders", &[]).await.expect("the orders are countable");
    assert_eq!(count.get::<_, i64>(0), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn axum_answers_requests_and_is_ready_while_a_pod_is() {
    answers_requests_and_is_ready_while_a_pod_is(Framework::Axum).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actix_answers_requests_and_is_ready_while_a_pod_is() {
    answers_requests_and_is_ready_while_a_pod_is(Framework::Actix).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn axum_drops_a_request_at_its_deadline() {
    drops_a_request_at_its_deadline(Framework::Axum).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn actix_drops_a_request_at_its_deadline() {
    drops_a_request_at_its_deadline(Framework::Actix).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shutdown_of_axum_finishes_the_request_in_flight() {
    the_shutdown_finishes_the_request_in_flight(Framework::Axum).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shutdown_of_actix_finishes_the_request_in_flight() {
    the_shutdown_finishes_the_request_in_flight(Framework::Actix).await;
}
