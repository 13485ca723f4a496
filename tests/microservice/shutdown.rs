//! Tests the graceful shutdown after SIGTERM.

use std::time::{Duration, Instant};

use podpool::testkit::Cluster;
use tokio::{net::UdpSocket, time::timeout};

use crate::{
    http::Connection,
    service::{LIMIT, Response, Service, assert_no_password, request},
    stream::EventStream,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_requests_finish_after_sigterm() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    let service = Service::ready(&cluster).await;
    let mut events = EventStream::open(&service).await;
    let idle = service.connect().await;
    let mut running: Vec<Connection> = Vec::new();
    for _ in 0..4 {
        let mut connection = service.connect().await;
        connection.send("GET", "/query?sleep_ms=2500", "").await.expect("the request is sent");
        running.push(connection);
    }
    let all_in_use = |response: &Response| {
        let pods = response.body["endpoints"].as_array().expect("a list");
        pods.iter().map(|pod| pod["in_use"].as_u64().expect("a number")).sum::<u64>() == 4
    };
    service.get_until("/endpoints", all_in_use).await;
    let start = Instant::now();
    service.terminate();
    let not_ready = service.get_until("/readyz", |response| response.status == 503).await;
    assert_eq!(not_ready.body["ready"], false);
    assert!(start.elapsed() < Duration::from_secs(1), "still ready {:?} after SIGTERM", start.elapsed());
    // While requests are running, the service accepts new ones: load balancers may take time to notice the shutdown.
    assert_eq!(service.get("/query").await.status, 200);
    assert_eq!(service.get("/healthz").await.status, 200);
    for mut connection in running {
        let head = timeout(LIMIT, connection.head()).await.expect("the service responds in time");
        let head = head.expect("the service responds");
        assert_eq!((head.status, head.header("connection")), (200, Some("close")));
    }
    let finished = start.elapsed();
    timeout(LIMIT, async { while events.next().await.is_some() {} }).await.expect("the event stream ends");
    let closing = Instant::now();
    while service.accepts().await {
        assert!(closing.elapsed() < LIMIT, "the service still accepts connections");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (status, output) = service.exit().await;
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(output.contains("every request has finished and the pool is closed"), "{output}");
    assert_no_password(&output, &cluster);
    let exited = start.elapsed();
    println!("SIGTERM: 4 running requests finished after {finished:?}, the program exited after {exited:?}");
    drop(idle);
    cluster.shutdown().await.expect("the cluster stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn responses_close_persistent_connections_after_sigterm() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let service = Service::ready(&cluster).await;
    let mut connection = service.connect().await;
    assert_eq!(request(&mut connection, "GET", "/readyz", "").await.status, 200);
    let (head, _) = connection.request("GET", "/query", "").await.expect("the service responds");
    assert_eq!((head.status, head.header("connection")), (200, None));
    service.terminate();
    service.get_until("/readyz", |response| response.status == 503).await;
    let (head, _) = connection.request("GET", "/query", "").await.expect("the service responds");
    assert_eq!((head.status, head.header("connection")), (200, Some("close")));
    let (status, output) = service.exit().await;
    assert_eq!(status.code(), Some(0), "{output}");
    cluster.shutdown().await.expect("the cluster stops");
}

#[tokio::test]
async fn shuts_down_while_the_name_server_does_not_respond() {
    let unresponsive = UdpSocket::bind("127.0.0.1:0").await.expect("the socket is bound");
    let server = unresponsive.local_addr().expect("the socket has an address");
    let service = Service::start(&format!("postgres://user:hunter2@postgresql-svc.test/db?nameservers={server}")).await;
    assert_eq!(service.get("/readyz").await.status, 503);
    service.terminate();
    let (status, output) = service.exit().await;
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(!output.contains("hunter2"), "the output contains the password: {output}");
}
