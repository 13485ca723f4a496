//! `postgres+srv://`: the weights and priorities of SRV records (RFC 2782), with real servers.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use podpool::{
    Client, Kind, Pool, State, Target,
    testkit::{
        Cluster, Shutdown,
        fault_dns::{FaultDns, Record, address, weighted_service},
    },
};

use crate::{SOON, common};

const NAME: &str = "db.example.";
const RECORDS: &str = "_postgresql._tcp.db.example.";

/// Returns the records of the Pods with these ordinals, priorities and weights.
fn records(cluster: &Cluster, pods: &[(usize, u16, u16)]) -> Vec<Record> {
    let of_pod = |&(pod, priority, weight): &(usize, u16, u16)| {
        let target = format!("pg-{pod}.{NAME}");
        let ip = cluster.pod(pod).address().ip().to_string();
        [weighted_service(RECORDS, priority, weight, cluster.port(), &target), address(&target, 1, &ip)]
    };
    pods.iter().flat_map(of_pod).collect()
}

/// Returns the URL of these servers, whose records are on this name server.
fn url(cluster: &Cluster, dns: &FaultDns) -> String {
    let (service, port) = (cluster.service(), cluster.port());
    let url = cluster.url().replacen("postgres://", "postgres+srv://", 1);
    let url = url.replace(&format!("{service}:{port}"), "db.example").replace(service, "db.example");
    format!("{}&refresh_max=1s", url.replace(&cluster.dns().address().to_string(), &dns.address().to_string()))
}

/// Reads `count` times, one after another. Returns the number of reads on each Pod, by its ordinal.
async fn reads(pool: &Pool, cluster: &Cluster, count: usize) -> BTreeMap<usize, usize> {
    let ordinals: BTreeMap<IpAddr, usize> = cluster.pods().iter().map(|pod| pod.address().ip()).zip(0..).collect();
    let mut counts = BTreeMap::new();
    for _ in 0..count {
        let read = async |client: Client| {
            let row = client.simple_query("SELECT 1").await;
            row.map(|_| client.endpoint().address().ip().expect("an IP address"))
        };
        let ip = pool.retry(Target::Any, read).await.expect("the read succeeds");
        *counts.entry(ordinals[&ip]).or_default() += 1;
    }
    counts
}

