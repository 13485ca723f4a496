//! What requests meet when Pods die, all of them die, or nothing is up yet.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use podpool::testkit::Cluster;
use tokio::{net::UdpSocket, task::JoinSet};

use crate::{
    common::until,
    contract::{make_table, rows},
    service::{SOON, Service, ask},
    stream::Stream,
};

/// What a request may take beyond `acquire_timeout`.
const DEADLINE: Duration = Duration::from_secs(6);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_fails_when_a_standby_is_killed() {
    let cluster = Cluster::start(3).await.expect("a cluster");
    let service = Arc::new(Service::ready(&cluster).await);
    let mut events = Stream::open(&service).await;
    let (over, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut readers = JoinSet::new();
    for target in ["any", "any", "standby", "standby", "standby", "standby"] {
        let (service, over, answered) = (service.clone(), over.clone(), answered.clone());
        readers.spawn(async move {
            let mut connection = service.connect().await;
            let (mut served, mut tries, mut slowest) = (0u64, 0, 0);
            while !over.load(Ordering::Relaxed) {
                let path = format!("/query?target={target}&sleep_ms=20");
                let answer = ask(&mut connection, "GET", &path, "").await;
                assert_eq!(answer.status, 200, "{answer:?}");
                assert!(target == "any" || answer.body["in_recovery"] == true);
                served += 1;
                answered.fetch_add(1, Ordering::Relaxed);
                tries += answer.body["attempts"].as_u64().expect("a number");
                slowest = slowest.max(answer.body["us"].as_u64().expect("a number"));
            }
            (served, tries, slowest)
        });
    }
    // Until every reader has a connection and uses it.
    until(SOON, "reads are under way", || answered.load(Ordering::Relaxed) >= 300).await;
    let address = cluster.pod(1).address().ip().to_string();
    cluster.kill(1).await.expect("a dead Pod");
    let is = |to: &'static str| {
        let address = address.clone();
        move |event: &serde_json::Value| {
            event["event"] == "state_changed" && event["addr"] == address && event["to"] == to
        }
    };
    let ejected = events.find(SOON, is("ejected")).await;
    assert!(ejected["cause"].is_string() && ejected["from"] == "healthy" && ejected["at_ms"].is_u64(), "{ejected}");
    let out = service.get("/endpoints").await;
    assert_eq!(out.body["endpoints"][1]["state"], "ejected", "{out:?}");
    assert_eq!(service.get("/readyz").await.body["usable"], 2);
    cluster.start_pod(1).await.expect("the Pod again");
    events.find(SOON, is("healthy")).await;
    over.store(true, Ordering::Relaxed);
    let (mut served, mut tries, mut slowest) = (0, 0, 0);
    while let Some(reader) = readers.join_next().await {
        let (more, tried, time) = reader.expect("no read fails");
        (served, tries, slowest) = (served + more, tries + tried, slowest.max(time));
    }
    assert!(tries > served, "the kill hit no read");
    println!("a standby killed: 0 of {served} reads failed, {} done again, the slowest {slowest} us", tries - served);
    drop(events);
    let service = Arc::into_inner(service).expect("no reader is left");
    service.finish(&cluster).await;
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn says_so_when_every_pod_is_dead_and_recovers() {
    let cluster = Cluster::start(2).await.expect("a cluster");
    drop(make_table(&cluster).await);
    let service = Service::ready(&cluster).await;
    for pod in 0..2 {
        cluster.kill(pod).await.expect("a dead Pod");
    }
    let begun = Instant::now();
    for (path, kinds) in [("/query", ["connect", "connect"]), ("/query?target=standby", ["connect", "no_endpoints"])] {
        let asked = Instant::now();
        let answer = service.get(path).await;
        let (kind, applied) = answer.unavailable();
        assert!(kinds.contains(&kind) && applied == "no", "{answer:?}");
        assert!(asked.elapsed() < DEADLINE, "{path} took {:?}", asked.elapsed());
    }
    let asked = Instant::now();
    let answer = service.write("while-all-are-dead").await;
    assert_eq!(answer.unavailable().1, "no", "{answer:?}");
    assert!(asked.elapsed() < DEADLINE, "the write took {:?}", asked.elapsed());
    println!("all dead: two reads and a write answered within {:?} together: {answer:?}", begun.elapsed());
    assert_eq!(service.get("/readyz").await.status, 503);
    assert_eq!(service.get("/healthz").await.status, 200);

    cluster.start_pod(0).await.expect("the primary again");
    let back = Instant::now();
    service.eventually("/readyz", |answer| answer.status == 200).await;
    assert_eq!(service.get("/query").await.status, 200);
    assert_eq!(service.write("afterwards").await.status, 200);
    println!("all dead, one back: ready and served {:?} later", back.elapsed());
    let primary = cluster.client(0).await.expect("a client");
    assert_eq!((rows(&primary, "while-all-are-dead").await, rows(&primary, "afterwards").await), (0, 1));
    service.finish(&cluster).await;
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn starts_with_dns_and_every_pod_down() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    cluster.dns().stop().await;
    cluster.kill(0).await.expect("a dead Pod");
    let service = Service::start(&cluster.url()).await;
    assert_eq!(service.get("/healthz").await.status, 200);
    assert_eq!(service.get("/readyz").await.status, 503);
    let asked = Instant::now();
    let answer = service.get("/query").await;
    assert_eq!(answer.unavailable(), ("dns", "no"), "{answer:?}");
    assert!(asked.elapsed() < DEADLINE, "{:?}", asked.elapsed());
    let answer = service.get("/endpoints").await;
    assert_eq!(answer.body["endpoints"].as_array().map(Vec::len), Some(0));
    assert!(answer.body["resolve"]["age_ms"].is_null() && answer.body["resolve"]["ok"] == false, "{answer:?}");
    assert!(answer.body["resolve"]["errors"].as_u64().is_some_and(|errors| errors > 0), "{answer:?}");
    crate::exposition::parse(&service.text("/metrics").await.1);

    cluster.dns().restart().await.expect("the name server again");
    service.eventually("/endpoints", |answer| answer.body["resolve"]["ok"] == true).await;
    let answer = service.get("/query").await;
    assert_eq!(answer.unavailable(), ("connect", "no"), "{answer:?}");
    cluster.start_pod(0).await.expect("the Pod again");
    service.eventually("/readyz", |answer| answer.status == 200).await;
    assert_eq!(service.get("/query?target=primary").await.status, 200);
    service.finish(&cluster).await;
    cluster.shutdown().await.expect("an orderly end");
}

/// A write that is under way when its server dies is of unknown fate, and is not done again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_was_under_way_is_unknown() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let primary = make_table(&cluster).await;
    let service = Service::ready(&cluster).await;
    assert_eq!(service.write("before").await.status, 200);
    primary.batch_execute("BEGIN; LOCK TABLE tb_writes IN ACCESS EXCLUSIVE MODE").await.expect("a lock");
    let under_way = async {
        let answer = service.write("under-way").await;
        assert_eq!(answer.unavailable(), ("query", "unknown"), "{answer:?}");
    };
    let killed = async {
        let waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted";
        let asking = cluster.client(0).await.expect("a client");
        let begun = Instant::now();
        while asking.query_one(waiting, &[]).await.expect("a count").get::<_, i64>(0) == 0 {
            assert!(begun.elapsed() < SOON, "the write never waited");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        cluster.kill(0).await.expect("a dead Pod");
    };
    tokio::join!(under_way, killed);
    cluster.start_pod(0).await.expect("the Pod again");
    let primary = cluster.client(0).await.expect("a client");
    assert_eq!((rows(&primary, "before").await, rows(&primary, "under-way").await), (1, 0));
    service.finish(&cluster).await;
    cluster.shutdown().await.expect("an orderly end");
}

/// A name server that answers nothing at all.
#[tokio::test]
async fn ends_well_without_ever_having_seen_a_pod() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let server = silent.local_addr().expect("its address");
    let service = Service::start(&format!("postgres://user:hunter2@postgresql-svc.test/db?nameservers={server}")).await;
    assert_eq!(service.get("/readyz").await.status, 503);
    service.terminate();
    let (status, output) = service.end().await;
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(!output.contains("hunter2"), "{output}");
}
