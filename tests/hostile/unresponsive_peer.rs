//! Tests that a lost connection is detected within 8 s in any state, with default settings.
//!
//! The tests drop packets. Each fault affects 25 connections in each state: five in each of five pools, because each
//! connection has its own kernel timers and each pool has its own probes. Queries that are sent during the fault are
//! tested separately, because their failure would reveal the fault to the pool and end the wait on other connections.

use std::time::{Duration, Instant};

use podpool::{Client, Config, Pool, State, Target, testkit::Cluster};
use tokio::task::JoinSet;

use crate::{
    common::{in_state, until},
    namespace::{inside, nft},
};

/// Maximum time until 95 % of the lost connections are detected.
const DETECTED: Duration = Duration::from_secs(8);
const POOLS: usize = 5;
/// Number of connections per pool in each state.
const EACH: usize = 5;

/// Connections of all pools, by state.
struct Connections {
    /// Checked out, with no query running.
    idle: Vec<Client>,
    /// Checked out, for queries that are running when the fault begins.
    running: Vec<Client>,
    /// Checked out, for queries that are sent during the fault.
    new: Vec<Client>,
    /// Number of connections that are idle in the pools.
    pooled: usize,
}

async fn check_out(pools: &[Pool]) -> Connections {
    let mut connections = Connections { idle: Vec::new(), running: Vec::new(), new: Vec::new(), pooled: 0 };
    for pool in pools {
        let mut all = Vec::new();
        for _ in 0..4 * EACH {
            all.push(pool.get().await.expect("checkout succeeds"));
        }
        connections.idle.extend(all.drain(..EACH));
        connections.running.extend(all.drain(..EACH));
        connections.new.extend(all.drain(..EACH));
        connections.pooled += all.len(); // returned at the end of this block
    }
    connections
}

/// Returns the client port of every connection in the pools.
async fn ports(pools: &[Pool]) -> Vec<i32> {
    let mut ports = Vec::new();
    for pool in pools {
        let mut all = Vec::new();
        for _ in 0..4 * EACH {
            let client = pool.get().await.expect("checkout succeeds");
            let row = client.query_one("SELECT inet_client_port()", &[]).await.expect("the query succeeds");
            ports.push(row.get(0));
            all.push(client);
        }
    }
    ports
}

/// Asserts that at least 20 connections were detected, 95 % of them in time.
fn assert_detected(fault: &str, state: &str, mut took: Vec<Duration>) {
    took.sort();
    let at = |share: f64| took[((took.len() - 1) as f64 * share).round() as usize];
    println!(
        "{fault}, {state}: detected after p50 {:.2?}, p95 {:.2?}, max {:.2?} ({} connections)",
        at(0.5),
        at(0.95),
        at(1.0),
        took.len()
    );
    assert!(took.len() >= 20, "{fault}, {state}: expected at least 20 connections, got {}", took.len());
    assert!(at(0.95) <= DETECTED, "{fault}, {state}: detected too late: {took:?}");
}

/// Measures the detection of lost connections that are idle or have a query running. `begin` starts the fault.
async fn measure_waiting(fault: &str, pools: &[Pool], begin: impl FnOnce()) {
    let Connections { idle, running, new, pooled } = check_out(pools).await;
    // No checked-out connection is returned before all losses are detected, so every connection that a pool closes
    // until then was idle in the pool.
    let mut queries = JoinSet::new();
    for client in running {
        queries.spawn(async move {
            client.simple_query("SELECT pg_sleep(600)").await.expect_err("the connection is lost");
            (Instant::now(), client)
        });
    }
    // Waits until the server has acknowledged the queries, so that no unacknowledged data is in flight.
    let busy = Instant::now();
    until(Duration::from_secs(5), "the queries have run for 500 ms", || busy.elapsed() > Duration::from_millis(500))
        .await;
    let closed = || pools.iter().map(|pool| pool.status().counters.closed).sum::<u64>();
    let closed_before = closed();
    begin();
    let began = Instant::now();
    let (mut idle_detected, mut pooled_detected) = (vec![None; idle.len()], Vec::new());
    until(Duration::from_secs(30), "every lost idle connection is detected", || {
        for (client, detected) in idle.iter().zip(&mut idle_detected) {
            if detected.is_none() && client.is_closed() {
                *detected = Some(began.elapsed());
            }
        }
        while (pooled_detected.len() as u64) < (closed() - closed_before).min(pooled as u64) {
            pooled_detected.push(began.elapsed());
        }
        idle_detected.iter().all(Option::is_some) && pooled_detected.len() == pooled
    })
    .await;
    assert_detected(fault, "idle, checked out", idle_detected.into_iter().flatten().collect());
    assert_detected(fault, "idle, in the pool", pooled_detected);
    let ran = queries.join_all().await;
    assert_detected(fault, "running query", ran.iter().map(|(at, _)| *at - began).collect());
    drop((idle, new));
}

