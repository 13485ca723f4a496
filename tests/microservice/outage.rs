//! Tests the service's responses while some Pods, all Pods or the name server are down.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use podpool::testkit::Cluster;
use tokio::task::JoinSet;

use crate::{
    common::until,
    contract::{count_rows, create_table},
    exposition,
    service::{LIMIT, Service, request},
    stream::EventStream,
};

/// Maximum duration of a failing request: the default `acquire_timeout` of 5 s, plus a margin.
const FAILURE_LIMIT: Duration = Duration::from_secs(6);

/// The results of one reader.
#[derive(Default)]
struct Reads {
    count: u64,
    attempts: u64,
    slowest_us: u64,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killing_a_standby_causes_no_failed_reads() {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let service = Arc::new(Service::ready(&cluster).await);
    let mut events = EventStream::open(&service).await;
    let (stop, total) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut readers = JoinSet::new();
    for target in ["any", "any", "standby", "standby", "standby", "standby"] {
        let (service, stop, total) = (service.clone(), stop.clone(), total.clone());
        readers.spawn(async move {
            let mut connection = service.connect().await;
            let mut reads = Reads::default();
            while !stop.load(Ordering::Relaxed) {
                let path = format!("/query?target={target}&sleep_ms=20");
                let response = request(&mut connection, "GET", &path, "").await;
                assert_eq!(response.status, 200, "{response:?}");
                assert!(target == "any" || response.body["in_recovery"] == true);
                total.fetch_add(1, Ordering::Relaxed);
                reads.count += 1;
                reads.attempts += response.body["attempts"].as_u64().expect("a number");
                reads.slowest_us = reads.slowest_us.max(response.body["us"].as_u64().expect("a number"));
            }
            reads
        });
    }
    // After 300 reads, every reader has a connection.
    until(LIMIT, "readers run", || total.load(Ordering::Relaxed) >= 300).await;
    let address = cluster.pod(1).address().ip().to_string();
    cluster.kill(1).await.expect("the Pod is killed");
    let changed_to = |state: &'static str| {
        let address = address.clone();
        move |event: &serde_json::Value| {
            event["event"] == "state_changed" && event["addr"] == address && event["to"] == state
        }
    };
    let ejected = events.find(LIMIT, changed_to("ejected")).await;
    assert!(ejected["cause"].is_string() && ejected["from"] == "healthy" && ejected["at_ms"].is_u64(), "{ejected}");
    let endpoints = service.get("/endpoints").await;
    assert_eq!(endpoints.body["endpoints"][1]["state"], "ejected", "{endpoints:?}");
    assert_eq!(service.get("/readyz").await.body["usable"], 2);
    cluster.start_pod(1).await.expect("the Pod starts");
    events.find(LIMIT, changed_to("healthy")).await;
    stop.store(true, Ordering::Relaxed);
    let mut reads = Reads::default();
    while let Some(reader) = readers.join_next().await {
        let reader = reader.expect("no read fails");
        reads.count += reader.count;
        reads.attempts += reader.attempts;
        reads.slowest_us = reads.slowest_us.max(reader.slowest_us);
    }
    let Reads { count, attempts, slowest_us } = reads;
    assert!(attempts > count, "the kill interrupted no read, so the test proves nothing");
    println!("standby killed: 0 of {count} reads failed, {} retried, slowest {slowest_us} us", attempts - count);
    drop(events);
    let service = Arc::into_inner(service).expect("every reader has ended");
    service.stop(&cluster).await;
    cluster.shutdown().await.expect("the cluster stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_fail_in_time_while_all_pods_are_down_then_recover() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    drop(create_table(&cluster).await);
    let service = Service::ready(&cluster).await;
    for pod in 0..2 {
        cluster.kill(pod).await.expect("the Pod is killed");
    }
    let all_dead = Instant::now();
    for (path, kinds) in [("/query", &["connect"][..]), ("/query?target=standby", &["connect", "no_endpoints"])] {
        let start = Instant::now();
        let response = service.get(path).await;
        let (kind, applied) = response.failure();
        assert!(kinds.contains(&kind) && applied == "no", "{response:?}");
        assert!(start.elapsed() < FAILURE_LIMIT, "{path} took {:?}", start.elapsed());
    }
    let start = Instant::now();
    let response = service.write("while-all-are-dead").await;
    assert_eq!(response.failure().1, "no", "{response:?}");
    assert!(start.elapsed() < FAILURE_LIMIT, "the write took {:?}", start.elapsed());
    println!("every Pod down: two reads and a write failed within {:?}: {response:?}", all_dead.elapsed());
    assert_eq!(service.get("/readyz").await.status, 503);
    assert_eq!(service.get("/healthz").await.status, 200);

    cluster.start_pod(0).await.expect("the primary starts");
    let started = Instant::now();
    service.get_until("/readyz", |response| response.status == 200).await;
    assert_eq!(service.get("/query").await.status, 200);
    assert_eq!(service.write("afterwards").await.status, 200);
    println!("primary started: ready, and a read and a write succeeded, within {:?}", started.elapsed());
    let primary = cluster.client(0).await.expect("the client connects");
    let rows = (count_rows(&primary, "while-all-are-dead").await, count_rows(&primary, "afterwards").await);
    assert_eq!(rows, (0, 1));
    service.stop(&cluster).await;
    cluster.shutdown().await.expect("the cluster stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_while_dns_and_all_pods_are_down() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    cluster.dns().stop().await;
    cluster.kill(0).await.expect("the Pod is killed");
    let service = Service::start(&cluster.url()).await;
    assert_eq!(service.get("/healthz").await.status, 200);
    assert_eq!(service.get("/readyz").await.status, 503);
    let start = Instant::now();
    let response = service.get("/query").await;
    assert_eq!(response.failure(), ("dns", "no"), "{response:?}");
    assert!(start.elapsed() < FAILURE_LIMIT, "{:?}", start.elapsed());
    let response = service.get("/endpoints").await;
    assert_eq!(response.body["endpoints"].as_array().map(Vec::len), Some(0));
    assert!(response.body["resolve"]["age_ms"].is_null() && response.body["resolve"]["ok"] == false, "{response:?}");
    assert!(response.body["resolve"]["errors"].as_u64().is_some_and(|errors| errors > 0), "{response:?}");
    exposition::parse(&service.get_text("/metrics").await.1);

    cluster.dns().restart().await.expect("the name server restarts");
    service.get_until("/endpoints", |response| response.body["resolve"]["ok"] == true).await;
    let response = service.get("/query").await;
    assert_eq!(response.failure(), ("connect", "no"), "{response:?}");
    cluster.start_pod(0).await.expect("the Pod starts");
    service.get_until("/readyz", |response| response.status == 200).await;
    assert_eq!(service.get("/query?target=primary").await.status, 200);
    service.stop(&cluster).await;
    cluster.shutdown().await.expect("the cluster stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_write_is_reported_unknown_and_not_retried() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let primary = create_table(&cluster).await;
    let service = Service::ready(&cluster).await;
    assert_eq!(service.write("before").await.status, 200);
    primary.batch_execute("BEGIN; LOCK TABLE tb_writes IN ACCESS EXCLUSIVE MODE").await.expect("the table is locked");
    let write = async {
        let response = service.write("interrupted").await;
        assert_eq!(response.failure(), ("query", "unknown"), "{response:?}");
    };
    let kill = async {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        let observer = cluster.client(0).await.expect("the client connects");
        let start = Instant::now();
        while observer.query_one(waiting, &[]).await.expect("the query succeeds").get::<_, i64>(0) == 0 {
            assert!(start.elapsed() < LIMIT, "the write does not wait for the lock");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cluster.kill(0).await.expect("the Pod is killed");
    };
    tokio::join!(write, kill);
    cluster.start_pod(0).await.expect("the Pod starts");
    let primary = cluster.client(0).await.expect("the client connects");
    assert_eq!((count_rows(&primary, "before").await, count_rows(&primary, "interrupted").await), (1, 0));
    service.stop(&cluster).await;
    cluster.shutdown().await.expect("the cluster stops");
}
