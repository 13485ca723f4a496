//! Tests that a checkout exceeds its deadline by at most 50 ms, however the server misbehaves.
//!
//! Each case makes three checkouts from each of several pools. The first checkout starts before the pool has the result
//! of any connection attempt, and the others start after the first one has failed. Each pool uses a different deadline.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use podpool::{Config, Error, Kind, Pool, Target, testkit::Cluster};

use crate::{
    common::until,
    namespace::{inside, nft},
    server::{Behavior, Server},
};

/// Maximum time by which 95 % of the calls may exceed their deadline.
const LATE: Duration = Duration::from_millis(50);
/// Number of pools per case. Each makes three calls.
const POOLS: u64 = 16;

/// The result of one checkout.
struct Call {
    /// Time by which the call exceeded its deadline, or zero.
    late: Duration,
    error: Option<Error>,
}

async fn call(pool: &Pool, within: Duration) -> Call {
    let began = Instant::now();
    let error = pool.wait_ready(Target::Any, within).await.err();
    Call { late: began.elapsed().saturating_sub(within), error }
}

/// Makes three calls on each pool, the second and third concurrently, with deadlines from 100 ms to about one second.
async fn calls(pools: &[Pool]) -> Vec<Call> {
    let calls = pools.iter().enumerate().map(|(i, pool)| async move {
        let within = Duration::from_millis(100 + 57 * i as u64);
        let first = call(pool, within).await;
        let (second, third) = tokio::join!(call(pool, within), call(pool, Duration::from_millis(300)));
        [first, second, third]
    });
    join_all(calls).await.into_iter().flatten().collect()
}

/// Asserts that 95 % of the calls ended in time, and prints the distribution and one error.
fn assert_in_time(case: &str, calls: &[Call]) {
    let mut late: Vec<_> = calls.iter().map(|call| call.late).collect();
    late.sort();
    let at = |share: f64| late[((late.len() - 1) as f64 * share).round() as usize];
    let served = calls.iter().filter(|call| call.error.is_none()).count();
    println!(
        "{case}: {} calls, {served} served; beyond the deadline p50 {:.2?}, p95 {:.2?}, max {:.2?}",
        calls.len(),
        at(0.5),
        at(0.95),
        at(1.0)
    );
    if let Some(error) = calls.iter().rev().find_map(|call| call.error.as_ref()) {
        println!("  {error}");
    }
    assert!(calls.len() >= 20, "{case}: too few calls: {}", calls.len());
    assert!(at(0.95) <= LATE, "{case}: more than 5 % of the calls exceeded the deadline by {LATE:?}: {late:?}");
}

/// Creates `count` pools. Their connect timeouts vary from shorter to longer than the deadlines of the calls.
fn pools(url: &str, count: u64) -> Vec<Pool> {
    let pool = |i| {
        let timeout = [80, 400, 2000][i as usize % 3];
        let config: Config = format!("{url}&pool_size=2&connect_timeout={timeout}ms").parse().expect("the URL parses");
        Pool::builder(config).build().expect("the pool is created")
    };
    (0..count).map(pool).collect()
}

/// Checks out connections from a misbehaving server and asserts that the calls end in time. Unless `reasons` is empty,
/// at least one error must contain one of these texts.
async fn test_server(behavior: Behavior, reasons: &[&str]) {
    let server = Server::start(behavior).await;
    // Clients of a flooding server use much CPU time, and all pools share the few threads of this process. The test
    // therefore uses fewer pools if the server floods its clients.
    let floods = matches!(
        behavior,
        Behavior::Garbage
            | Behavior::GarbageBodies
            | Behavior::HugeMessage
            | Behavior::EndlessNotices
            | Behavior::EndlessParameters
            | Behavior::EndlessRows
    );
    let pools = pools(&server.url("sslmode=prefer"), if floods { POOLS / 2 } else { POOLS });
    let calls = calls(&pools).await;
    assert_in_time(&format!("{behavior:?}"), &calls);
    let address = server.address().to_string();
    for error in calls.iter().filter_map(|call| call.error.as_ref()) {
        let named = error.attempts().iter().any(|attempt| attempt.address().to_string() == address);
        assert!(named || error.kind() == Kind::Dns, "{behavior:?}: the error does not name the Pod: {error}");
    }
    if !reasons.is_empty() {
        let errors: Vec<_> = calls.iter().filter_map(|call| call.error.as_ref()).map(ToString::to_string).collect();
        let clear = errors.iter().filter(|error| reasons.iter().any(|reason| error.contains(reason))).count();
        println!("  {clear} of {} errors contain the reason", errors.len());
        assert!(clear > 0, "{behavior:?}: no error contains any of {reasons:?}, last error: {:?}", errors.last());
    }
}

