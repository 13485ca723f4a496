//! Every path, what it answers and what it refuses, while all is well.

use std::{collections::HashMap, net::IpAddr};

use podpool::testkit::{Cluster, Role};
use tokio_postgres::Client;

use crate::{
    exposition,
    service::{Service, ask, fields},
};

pub(crate) async fn make_table(cluster: &Cluster) -> Client {
    let primary = cluster.client(cluster.primary().expect("a primary")).await.expect("a client");
    let table = "CREATE TABLE tb_writes (id text PRIMARY KEY, run text); GRANT ALL ON tb_writes TO PUBLIC";
    primary.batch_execute(table).await.expect("the table");
    primary
}

pub(crate) async fn rows(primary: &Client, id: &str) -> i64 {
    primary.query_one("SELECT count(*) FROM tb_writes WHERE id = $1", &[&id]).await.expect("a count").get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_as_promised_while_all_is_well() {
    let cluster = Cluster::start(3).await.expect("a cluster");
    let primary = make_table(&cluster).await;
    let service = Service::ready(&cluster).await;
    reads(&service, &cluster).await;
    writes(&service, &cluster, &primary).await;
    refuses_bad_requests(&service).await;
    tells_about_the_pods(&service, &cluster).await;
    exposes_metrics(&service).await;
    serves_its_page(&service).await;
    service.finish(&cluster).await;
    cluster.shutdown().await.expect("an orderly end");
}

async fn reads(service: &Service, cluster: &Cluster) {
    let by_address: HashMap<_, _> = cluster.pods().into_iter().map(|pod| (pod.address().ip(), pod)).collect();
    // All on one connection.
    let mut connection = service.connect().await;
    let mut served = HashMap::new();
    for target in ["any", "primary", "standby", "prefer-standby", ""] {
        let path = if target.is_empty() { "/query".to_owned() } else { format!("/query?target={target}") };
        for _ in 0..30 {
            let answer = ask(&mut connection, "GET", &path, "").await;
            assert_eq!(answer.status, 200, "{answer:?}");
            assert_eq!(fields(&answer.body), ["attempts", "in_recovery", "pod", "server_addr", "us"]);
            let pod = &by_address[&answer.word("server_addr").parse::<IpAddr>().expect("an address")];
            assert_eq!(answer.word("pod"), pod.name());
            let is_standby = answer.body["in_recovery"].as_bool().expect("yes or no");
            assert_eq!(is_standby, pod.role() == Role::Standby);
            match target {
                "primary" => assert!(!is_standby),
                "standby" | "prefer-standby" => assert!(is_standby),
                _ => *served.entry(pod.name().to_owned()).or_insert(0) += 1,
            }
            assert_eq!(answer.body["attempts"], 1);
            assert!(answer.body["us"].as_u64().is_some_and(|us| us > 0), "{answer:?}");
        }
    }
    assert_eq!(served.len(), 3, "every Pod serves `any`: {served:?}");
    println!("reads: 150 of 150, of them 60 for any Pod: {served:?}");
    let slept = service.get("/query?sleep_ms=300").await;
    assert!(slept.body["us"].as_u64().is_some_and(|us| us >= 300_000), "{slept:?}");
}

async fn writes(service: &Service, cluster: &Cluster, primary: &Client) {
    for i in 0..20 {
        let id = format!("write-{i} \u{1F418} '\"\\");
        let answer = service.write(&id).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(fields(&answer.body), ["attempts", "pod", "server_addr", "us"]);
        assert_eq!(answer.word("pod"), cluster.pod(0).name());
        assert_eq!(answer.word("server_addr"), cluster.pod(0).address().ip().to_string());
        assert_eq!(rows(primary, &id).await, 1);
    }
    // Another request with an id that is there: not `no`, which would say that it is not.
    let again = service.write("write-0 \u{1F418} '\"\\").await;
    assert_eq!(again.unavailable(), ("query", "unknown"), "{again:?}");
    assert_eq!(rows(primary, "write-0 \u{1F418} '\"\\").await, 1);
    // The same id many times at once: one of them wins.
    let racers = (0..8).map(|_| service.write("raced"));
    let answers = futures_util::future::join_all(racers).await;
    let won = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!((won, rows(primary, "raced").await), (1, 1), "{answers:?}");
    for lost in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!(lost.unavailable(), ("query", "unknown"));
    }
    // Refused by the server itself: certainly not applied.
    primary.batch_execute("ALTER TABLE tb_writes ADD CHECK (run <> 'refused')").await.expect("a constraint");
    let refused = service.ask("POST", "/write", r#"{"id":"refused","run":"refused"}"#).await;
    assert_eq!(refused.unavailable(), ("query", "no"), "{refused:?}");
    assert_eq!(rows(primary, "refused").await, 0);
    println!("writes: 20 of 20 there once, a duplicate is `unknown`, 1 of 8 racers won, a refused one is `no`");
}

async fn refuses_bad_requests(service: &Service) {
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
        let answer = ask(&mut connection, method, path, body).await;
        assert_eq!(answer.status, *status, "{method} {path} {body}: {answer:?}");
        assert_eq!(fields(&answer.body), ["error"]);
        assert!(!answer.word("error").is_empty());
    }
    println!("bad requests: {} refused", requests.len());
}

