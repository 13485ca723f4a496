//! Tests the limit on concurrent requests.

use podpool::testkit::Cluster;
use tokio::time::timeout;

use crate::{
    http::Connection,
    service::{LIMIT, Response, Service},
};

/// Starts a request that occupies a connection to the database for some time.
async fn sleep(service: &Service, millis: u32) -> Connection {
    let mut connection = service.connect().await;
    connection.send("GET", &format!("/query?sleep_ms={millis}"), "").await.expect("the request is sent");
    connection
}

/// Waits until this number of connections to the database are in use.
async fn wait_for_in_use(service: &Service, count: u64) {
    let in_use = |response: &Response| {
        let pods = response.body["endpoints"].as_array().expect("a list");
        pods.iter().map(|pod| pod["in_use"].as_u64().expect("a number")).sum::<u64>() == count
    };
    service.get_until("/endpoints", in_use).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rejects_requests_beyond_the_limit_until_one_ends() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let service = Service::start_with(&cluster.url(), &[("MAX_REQUESTS", "2")]).await;
    service.get_until("/readyz", |response| response.status == 200).await;
    let (mut short, long) = (sleep(&service, 2_000).await, sleep(&service, 60_000).await);
    wait_for_in_use(&service, 2).await;

    let mut connection = service.connect().await;
    for (method, path, body) in [("GET", "/query", ""), ("POST", "/write", r#"{"id":"a","run":"a"}"#)] {
        let (head, body) = connection.request(method, path, body).await.expect("the service responds");
        assert_eq!((head.status, head.header("retry-after")), (503, Some("1")), "{path}: {body}");
        let response = Response { status: head.status, body: serde_json::from_str(&body).expect("the body is JSON") };
        assert_eq!(response.failure(), ("other", "no"));
        let expected = "this service is processing 2 requests, which is its limit; try again later";
        assert_eq!(response.text("error"), expected);
    }
    for path in ["/healthz", "/readyz", "/endpoints"] {
        assert_eq!(service.get(path).await.status, 200, "{path}");
    }
    service.get_text("/metrics").await;
    service.get_text("/").await;

    // A request that ends, and one whose client disconnects, make room for others.
    let head = timeout(LIMIT, short.head()).await.expect("the service responds in time").expect("the service responds");
    assert_eq!(head.status, 200);
    let third = sleep(&service, 60_000).await;
    wait_for_in_use(&service, 2).await;
    assert_eq!(service.get("/query").await.status, 503);
    drop((long, third));
    service.get_until("/query", |response| response.status == 200).await;
    service.stop(&cluster).await;
    cluster.shutdown().await.expect("the cluster stops");
}
