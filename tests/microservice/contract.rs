//! Tests the responses of every path without faults, and that invalid requests are rejected.

use std::{collections::HashMap, net::IpAddr};

use podpool::testkit::{Cluster, PodRole};
use tokio_postgres::Client;

use crate::{
    common::until,
    exposition,
    service::{LIMIT, Response, Service, fields, request},
};

/// Creates the table that `/write` inserts into. Returns a client that is connected to the primary.
pub(crate) async fn create_table(cluster: &Cluster) -> Client {
    let primary = cluster.client(cluster.primary().expect("there is a primary")).await.expect("the client connects");
    let table = "CREATE TABLE tb_writes (id text PRIMARY KEY, run text); GRANT ALL ON tb_writes TO PUBLIC";
    primary.batch_execute(table).await.expect("the table is created");
    primary
}

/// Returns the number of rows with this id.
pub(crate) async fn count_rows(primary: &Client, id: &str) -> i64 {
    let count = "SELECT count(*) FROM tb_writes WHERE id = $1";
    primary.query_one(count, &[&id]).await.expect("the query succeeds").get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_path_responds_as_specified_without_faults() {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let primary = create_table(&cluster).await;
    let service = Service::ready(&cluster).await;
    reads(&service, &cluster).await;
    writes(&service, &cluster, &primary).await;
    rejects_bad_requests(&service).await;
    reports_the_pods(&service, &cluster).await;
    exposes_metrics(&service).await;
    serves_its_page(&service).await;
    service.stop(&cluster).await;
    cluster.shutdown().await.expect("the cluster stops");
}

async fn reads(service: &Service, cluster: &Cluster) {
    let by_address: HashMap<_, _> = cluster.pods().into_iter().map(|pod| (pod.address().ip(), pod)).collect();
    // All requests use the same HTTP connection.
    let mut connection = service.connect().await;
    let mut served = HashMap::new();
    for target in ["any", "primary", "standby", "prefer-standby", ""] {
        let path = if target.is_empty() { "/query".to_owned() } else { format!("/query?target={target}") };
        for _ in 0..30 {
            let response = request(&mut connection, "GET", &path, "").await;
            assert_eq!(response.status, 200, "{response:?}");
            assert_eq!(fields(&response.body), ["attempts", "in_recovery", "pod", "server_addr", "us"]);
            let pod = &by_address[&response.text("server_addr").parse::<IpAddr>().expect("an IP address")];
            assert_eq!(response.text("pod"), pod.name());
            let is_standby = response.body["in_recovery"].as_bool().expect("a boolean");
            assert_eq!(is_standby, pod.role() == PodRole::Standby);
            match target {
                "primary" => assert!(!is_standby),
                "standby" | "prefer-standby" => assert!(is_standby),
                _ => *served.entry(pod.name().to_owned()).or_insert(0) += 1,
            }
            assert_eq!(response.body["attempts"], 1);
            assert!(response.body["us"].as_u64().is_some_and(|us| us > 0), "{response:?}");
        }
    }
    assert_eq!(served.len(), 3, "expected reads with target any on every Pod: {served:?}");
    println!("150 of 150 reads succeeded; the 60 reads with target any, by Pod: {served:?}");
    let slow = service.get("/query?sleep_ms=300").await;
    assert!(slow.body["us"].as_u64().is_some_and(|us| us >= 300_000), "{slow:?}");
}

async fn writes(service: &Service, cluster: &Cluster, primary: &Client) {
    for i in 0..20 {
        let id = format!("write-{i} \u{1F418} '\"\\");
        let response = service.write(&id).await;
        assert_eq!(response.status, 200, "{response:?}");
        assert_eq!(fields(&response.body), ["attempts", "pod", "server_addr", "us"]);
        assert_eq!(response.text("pod"), cluster.pod(0).name());
        assert_eq!(response.text("server_addr"), cluster.pod(0).address().ip().to_string());
        assert_eq!(count_rows(primary, &id).await, 1);
    }
    // A second write with the same id reports `unknown`. `no` would promise that the id is not in the database.
    let again = service.write("write-0 \u{1F418} '\"\\").await;
    assert_eq!(again.failure(), ("query", "unknown"), "{again:?}");
    assert_eq!(count_rows(primary, "write-0 \u{1F418} '\"\\").await, 1);
    // Exactly one of several concurrent writes with the same id succeeds.
    let writes = (0..8).map(|_| service.write("concurrent"));
    let responses = futures_util::future::join_all(writes).await;
    let succeeded = responses.iter().filter(|response| response.status == 200).count();
    assert_eq!((succeeded, count_rows(primary, "concurrent").await), (1, 1), "{responses:?}");
    for failed in responses.iter().filter(|response| response.status != 200) {
        assert_eq!(failed.failure(), ("query", "unknown"));
    }
    // If the server rejects a write, the service reports that the write was not applied.
    primary
        .batch_execute("ALTER TABLE tb_writes ADD CHECK (run <> 'rejected')")
        .await
        .expect("the constraint is added");
    let rejected = service.request("POST", "/write", r#"{"id":"rejected","run":"rejected"}"#).await;
    assert_eq!(rejected.failure(), ("query", "no"), "{rejected:?}");
    assert_eq!(count_rows(primary, "rejected").await, 0);
    omits_server_messages(service, &again, &rejected).await;
    println!("20 of 20 writes applied once; duplicate: unknown; 1 of 8 concurrent writes applied; rejected: no");
}

/// Checks that failed writes report the SQLSTATE, and that the server's messages, which contain the rejected row, are
/// only in the log.
async fn omits_server_messages(service: &Service, duplicate: &Response, rejected: &Response) {
    for (response, sqlstate, logged) in [
        (duplicate, "23505", ["DETAIL: Key (id)=(write-0 ", "tb_writes_pkey"]),
        (rejected, "23514", ["DETAIL: Failing row contains (rejected, rejected)", "tb_writes_run_check"]),
    ] {
        assert!(response.text("error").ends_with(&format!("the server reported SQLSTATE {sqlstate}")), "{response:?}");
        for text in ["DETAIL", "Key (", "Failing row", "tb_writes", "violates"] {
            assert!(!response.text("error").contains(text), "the response contains {text:?}: {response:?}");
        }
        for text in logged {
            until(LIMIT, "the log contains the server's message", || service.output().contains(text)).await;
        }
    }
}

async fn rejects_bad_requests(service: &Service) {
    let long = "x".repeat(1001);
    let requests = [
        ("GET", "/query?target=nobody", "".to_owned(), 400),
        ("GET", "/query?target=", "".to_owned(), 400),
        ("GET", "/query?target=Primary", "".to_owned(), 400),
        ("GET", "/query?target=any&target=primary", "".to_owned(), 400),
        ("GET", "/query?sleep_ms=abc", "".to_owned(), 400),
        ("GET", "/query?sleep_ms=", "".to_owned(), 400),
        ("GET", "/query?sleep_ms=-1", "".to_owned(), 400),
        ("GET", "/query?sleep_ms=1.5", "".to_owned(), 400),
        ("GET", "/query?sleep_ms=60001", "".to_owned(), 400),
        ("GET", "/query?sleep_ms=99999999999999999999", "".to_owned(), 400),
        ("POST", "/write", "".to_owned(), 400),
        ("POST", "/write", "{".to_owned(), 400),
        ("POST", "/write", "[]".to_owned(), 400),
        ("POST", "/write", r#"{"id":"a"}"#.to_owned(), 400),
        ("POST", "/write", r#"{"run":"a"}"#.to_owned(), 400),
        ("POST", "/write", r#"{"id":1,"run":"a"}"#.to_owned(), 400),
        ("POST", "/write", r#"{"id":"","run":"a"}"#.to_owned(), 400),
        ("POST", "/write", r#"{"id":"a\u0000","run":"a"}"#.to_owned(), 400),
        ("POST", "/write", format!(r#"{{"id":"{long}","run":"a"}}"#), 400),
        ("POST", "/query", "".to_owned(), 405),
        ("GET", "/write", "".to_owned(), 405),
        ("GET", "/nothing", "".to_owned(), 404),
        ("DELETE", "/nothing/at/all", "".to_owned(), 404),
    ];
    let mut connection = service.connect().await;
    for (method, path, body, status) in &requests {
        let response = request(&mut connection, method, path, body).await;
        assert_eq!(response.status, *status, "{method} {path} {body}: {response:?}");
        assert_eq!(fields(&response.body), ["error"]);
        assert!(!response.text("error").is_empty());
    }
    println!("{} bad requests were rejected", requests.len());
    let beyond = service.get("/query?sleep_ms=60001").await;
    assert_eq!(beyond.text("error"), "sleep_ms: expected an integer from 0 to 60000, got \"60001\"");
}

async fn reports_the_pods(service: &Service, cluster: &Cluster) {
    assert_eq!(service.get("/healthz").await.status, 200);
    assert_eq!(service.get("/readyz").await.status, 200);
    let response = service.get("/endpoints").await;
    assert_eq!(fields(&response.body), ["endpoints", "resolve"]);
    let endpoints = response.body["endpoints"].as_array().expect("a list");
    assert_eq!(endpoints.len(), 3);
    for (pod, endpoint) in cluster.pods().iter().zip(endpoints) {
        let expected = ["addr", "idle", "in_use", "lag_bytes", "latency_us", "open", "pod", "role", "state", "waiting"];
        assert_eq!(fields(endpoint), expected);
        assert_eq!(endpoint["addr"], pod.address().ip().to_string());
        assert_eq!(endpoint["state"], "healthy");
        assert_eq!(endpoint["role"], pod.role().to_string());
        for count in ["open", "idle", "in_use", "waiting", "latency_us"] {
            assert!(endpoint[count].is_u64(), "{count} in {endpoint}");
        }
    }
    let resolve = &response.body["resolve"];
    assert_eq!(fields(resolve), ["age_ms", "errors", "ok", "source"]);
    assert!(resolve["age_ms"].is_u64() && resolve["errors"] == 0 && resolve["ok"] == true, "{resolve}");
    assert!(resolve["source"].as_str().is_some_and(|source| source.contains(cluster.service())), "{resolve}");
    // SRV records contain the Pods' names.
    let named = Service::start(&cluster.srv_url()).await;
    let ready = |response: &Response| response.body["endpoints"][2]["state"] == "healthy";
    let response = named.get_until("/endpoints", ready).await;
    for (pod, endpoint) in cluster.pods().iter().zip(response.body["endpoints"].as_array().expect("a list")) {
        assert_eq!(endpoint["pod"], pod.name());
    }
    named.stop(cluster).await;
}

async fn exposes_metrics(service: &Service) {
    let (kind, text) = service.get_text("/metrics").await;
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let families = exposition::parse(&text);
    let checkouts = &families["podpool_endpoint_checkouts_total"];
    assert_eq!((checkouts.kind.as_str(), checkouts.samples.len()), ("counter", 3));
    assert!(checkouts.sum() >= 170.0, "{checkouts:?}");
    for name in ["podpool_endpoint_up", "podpool_endpoint_latency_seconds", "db_client_connection_max"] {
        assert_eq!(families[name].samples.len(), 3, "{name}");
    }
    let count = &families["db_client_connection_count"];
    // `podpool_pod_info` leads from an address to the label of the other metrics.
    let pods = families["podpool_pod_info"].samples.iter().filter(|(_, known)| **known == 1.0);
    let pods: Vec<_> = pods.map(|(labels, _)| (&*labels["server_address"], &*labels["podpool_pod"])).collect();
    let pod = |at: &str| pods.iter().find(|(address, _)| *address == at).expect("the Pod is known").1;
    let open = |address, state| count.with(&[("podpool_pod", pod(address)), ("db_client_connection_state", state)]);
    for address in ["127.0.0.2", "127.0.0.3", "127.0.0.4"] {
        assert!(open(address, "idle") + open(address, "used") >= 1.0, "{count:?}");
    }
    assert_eq!(families["db_client_connection_use_time_seconds"].kind, "histogram");
    assert!(families["db_client_connection_use_time_seconds"].sum() >= 3.0, "expected a measured use of each Pod");
    let primary = families["podpool_endpoint_role"].with(&[("podpool_pod", pod("127.0.0.2")), ("role", "primary")]);
    let healthy = families["podpool_endpoint_state"].with(&[("podpool_pod", pod("127.0.0.3")), ("state", "healthy")]);
    assert_eq!((primary, healthy), (1.0, 1.0));
    assert!(families["podpool_resolve_answers_total"].sum() >= 1.0);
    assert!(families["podpool_connections_opened_total"].sum() >= 3.0);
    println!("metrics: {} families, {} samples", families.len(), text.lines().filter(|l| !l.starts_with('#')).count());
}

async fn serves_its_page(service: &Service) {
    let (kind, page) = service.get_text("/").await;
    assert_eq!(kind, "text/html; charset=utf-8");
    assert!(page.starts_with("<!doctype html>") && page.contains("aria-live"));
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "the page refers to another host: {outside}");
    }
}