/// Defines a module with two tests for each behavior. The arguments are the name of the module, the behavior, and a
/// list of texts. At least one error must contain one of these texts.
macro_rules! misbehaving_servers {
    ($($name:ident: $behavior:ident, $reasons:expr;)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test(flavor = "current_thread")]
            async fn checkout_meets_its_deadline_on_one_thread() {
                test_server(Behavior::$behavior, &$reasons).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn checkout_meets_its_deadline_on_many_threads() {
                test_server(Behavior::$behavior, &$reasons).await;
            }
        }
    )*};
}

misbehaving_servers! {
    refused_connections: RefusesConnections, ["failed in tcp"];
    full_accept_queue: NeverAccepts, ["failed in tcp: no response within"];
    closed_connections: Closes, ["failed in tls"];
    reset_connections: Resets, ["failed in tls", "failed in tcp"];
    no_response: NeverResponds, ["failed in tls: no response within"];
    no_response_after_tls_request: StallsAfterTlsRequest, ["failed in tls: no response within"];
    partial_tls_handshake: PartialServerHello, ["failed in tls: no response within"];
    no_response_after_sasl_request: StallsAfterSaslRequest, ["failed in startup: no response within"];
    partial_sasl_message: PartialSaslMessage, ["failed in startup: no response within"];
    partial_startup: PartialStartup, ["failed in startup: no response within"];
    no_response_after_startup: StallsAfterStartup, [];
    closed_after_startup: ClosesAfterStartup, [];
    startup_of_one_byte_per_200_ms: DripsStartup, ["failed in startup: no response within"];
    responses_of_one_byte_per_200_ms: DripsResponses, [];
    random_bytes: Garbage, ["failed in tls"];
    random_message_bodies: GarbageBodies, ["failed in startup"];
    server_starting_up_57p03: StartingUp, ["the database system is starting up"];
    too_many_clients_53300: Full, ["too many clients"];
    two_billion_scram_iterations: ManyScramRounds, ["2000000000 SCRAM iterations"];
    message_of_two_gigabytes: HugeMessage, ["message `S` of 2000000000 bytes, limit 30000"];
    endless_notices: EndlessNotices, ["response longer than"];
    endless_parameters: EndlessParameters, ["more than 128 parameters"];
    endless_rows: EndlessRows, [];
}

/// Creates pools with open connections to one Pod. In half of the pools, the connections have been idle for long enough
/// that the next checkout pings them.
async fn warm(cluster: &Cluster) -> Vec<Pool> {
    let pools = pools(&cluster.url(), POOLS);
    for pool in &pools {
        pool.wait_ready(Target::Any, Duration::from_secs(10)).await.expect("a Pod is ready");
    }
    let idle = || pools.iter().all(|pool| pool.status().endpoints.iter().all(|pod| pod.idle > 0));
    until(Duration::from_secs(10), "every pool has an idle connection", idle).await;
    let idle_since = Instant::now();
    let long_idle = || idle_since.elapsed() > Duration::from_millis(1300);
    until(Duration::from_secs(5), "the connections have been idle for 1.3 s", long_idle).await;
    for pool in &pools[..pools.len() / 2] {
        drop(pool.get().await.expect("checkout succeeds"));
    }
    pools
}

/// Makes calls while the server is stopped (SIGSTOP), on pools with open connections and on new pools.
async fn stop_server() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let pools = warm(&cluster).await;
    cluster.pause(0).await.expect("SIGSTOP is sent");
    let mut all = calls(&pools).await;
    all.extend(calls(&self::pools(&cluster.url(), 8)).await);
    assert_in_time("SIGSTOP", &all);
    drop(pools);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "current_thread")]
async fn checkout_deadline_holds_with_a_hung_server_on_one_thread() {
    stop_server().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkout_deadline_holds_with_a_hung_server_on_many_threads() {
    stop_server().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkout_meets_its_deadline_if_packets_are_dropped() {
    if !inside("deadline::checkout_meets_its_deadline_if_packets_are_dropped").await {
        return;
    }
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let pools = warm(&cluster).await;
    let address = cluster.pod(0).address().ip();
    nft(&format!(
        "add table ip podpool; add chain ip podpool drops {{ type filter hook input priority 0; }}; \
         add rule ip podpool drops ip daddr {address} drop; add rule ip podpool drops ip saddr {address} drop"
    ));
    let mut all = calls(&pools).await;
    all.extend(calls(&self::pools(&cluster.url(), 8)).await);
    assert_in_time("dropped packets", &all);
    nft("delete table ip podpool");
    drop(pools);
    cluster.shutdown().await.expect("the cluster shuts down");
}