async fn until_healthy(pool: &Pool, pods: usize) {
    common::until(SOON, "the Pods are healthy", || common::in_state(pool, State::Healthy) == pods).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_are_shares_and_a_higher_priority_number_is_a_reserve() {
    const READS: usize = 2_000;
    let cluster = Cluster::start(4).await.expect("the cluster starts");
    let dns = FaultDns::start().await.expect("the name server starts");
    dns.set_records(NAME, records(&cluster, &[(0, 10, 1), (1, 0, 100), (2, 0, 50), (3, 0, 0)]));
    // This policy ignores the Pods' latency, so the shares depend on the weights only.
    let url = format!("{}&policy=random", url(&cluster, &dns));
    let pool = Pool::connect(&url).await.expect("the pool connects");
    until_healthy(&pool, 4).await;

    let expected = [0.0, 100.0 / 151.0, 50.0 / 151.0, 1.0 / 151.0];
    let counts = reads(&pool, &cluster, READS).await;
    let shares = [0, 1, 2, 3].map(|pod| counts.get(&pod).map_or(0.0, |reads| *reads as f64 / READS as f64));
    println!("shares for the weights 100:50:0 and a reserve: {shares:.4?}, expected {expected:.4?}");
    assert!(shares[0] == 0.0, "the Pod with priority 10 is not used");
    // Four standard deviations.
    assert!(shares.iter().zip(expected).all(|(share, expected)| (share - expected).abs() <= 0.04), "{shares:?}");
    assert!(shares[3] > 0.0, "weight 0 is a very small share");
    // The only primary serves its role whatever its priority.
    assert_eq!(common::server_addr(&pool.primary().await.expect("a primary")).await, "127.0.0.2");

    // New weights take effect at the next lookup, and the connections stay open.
    let opened = pool.status().counters.opened;
    dns.set_records(NAME, records(&cluster, &[(0, 10, 1), (1, 0, 0), (2, 0, 7), (3, 0, 7)]));
    let weight = |pod: usize| {
        let ip = cluster.pod(pod).address().ip();
        let endpoints = pool.status().endpoints;
        endpoints.iter().find(|pod| pod.endpoint.address().ip() == Some(ip)).map(|pod| pod.endpoint.weight())
    };
    common::until(SOON, "the new weights are known", || [1, 2, 3].map(weight) == [Some(1), Some(100), Some(100)]).await;
    let counts = reads(&pool, &cluster, 500).await;
    println!("reads for the weights 0:7:7: {counts:?}, {} connections opened", pool.status().counters.opened - opened);
    assert!(counts.get(&1).is_none_or(|reads| *reads < 30) && counts[&2] > 150 && counts[&3] > 150, "{counts:?}");
    assert!(pool.status().counters.closed == 0, "{:?}", pool.status().counters);

    // So do new priorities.
    dns.set_records(NAME, records(&cluster, &[(0, 10, 1), (1, 20, 1), (2, 5, 1), (3, 10, 1)]));
    let priority = |pod: usize| {
        let ip = cluster.pod(pod).address().ip();
        let endpoints = pool.status().endpoints;
        endpoints.iter().find(|pod| pod.endpoint.address().ip() == Some(ip)).map(|pod| pod.endpoint.priority())
    };
    let known = || [1, 2, 3].map(priority) == [Some(20), Some(5), Some(10)];
    common::until(SOON, "the new priorities are known", known).await;
    assert_eq!(reads(&pool, &cluster, 100).await, BTreeMap::from([(2, 100)]));
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reserve_takes_over_while_the_others_are_down_and_hands_back() {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let dns = FaultDns::start().await.expect("the name server starts");
    dns.set_records(NAME, records(&cluster, &[(0, 10, 1), (1, 0, 100), (2, 0, 50)]));
    let pool = Pool::connect(&url(&cluster, &dns)).await.expect("the pool connects");
    until_healthy(&pool, 3).await;
    let only = async |pod: usize| {
        let begin = Instant::now();
        while reads(&pool, &cluster, 20).await != BTreeMap::from([(pod, 20)]) {
            assert!(begin.elapsed() < SOON, "Pod {pod} is not the only one in use: {:?}", pool.status());
        }
        begin.elapsed()
    };
    assert!(!reads(&pool, &cluster, 200).await.contains_key(&0));
    // No read fails, because another Pod with priority 0 is left, and then the reserve.
    cluster.stop(1, Shutdown::Fast).await.expect("the server stops");
    let one_left = only(2).await;
    cluster.stop(2, Shutdown::Fast).await.expect("the server stops");
    let taken_over = only(0).await;
    cluster.start_pod(1).await.expect("the server starts");
    let handed_back = only(1).await;
    println!("one left after {one_left:.1?}, taken over after {taken_over:.1?}, handed back after {handed_back:.1?}");
    assert!(taken_over < Duration::from_secs(5), "{taken_over:?}");
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_a_lookup_tells_what_was_looked_up() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let dns = FaultDns::start().await.expect("the name server starts");
    // The name exists, but it has no SRV records.
    dns.set("db.example.", &["127.0.0.2"]);
    let error = Pool::connect(&url(&cluster, &dns)).await.expect_err("the name has no SRV records");
    assert_eq!(error.kind(), Kind::Dns);
    let text = format!("{error}: {}", std::error::Error::source(&error).expect("a cause"));
    println!("{text}");
    assert!(text.contains("SRV query for _postgresql._tcp.db.example. to 127.0.0.1:"), "{text}");
    cluster.shutdown().await.expect("the cluster shuts down");
}
