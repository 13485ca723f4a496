//! Faults that must not fail a read.

use std::{
    collections::BTreeMap,
    future::Future,
    net::IpAddr,
    time::{Duration, Instant},
};

use podpool::{
    Pool, Target,
    testkit::{Cluster, Shutdown},
};
use tokio::time::timeout;

use crate::{
    common::{
        paced::{Paced, Request, Spread, failures},
        until,
    },
    proxy::Proxy,
    stage::{addresses, alone, pool, row, state_of, warm},
};

/// Requests after the fault that still belong to it.
const AFTER: usize = 1500;

/// Does something bad to a Pod under load and asserts that no read fails.
async fn survives<F, Fut>(what: &str, pool: Pool, pods: &[IpAddr], victim: IpAddr, fault: F)
where
    F: FnOnce() -> Fut,
    Fut: Future<Output = ()>,
{
    let load = Paced::start(&pool, Target::Any);
    warm(&load, pods).await;
    let began = Instant::now();
    fault().await;
    let count = load.count();
    until(Duration::from_secs(30), "the load goes on", || load.count() >= count + AFTER).await;
    let state = state_of(&pool, victim).map_or("gone", |state| state.as_str());
    let retries = pool.status().counters.retries;
    let requests = load.stop().await;
    let since: Vec<Request> = requests.into_iter().filter(|request| request.done >= began).collect();
    let checkouts = Spread::new(since.iter().filter_map(Request::checkout));
    let whole = Spread::new(since.iter().map(Request::took));
    println!("{what}: the Pod is {state}; {retries} repetitions; checkouts: {checkouts}; requests: {whole}");
    assert_eq!(failures(&since), BTreeMap::new(), "{what}");
    row(what, &format!("no failed read, {retries} repeated"), &format!("slowest read {:.1?}", whole.at(1.0)));
    drop(pool);
}

/// A cluster whose DNS follows the Pods' readiness, or does not.
async fn cluster(dns_follows: bool) -> (Cluster, &'static str) {
    let cluster = Cluster::builder().follow_readiness(dns_follows).start().await.expect("a cluster");
    (cluster, if dns_follows { "DNS follows" } else { "DNS stale" })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_pod_fails_no_read() {
    let _alone = alone().await;
    for dns_follows in [false, true] {
        let (cluster, dns) = cluster(dns_follows).await;
        let pods = addresses(&cluster);
        let kill = || async { cluster.kill(1).await.expect("SIGKILL") };
        survives(&format!("SIGKILL, {dns}"), pool(&cluster).await, &pods, pods[1], kill).await;
        cluster.shutdown().await.expect("an orderly end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fast_shutdown_fails_no_read() {
    let _alone = alone().await;
    for dns_follows in [false, true] {
        let (cluster, dns) = cluster(dns_follows).await;
        let pods = addresses(&cluster);
        let stop = || async { cluster.stop(1, Shutdown::Fast).await.expect("a fast shutdown") };
        survives(&format!("fast shutdown, {dns}"), pool(&cluster).await, &pods, pods[1], stop).await;
        cluster.shutdown().await.expect("an orderly end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_smart_shutdown_fails_no_read() {
    let _alone = alone().await;
    for dns_follows in [false, true] {
        let (cluster, dns) = cluster(dns_follows).await;
        let pods = addresses(&cluster);
        let stop = || async {
            // While the Pod is named and answers, the sessions stay, and the server waits for them.
            match timeout(Duration::from_secs(8), cluster.stop(1, Shutdown::Smart)).await {
                Ok(stopped) => stopped.expect("a smart shutdown"),
                Err(_) => assert!(!dns_follows, "the server waits for a session of a Pod that is gone from DNS"),
            }
        };
        survives(&format!("smart shutdown, {dns}"), pool(&cluster).await, &pods, pods[1], stop).await;
        cluster.shutdown().await.expect("an orderly end");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminated_backends_fail_no_read() {
    let _alone = alone().await;
    let (cluster, dns) = cluster(false).await;
    let pods = addresses(&cluster);
    let superuser = cluster.client(1).await.expect("a superuser's connection");
    let user = cluster.user();
    let terminate = || async {
        let all = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1";
        let ended: i64 = superuser.query_one(all, &[&user]).await.expect("an answer").get(0);
        println!("{ended} backends ended");
        assert!(ended > 0);
    };
    survives(&format!("pg_terminate_backend, {dns}"), pool(&cluster).await, &pods, pods[1], terminate).await;
    drop(superuser);
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reset_connections_fail_no_read() {
    let _alone = alone().await;
    let (cluster, dns) = cluster(false).await;
    // Pod 1 is named by the address of a proxy that can reset what it carries.
    let real = cluster.pod(1).address();
    let proxy = Proxy::start(real).await;
    cluster.unpublish(1).expect("out of DNS");
    cluster.dns().add(cluster.service(), podpool::Endpoint::new(proxy.address())).expect("the proxy in DNS");
    let reset = || async {
        let count = proxy.reset();
        println!("{count} connections reset");
        assert!(count > 0);
    };
    let mut pods = addresses(&cluster);
    pods[1] = proxy.address().ip();
    survives(&format!("RST of all connections, {dns}"), pool(&cluster).await, &pods, pods[1], reset).await;
    cluster.shutdown().await.expect("an orderly end");
}