async fn tells_about_the_pods(service: &Service, cluster: &Cluster) {
    assert_eq!(service.get("/healthz").await.status, 200);
    assert_eq!(service.get("/readyz").await.status, 200);
    let answer = service.get("/endpoints").await;
    assert_eq!(fields(&answer.body), ["endpoints", "resolve"]);
    let endpoints = answer.body["endpoints"].as_array().expect("a list");
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
    let resolve = &answer.body["resolve"];
    assert_eq!(fields(resolve), ["age_ms", "errors", "ok", "source"]);
    assert!(resolve["age_ms"].is_u64() && resolve["errors"] == 0 && resolve["ok"] == true, "{resolve}");
    assert!(resolve["source"].as_str().is_some_and(|source| source.contains(cluster.service())), "{resolve}");
    // With SRV records the Pods have names.
    let named = Service::start(&cluster.srv_url()).await;
    let ready = |answer: &crate::service::Answer| answer.body["endpoints"][2]["state"] == "healthy";
    let answer = named.eventually("/endpoints", ready).await;
    for (pod, endpoint) in cluster.pods().iter().zip(answer.body["endpoints"].as_array().expect("a list")) {
        assert_eq!(endpoint["pod"], pod.name());
    }
    named.finish(cluster).await;
}

async fn exposes_metrics(service: &Service) {
    let (kind, text) = service.text("/metrics").await;
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    let families = exposition::parse(&text);
    let picks = &families["podpool_endpoint_picks_total"];
    assert_eq!((picks.kind.as_str(), picks.samples.len()), ("counter", 3));
    assert!(picks.samples.values().sum::<f64>() >= 170.0, "{picks:?}");
    for name in ["up", "open", "idle", "in_use", "waiting", "latency_seconds"] {
        assert_eq!(families[&format!("podpool_endpoint_{name}")].samples.len(), 3, "{name}");
    }
    let primary = families["podpool_endpoint_role"].with(&[("addr", "127.0.0.2"), ("role", "primary")]);
    let healthy = families["podpool_endpoint_state"].with(&[("addr", "127.0.0.3"), ("state", "healthy")]);
    assert_eq!((primary, healthy), (1.0, 1.0));
    assert_eq!(families["podpool_resolve_ok"].single(), 1.0);
    assert!(families["podpool_connections_opened_total"].single() >= 3.0);
    println!("metrics: {} families, {} samples", families.len(), text.lines().filter(|l| !l.starts_with('#')).count());
}

async fn serves_its_page(service: &Service) {
    let (kind, page) = service.text("/").await;
    assert_eq!(kind, "text/html; charset=utf-8");
    assert!(page.starts_with("<!doctype html>") && page.contains("aria-live"));
    for outside in ["http://", "https://", "src=", "@import", "url("] {
        assert!(!page.contains(outside), "the page asks somebody else: {outside}");
    }
}
