//! A peer that says nothing any more is found within 8 s in any state of a connection, with every setting at its
//! default.
//!
//! A trial is one connection. One fault hits 25 connections in each state at once, five in each of five pools: each
//! connection has its own timers in the kernel, each pool its own probes. The fault is real: packets are dropped. New
//! queries get a fault of their own, as what they find out ends the waiting of the others.

use std::time::{Duration, Instant};

use podpool::{Client, Config, Pool, State, Target, testkit::Cluster};
use tokio::task::JoinSet;

use crate::{
    common::{in_state, until},
    namespace::{inside, nft},
};

const FOUND: Duration = Duration::from_secs(8);
const POOLS: usize = 5;
/// Of each pool, in each state.
const EACH: usize = 5;

/// The connections of the pools in each state.
struct Lent {
    idle: Vec<Client>,
    running: Vec<Client>,
    new: Vec<Client>,
    pooled: usize,
}

async fn lend(pools: &[Pool]) -> Lent {
    let mut lent = Lent { idle: Vec::new(), running: Vec::new(), new: Vec::new(), pooled: 0 };
    for pool in pools {
        let mut all = Vec::new();
        for _ in 0..4 * EACH {
            all.push(pool.get().await.expect("a connection"));
        }
        lent.idle.extend(all.drain(..EACH));
        lent.running.extend(all.drain(..EACH));
        lent.new.extend(all.drain(..EACH));
        lent.pooled += all.len(); // given back
    }
    lent
}

/// Every connection's port on our side.
async fn ports(pools: &[Pool]) -> Vec<i32> {
    let mut ports = Vec::new();
    for pool in pools {
        let mut all = Vec::new();
        for _ in 0..4 * EACH {
            let client = pool.get().await.expect("a connection");
            let row = client.query_one("SELECT inet_client_port()", &[]).await.expect("an answer");
            ports.push(row.get(0));
            all.push(client);
        }
    }
    ports
}

fn judge(what: &str, state: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share).round() as usize];
    println!(
        "{what}, {state}: found after p50 {:.2?}, p95 {:.2?}, max {:.2?} ({} connections)",
        at(0.5),
        at(0.95),
        at(1.0),
        took.len()
    );
    assert!(took.len() >= 20, "{}", took.len());
    assert!(at(0.95) <= FOUND, "{took:?}");
}

/// Those that wait for nothing, and those that wait for an answer.
async fn silence(what: &str, pools: &[Pool], begin: impl FnOnce()) {
    let Lent { idle, running, new, pooled } = lend(pools).await;
    // Nobody gives anything back until all is known: what the pools close meanwhile was in the pools.
    let mut queries = JoinSet::new();
    for client in running {
        queries.spawn(async move {
            client.simple_query("SELECT pg_sleep(600)").await.expect_err("the connection is lost");
            (Instant::now(), client)
        });
    }
    // Until the server has acknowledged them: then nothing is under way that could be lost.
    let busy = Instant::now();
    until(Duration::from_secs(5), "the statements run", || busy.elapsed() > Duration::from_millis(500)).await;
    let closed = || pools.iter().map(|pool| pool.status().counters.closed).sum::<u64>();
    let closed_before = closed();
    begin();
    let began = Instant::now();
    let (mut idle_found, mut pooled_found) = (vec![None; idle.len()], Vec::new());
    until(Duration::from_secs(30), "every idle connection is known to be lost", || {
        for (client, found) in idle.iter().zip(&mut idle_found) {
            if found.is_none() && client.is_closed() {
                *found = Some(began.elapsed());
            }
        }
        while (pooled_found.len() as u64) < (closed() - closed_before).min(pooled as u64) {
            pooled_found.push(began.elapsed());
        }
        idle_found.iter().all(Option::is_some) && pooled_found.len() == pooled
    })
    .await;
    judge(what, "idle, lent", idle_found.into_iter().flatten().collect());
    judge(what, "idle, in the pool", pooled_found);
    let ran = queries.join_all().await;
    judge(what, "running query", ran.iter().map(|(at, _)| *at - began).collect());
    drop((idle, new));
}

/// Those that are asked something when it has begun.
async fn question(what: &str, pools: &[Pool], begin: impl FnOnce()) {
    let lent = lend(pools).await;
    begin();
    let began = Instant::now();
    let mut asking = JoinSet::new();
    for client in lent.new {
        asking.spawn(async move {
            client.simple_query("SELECT 1").await.expect_err("the connection is lost");
            began.elapsed()
        });
    }
    judge(what, "new query", asking.join_all().await);
}

async fn pools(cluster: &Cluster) -> Vec<Pool> {
    let mut pools = Vec::new();
    for _ in 0..POOLS {
        // All of them stay open, so that it is seen when they do not.
        let config: Config = format!("{}&pool_size={}", cluster.url(), 4 * EACH).parse().expect("a URL");
        pools.push(Pool::builder(config).build().expect("a pool"));
    }
    for pool in &pools {
        pool.wait_ready(Target::Any, Duration::from_secs(10)).await.expect("ready");
    }
    pools
}

const CHAIN: &str = "add table ip podpool; add chain ip podpool drops { type filter hook input priority 0; }";

/// Nothing to the Pod and nothing from it, as when its node is gone: its probes notice, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_pod_is_found_within_8_s_in_any_state() {
    if !inside("silent_peer::a_silent_pod_is_found_within_8_s_in_any_state").await {
        return;
    }
    let cluster = Cluster::builder().pods(1).setting("max_connections", "250").start().await.expect("a cluster");
    let address = cluster.pod(0).address().ip();
    let what = "the Pod's packets are dropped";
    let begin = || {
        nft(&format!(
            "{CHAIN}; add rule ip podpool drops ip daddr {address} drop; add rule ip podpool drops ip saddr {address} drop"
        ));
    };
    let some = pools(&cluster).await;
    silence(what, &some, begin).await;
    for pool in &some {
        assert_eq!(in_state(pool, State::Healthy), 0);
    }
    drop(some);
    nft("delete table ip podpool");
    let some = pools(&cluster).await;
    question(what, &some, begin).await;
    drop(some);
    nft("delete table ip podpool");
    cluster.shutdown().await.expect("an orderly end");
}

/// Only these connections' packets, as when a firewall has forgotten them: the Pod is well, and its probes pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_connection_is_found_within_8_s_in_any_state() {
    if !inside("silent_peer::a_forgotten_connection_is_found_within_8_s_in_any_state").await {
        return;
    }
    let cluster = Cluster::builder().pods(1).setting("max_connections", "250").start().await.expect("a cluster");
    let what = "these connections' packets are dropped";
    let begin = |ports: &[i32]| {
        let set = ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        nft(&format!(
            "{CHAIN}; add rule ip podpool drops tcp sport {{ {set} }} drop; \
             add rule ip podpool drops tcp dport {{ {set} }} drop"
        ));
    };
    let some = pools(&cluster).await;
    let of = ports(&some).await;
    silence(what, &some, || begin(&of)).await;
    drop(some);
    nft("delete table ip podpool");
    let some = pools(&cluster).await;
    let of = ports(&some).await;
    question(what, &some, || begin(&of)).await;
    drop(some);
    nft("delete table ip podpool");
    cluster.shutdown().await.expect("an orderly end");
}
