//! The program's end: when it is asked to, and when its settings will not do.

use std::time::{Duration, Instant};

use podpool::testkit::Cluster;
use tokio::time::timeout;

use crate::{
    http::Connection,
    service::{SOON, Service, ask, assert_tells_no_password, command},
    stream::Stream,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_requests_finish_after_sigterm() {
    let cluster = Cluster::start(2).await.expect("a cluster");
    let service = Service::ready(&cluster).await;
    let mut events = Stream::open(&service).await;
    let idle = service.connect().await;
    let mut running: Vec<Connection> = Vec::new();
    for _ in 0..4 {
        let mut connection = service.connect().await;
        connection.send("GET", "/query?sleep_ms=2500", "").await.expect("a request");
        running.push(connection);
    }
    let in_use = |answer: &crate::service::Answer| {
        let pods = answer.body["endpoints"].as_array().expect("a list");
        pods.iter().map(|pod| pod["in_use"].as_u64().expect("a number")).sum::<u64>() == 4
    };
    service.eventually("/endpoints", in_use).await;
    let asked = Instant::now();
    service.terminate();
    let refused = service.eventually("/readyz", |answer| answer.status == 503).await;
    assert_eq!(refused.body["ready"], false);
    assert!(asked.elapsed() < Duration::from_secs(1), "not ready only {:?} after SIGTERM", asked.elapsed());
    // Until they finish, the door is open: who has not heard of the end yet is served.
    assert_eq!(service.get("/query").await.status, 200);
    assert_eq!(service.get("/healthz").await.status, 200);
    for mut connection in running {
        let head = timeout(SOON, connection.head()).await.expect("an answer in time").expect("an answer");
        assert_eq!((head.status, head.header("connection")), (200, Some("close")));
    }
    let finished = asked.elapsed();
    timeout(SOON, async { while events.next().await.is_some() {} }).await.expect("the events end");
    let begun = Instant::now();
    while service.accepts().await {
        assert!(begun.elapsed() < SOON, "the door stays open");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (status, output) = service.end().await;
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(output.contains("every request has finished and the pool is closed"), "{output}");
    assert_tells_no_password(&output, &cluster);
    println!("SIGTERM: 4 running requests finished after {finished:?}, the program ended after {:?}", asked.elapsed());
    drop(idle);
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test]
async fn says_what_is_wrong_with_its_settings() {
    let good = "postgres://user:hunter2@postgresql-svc.test/db";
    for (variables, wanted) in [
        (vec![], "DATABASE_URL is not set"),
        (vec![("DATABASE_URL", "")], "DATABASE_URL is not set"),
        (vec![("DATABASE_URL", "mysql://user:hunter2@host/db")], "DATABASE_URL: parameter `"),
        (vec![("DATABASE_URL", "postgres://user:hunter2@host/db?pool_syze=3")], "`pool_size`"),
        (vec![("DATABASE_URL", "postgres://user:hun/ter2@host:0/db")], "DATABASE_URL: parameter `"),
        (vec![("DATABASE_URL", good), ("LISTEN_ADDR", "nowhere")], "LISTEN_ADDR: `nowhere`"),
        (vec![("DATABASE_URL", good), ("LISTEN_ADDR", "192.0.2.1:80")], "192.0.2.1:80"),
        (vec![("DATABASE_URL", good), ("RUST_LOG", "podpool=loud")], "RUST_LOG: "),
    ] {
        let output = timeout(SOON, command(&variables).output()).await.expect("it ends").expect("its output");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{variables:?}: {text}");
        assert!(text.starts_with("microservice: ") && text.contains(wanted), "{variables:?}: {text}");
        assert!(!text.contains("hunter2") && !text.contains("ter2") && text.lines().count() == 1, "{text}");
    }
}

/// What comes while the end is near is answered, and told to go elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kept_connection_is_told_to_close() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let service = Service::ready(&cluster).await;
    let mut kept = service.connect().await;
    assert_eq!(ask(&mut kept, "GET", "/readyz", "").await.status, 200);
    let (head, _) = kept.ask("GET", "/query", "").await.expect("an answer");
    assert_eq!((head.status, head.header("connection")), (200, None));
    service.terminate();
    service.eventually("/readyz", |answer| answer.status == 503).await;
    let (head, _) = kept.ask("GET", "/query", "").await.expect("an answer");
    assert_eq!((head.status, head.header("connection")), (200, Some("close")));
    let (status, output) = service.end().await;
    assert_eq!(status.code(), Some(0), "{output}");
    cluster.shutdown().await.expect("an orderly end");
}
