//! `get` never outlives its deadline by more than 50 ms, whatever the server does.
//!
//! A trial is one `get` on a pool of its own, with a deadline of its own, at a moment of its own in the life of the pool:
//! while nothing is known of the Pod, and when something is.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use podpool::{Config, Error, Kind, Pool, Target, testkit::Cluster};

use crate::{
    common::until,
    namespace::{inside, nft},
    server::{Manner, Server},
};

/// How much later than promised.
const LATE: Duration = Duration::from_millis(50);
/// Pools, each with three calls.
const POOLS: u64 = 16;

/// What came of one call.
struct Trial {
    /// Beyond the deadline; nothing, where it ended before.
    late: Duration,
    error: Option<Error>,
}

async fn call(pool: &Pool, within: Duration) -> Trial {
    let began = Instant::now();
    let error = pool.wait_ready(Target::Any, within).await.err();
    Trial { late: began.elapsed().saturating_sub(within), error }
}

/// Calls with deadlines from 100 ms to about a second, three on each pool, the second and third at once.
async fn calls(pools: &[Pool]) -> Vec<Trial> {
    let trials = pools.iter().enumerate().map(|(i, pool)| async move {
        let within = Duration::from_millis(100 + 57 * i as u64);
        let first = call(pool, within).await;
        let (second, third) = tokio::join!(call(pool, within), call(pool, Duration::from_millis(300)));
        [first, second, third]
    });
    join_all(trials).await.into_iter().flatten().collect()
}

/// 19 of 20 calls ended in time, and what they said.
fn judge(what: &str, trials: &[Trial]) {
    let mut late: Vec<_> = trials.iter().map(|trial| trial.late).collect();
    late.sort();
    let at = |share: f64| late[((late.len() - 1) as f64 * share).round() as usize];
    let served = trials.iter().filter(|trial| trial.error.is_none()).count();
    println!(
        "{what}: {} calls, {served} served; beyond the deadline p50 {:.2?}, p95 {:.2?}, max {:.2?}",
        trials.len(),
        at(0.5),
        at(0.95),
        at(1.0)
    );
    if let Some(error) = trials.iter().rev().find_map(|trial| trial.error.as_ref()) {
        println!("  {error}");
    }
    assert!(trials.len() >= 20);
    assert!(at(0.95) <= LATE, "{late:?}");
}

fn pools(url: &str, count: u64) -> Vec<Pool> {
    // Dials that end before a call's deadline, and dials that do not.
    let pool = |i| {
        let timeout = [80, 400, 2000][i as usize % 3];
        let config: Config = format!("{url}&pool_size=2&connect_timeout={timeout}ms").parse().expect("a URL");
        Pool::builder(config).build().expect("a pool")
    };
    (0..count).map(pool).collect()
}

async fn hostile(manner: Manner, says: &[&str]) {
    let server = Server::start(manner).await;
    // A flood takes processor time, and all of these share the two threads of this process.
    let floods = matches!(
        manner,
        Manner::Garbage
            | Manner::GarbageBodies
            | Manner::AnnouncesMuch
            | Manner::EndlessNotices
            | Manner::EndlessParameters
            | Manner::EndlessRows
    );
    let pools = pools(&server.url("sslmode=prefer"), if floods { POOLS / 2 } else { POOLS });
    let trials = calls(&pools).await;
    judge(&format!("{manner:?}"), &trials);
    let address = server.address().to_string();
    for error in trials.iter().filter_map(|trial| trial.error.as_ref()) {
        let named = error.attempts().iter().any(|attempt| attempt.address().to_string() == address);
        assert!(named || error.kind() == Kind::Dns, "the Pod is not named: {error}");
    }
    if !says.is_empty() {
        let said: Vec<_> = trials.iter().filter_map(|trial| trial.error.as_ref()).map(ToString::to_string).collect();
        let clear = said.iter().filter(|said| says.iter().any(|why| said.contains(why))).count();
        println!("  {clear} of {} errors say why", said.len());
        assert!(clear > 0, "none of {says:?} in {:?}", said.last());
    }
}