/// Measures the time until queries fail that are sent during the fault.
async fn measure_new_queries(fault: &str, pools: &[Pool], begin: impl FnOnce()) {
    let connections = check_out(pools).await;
    begin();
    let began = Instant::now();
    let mut queries = JoinSet::new();
    for client in connections.new {
        queries.spawn(async move {
            client.simple_query("SELECT 1").await.expect_err("the connection is lost");
            began.elapsed()
        });
    }
    assert_detected(fault, "new query", queries.join_all().await);
}

async fn pools(cluster: &Cluster) -> Vec<Pool> {
    let mut pools = Vec::new();
    for _ in 0..POOLS {
        // The pool keeps this many connections open, so every closed connection is a detected loss.
        let config: Config = format!("{}&pool_size={}", cluster.url(), 4 * EACH).parse().expect("the URL parses");
        pools.push(Pool::builder(config).build().expect("the pool is created"));
    }
    for pool in &pools {
        pool.wait_ready(Target::Any, Duration::from_secs(10)).await.expect("a Pod is ready");
    }
    pools
}

const CHAIN: &str = "add table ip podpool; add chain ip podpool drops { type filter hook input priority 0; }";

/// Drops all packets to and from the Pod, as when its node fails. Probes fail as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_to_an_unreachable_pod_fail_within_8_s() {
    if !inside("unresponsive_peer::connections_to_an_unreachable_pod_fail_within_8_s").await {
        return;
    }
    let cluster =
        Cluster::builder().pods(1).setting("max_connections", "250").start().await.expect("the cluster starts");
    let address = cluster.pod(0).address().ip();
    let fault = "the Pod's packets are dropped";
    let begin = || {
        nft(&format!(
            "{CHAIN}; add rule ip podpool drops ip daddr {address} drop; \
             add rule ip podpool drops ip saddr {address} drop"
        ));
    };
    let first = pools(&cluster).await;
    measure_waiting(fault, &first, begin).await;
    for pool in &first {
        assert_eq!(in_state(pool, State::Healthy), 0, "the unreachable Pod is still healthy");
    }
    drop(first);
    nft("delete table ip podpool");
    let second = pools(&cluster).await;
    measure_new_queries(fault, &second, begin).await;
    drop(second);
    nft("delete table ip podpool");
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Drops only the packets of the open connections, as when a firewall loses its connection table. Probes succeed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_connections_fail_within_8_s_while_probes_succeed() {
    if !inside("unresponsive_peer::lost_connections_fail_within_8_s_while_probes_succeed").await {
        return;
    }
    let cluster =
        Cluster::builder().pods(1).setting("max_connections", "250").start().await.expect("the cluster starts");
    let fault = "the connections' packets are dropped";
    let begin = |ports: &[i32]| {
        let set = ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        nft(&format!(
            "{CHAIN}; add rule ip podpool drops tcp sport {{ {set} }} drop; \
             add rule ip podpool drops tcp dport {{ {set} }} drop"
        ));
    };
    let first = pools(&cluster).await;
    let affected = ports(&first).await;
    measure_waiting(fault, &first, || begin(&affected)).await;
    drop(first);
    nft("delete table ip podpool");
    let second = pools(&cluster).await;
    let affected = ports(&second).await;
    measure_new_queries(fault, &second, || begin(&affected)).await;
    drop(second);
    nft("delete table ip podpool");
    cluster.shutdown().await.expect("the cluster shuts down");
}