macro_rules! hostile {
    ($($name:ident: $manner:ident, $says:expr;)*) => {$(
        mod $name {
            use super::*;

            #[tokio::test(flavor = "current_thread")]
            async fn on_one_thread() {
                hostile(Manner::$manner, &$says).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn on_many_threads() {
                hostile(Manner::$manner, &$says).await;
            }
        }
    )*};
}

hostile! {
    a_server_that_refuses: Refuses, ["failed in tcp"];
    a_server_that_never_accepts: NeverAccepts, ["failed in tcp: no answer within"];
    a_server_that_closes: Closes, ["failed in tls"];
    a_server_that_resets: Resets, ["failed in tls", "failed in tcp"];
    a_server_that_is_silent: Silent, ["failed in tls: no answer within"];
    a_server_that_agrees_to_tls_and_is_silent: TlsThenSilent, ["failed in tls: no answer within"];
    half_a_tls_handshake: HalfServerHello, ["failed in tls: no answer within"];
    a_server_that_asks_for_scram_and_is_silent: ScramThenSilent, ["failed in startup: no answer within"];
    half_an_authentication: HalfScram, ["failed in startup: no answer within"];
    half_a_start_up: HalfStartup, ["failed in startup: no answer within"];
    a_server_that_is_ready_and_then_silent: ReadyThenSilent, [];
    a_server_that_is_ready_and_then_closes: ReadyThenCloses, [];
    one_byte_each_200_ms: Drips, ["failed in startup: no answer within"];
    answers_of_one_byte_each_200_ms: AnswersDrip, [];
    garbage: Garbage, ["failed in tls"];
    garbage_in_messages: GarbageBodies, ["failed in startup"];
    starting_up_57p03: StartingUp, ["the database system is starting up"];
    full_53300: Full, ["too many clients"];
    scram_of_two_thousand_million_rounds: ManyRounds, ["2000000000 rounds of SCRAM"];
    a_message_of_two_gigabytes: AnnouncesMuch, ["announces a message `S` of 2000000000 bytes"];
    endless_notices: EndlessNotices, ["an answer is longer than"];
    endless_parameters: EndlessParameters, ["more than 128 parameters"];
    endless_rows: EndlessRows, [];
}

/// Pools that are warm, to one Pod, when something happens to it; half of them have rested and want a ping.
async fn warm(cluster: &Cluster) -> Vec<Pool> {
    let pools = pools(&cluster.url(), POOLS);
    for pool in &pools {
        pool.wait_ready(Target::Any, Duration::from_secs(10)).await.expect("ready");
    }
    let idle = || pools.iter().all(|pool| pool.status().endpoints.iter().all(|pod| pod.idle > 0));
    until(Duration::from_secs(10), "every pool is warm", idle).await;
    let rested = Instant::now();
    until(Duration::from_secs(5), "they have rested", || rested.elapsed() > Duration::from_millis(1300)).await;
    for pool in &pools[..pools.len() / 2] {
        drop(pool.get().await.expect("a connection"));
    }
    pools
}

async fn stopped() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let pools = warm(&cluster).await;
    cluster.pause(0).await.expect("SIGSTOP");
    let mut trials = calls(&pools).await;
    trials.extend(calls(&self::pools(&cluster.url(), 8)).await);
    judge("SIGSTOP", &trials);
    drop(pools);
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "current_thread")]
async fn a_stopped_server_on_one_thread() {
    stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_on_many_threads() {
    stopped().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole() {
    if !inside("deadline::a_black_hole").await {
        return;
    }
    let cluster = Cluster::start(1).await.expect("a cluster");
    let pools = warm(&cluster).await;
    let address = cluster.pod(0).address().ip();
    nft(&format!(
        "add table ip podpool; add chain ip podpool drops {{ type filter hook input priority 0; }}; \
         add rule ip podpool drops ip daddr {address} drop; add rule ip podpool drops ip saddr {address} drop"
    ));
    let mut trials = calls(&pools).await;
    trials.extend(calls(&self::pools(&cluster.url(), 8)).await);
    judge("black hole", &trials);
    nft("delete table ip podpool");
    drop(pools);
    cluster.shutdown().await.expect("an orderly end");
}
