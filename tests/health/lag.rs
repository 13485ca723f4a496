//! Tests `max_lag`: a standby whose replication lag exceeds the limit is reported as late and receives no reads. A
//! standby that keeps up is never reported as late.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use podpool::{Events, Pool, State, Target, testkit::Cluster};

use crate::{
    common::{
        in_state,
        paced::{Paced, Request, Spread, failures},
        until,
    },
    setup::{addresses, pool_of, row, run_alone, state_of},
};

/// `max_lag` of the pools in these tests.
const LIMIT: Duration = Duration::from_secs(2);
/// Number of standbys whose replay is paused.
const VICTIMS: usize = 5;
/// Number of pauses per standby.
const ROUNDS: usize = 4;

/// Returns a pool with `max_lag=2s` and additional URL parameters.
async fn limited(cluster: &Cluster, parameters: &str) -> Pool {
    pool_of(&format!("{}&max_lag=2s{parameters}", cluster.url()), cluster.len()).await
}

/// Returns true if the pool reports the Pod at this address as late.
fn is_late(pool: &Pool, address: IpAddr) -> bool {
    pool.status().endpoints.iter().any(|pod| pod.endpoint.address().tcp().unwrap().ip() == address && pod.late)
}

/// Returns an upper bound on the time until the next probe of a healthy Pod has completed: the probe interval with its
/// jitter of 20 %, plus two probe timeouts.
fn one_probe(pool: &Pool) -> Duration {
    let limits = pool.config().limits();
    limits.probe_interval.mul_f64(1.2) + limits.probe_timeout * 2
}

/// A task that inserts a row on the primary ten times per second. Dropping this stops the task.
pub struct Writing(tokio::task::JoinHandle<()>);

impl Writing {
    pub async fn start(cluster: &Cluster) -> Self {
        let primary = cluster.primary().expect("the cluster has a primary");
        let primary = cluster.client(primary).await.expect("the superuser connects");
        primary.batch_execute("CREATE TABLE IF NOT EXISTS written (n int)").await.expect("the table is created");
        Self(tokio::spawn(async move {
            // The loop ends when the server is killed.
            while primary.batch_execute("INSERT INTO written VALUES (1)").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }))
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Returns the events with this name that have been emitted since the last call.
async fn events_of(events: &mut Events, name: &str) -> Vec<String> {
    let mut found = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(50), events.next()).await {
        let event = event.expect("no event is lost");
        found.extend((event.name() == name).then(|| event.to_string()));
    }
    found
}

/// Resumes WAL replay on a standby if `on` is set, and pauses it otherwise.
pub async fn set_replay(cluster: &Cluster, ordinal: usize, on: bool) {
    let superuser = cluster.client(ordinal).await.expect("the superuser connects");
    let call = if on { "SELECT pg_wal_replay_resume()" } else { "SELECT pg_wal_replay_pause()" };
    superuser.batch_execute(call).await.expect("replay is paused or resumed");
}

/// Measurements of one pause of a standby's replay.
struct Pause {
    standby: IpAddr,
    /// Time from the pause until the pool reported the standby as late.
    out: Duration,
    /// Time at which the pool reported the standby as late.
    detected: Instant,
    resumed: Instant,
    /// Time from the end of the pause until the standby served again.
    back: Duration,
}

/// Pauses a standby's replay [`ROUNDS`] times, each time at a random moment between two probes.
async fn pause_repeatedly(cluster: &Cluster, pool: &Pool, load: &Paced, ordinal: usize) -> Vec<Pause> {
    let standby = addresses(cluster)[ordinal];
    let mut pauses = Vec::new();
    for _ in 0..ROUNDS {
        let since = Instant::now();
        until(Duration::from_secs(20), "the standby answers requests", || load.answered_since(standby, since)).await;
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..2000))).await;
        set_replay(cluster, ordinal, false).await;
        let paused = Instant::now();
        until(Duration::from_secs(20), "the standby is late", || is_late(pool, standby)).await;
        let detected = Instant::now();
        let count = load.count();
        until(Duration::from_secs(10), "500 requests complete", || load.count() > count + 500).await;
        let resumed = Instant::now();
        set_replay(cluster, ordinal, true).await;
        let serves = || load.answered_since(standby, resumed);
        until(Duration::from_secs(20), "the standby answers requests again", serves).await;
        pauses.push(Pause { standby, out: detected - paused, detected, resumed, back: resumed.elapsed() });
    }
    pauses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lagging_standby_receives_no_reads_after_the_next_probe() {
    let _alone = run_alone().await;
    // One standby is never paused, so that it can serve the reads.
    let cluster = Cluster::start(VICTIMS + 2).await.expect("the cluster starts");
    let pool = limited(&cluster, "").await;
    let load = Paced::start(&pool, Target::Standby);
    // The primary does not write at a constant rate between two probes.
    let superuser = cluster.client(0).await.expect("the superuser connects");
    let burst = "CREATE TABLE burst AS SELECT generate_series(1, 200000) AS n";
    superuser.batch_execute(burst).await.expect("the table is filled");
    let writing = Writing::start(&cluster).await;
    let pauses: Vec<Pause> = join_all((1..=VICTIMS).map(|standby| pause_repeatedly(&cluster, &pool, &load, standby)))
        .await
        .into_iter()
        .flatten()
        .collect();
    let requests = load.stop().await;
    let out = Spread::new(pauses.iter().map(|pause| pause.out));
    let back = Spread::new(pauses.iter().map(|pause| pause.back));
    let bound = LIMIT + one_probe(&pool);
    println!(
        "replay paused {} times: late after {out} (limit plus one probe: {bound:.2?}); back after {back}",
        out.len()
    );
    assert_eq!(failures(&requests), BTreeMap::new(), "failed reads");
    row(
        "a standby stops replaying, `max_lag=2s`",
        "no reads on that standby after the next probe",
        &format!(
            "out {:.1?} after replay stopped, back {:.1?} after it resumed (p95 of {})",
            out.at(0.95),
            back.at(0.95),
            out.len()
        ),
    );
    for Pause { standby, detected, resumed, .. } in &pauses {
        // Checkouts in flight may still use a snapshot of the Pods from before the detection.
        let grace = *detected + Duration::from_millis(50);
        let attempts = requests.iter().flat_map(|request| &request.attempts);
        let paused = |at: Instant| at > grace && at < *resumed;
        let reads = attempts.filter(|one| one.address == *standby && paused(one.checked_out)).count();
        assert_eq!(reads, 0, "reads on a standby that the pool reported as late");
    }
    assert!(out.len() >= 20, "too few pauses: {}", out.len());
    assert!(out.at(0.95) < bound, "late standbys were detected after more than {bound:.2?}: {out}");
    assert!(back.at(0.95) < one_probe(&pool) * 2, "standbys served again too late: {back}");
    drop((superuser, writing, pool));
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn standbys_of_an_idle_primary_are_not_late_and_those_of_a_dead_one_are_after_the_limit() {
    let _alone = run_alone().await;
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let pods = addresses(&cluster);
    let pool = limited(&cluster, "&max_lag_bytes=1048576").await;
    let load = Paced::start(&pool, Target::Standby);
    let mut late = BTreeSet::new();
    let mut watch = async |phase: &str, time: Duration| {
        let end = Instant::now() + time;
        let check = || {
            late.extend(pods.iter().filter(|pod| is_late(&pool, **pod)).map(|pod| format!("{pod}, {phase}")));
            Instant::now() > end
        };
        until(time * 2, phase, check).await;
    };
    // Watches the idle cluster for longer than `max_lag`, and for long enough that two probes complete.
    watch("idle", LIMIT + one_probe(&pool) * 2).await;
    // At the first write after an idle period, the last replayed transaction is old although the standby does not lag.
    let primary = cluster.client(0).await.expect("the superuser connects");
    primary.batch_execute("CREATE TABLE written (n int)").await.expect("the table is created");
    watch("first write after an idle period", one_probe(&pool)).await;
    let writing = Writing::start(&cluster).await;
    watch("writes", one_probe(&pool)).await;
    cluster.kill(0).await.expect("SIGKILL is sent");
    let killed = Instant::now();
    watch("dead primary", LIMIT).await;
    for &pod in &pods[1..] {
        assert!(load.answered_since(pod, killed), "standby {pod} answered no requests after the primary died");
    }
    let requests = load.stop().await;
    println!("{} reads on the standbys; late: {late:?}", requests.len());
    assert_eq!(late, BTreeSet::new(), "late standbys");
    assert_eq!(failures(&requests), BTreeMap::new(), "failed reads");
    // Without an upstream server, a standby may lack writes that the pool cannot see.
    let all_late = || pods[1..].iter().all(|pod| is_late(&pool, *pod));
    until(Duration::from_secs(30), "the standbys are late", all_late).await;
    let took = killed.elapsed();
    println!("the standbys of the dead primary are late {took:.1?} after its end");
    assert!(took < LIMIT + one_probe(&pool) * 2, "late only after {took:?}");
    assert_eq!(in_state(&pool, State::Healthy), 2);
    assert!(pods[1..].iter().all(|pod| state_of(&pool, *pod) == Some(State::Healthy)));
    drop((writing, primary, pool));
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_fallback_sends_reads_to_the_primary_if_all_standbys_lag() {
    let _alone = run_alone().await;
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let pods = addresses(&cluster);
    let strict = limited(&cluster, "").await;
    let lenient = limited(&cluster, "&lag_fallback=primary").await;
    let mut events = lenient.events();
    let load = Paced::start(&lenient, Target::Standby);
    let writing = Writing::start(&cluster).await;
    for ordinal in [1, 2] {
        set_replay(&cluster, ordinal, false).await;
    }
    let both = |pool: &Pool| is_late(pool, pods[1]) && is_late(pool, pods[2]);
    until(Duration::from_secs(20), "both standbys are late", || both(&lenient) && both(&strict)).await;
    let late = events_of(&mut events, "standby_late").await;
    assert_eq!(late.len(), 2, "{late:?}");
    let since = Instant::now();
    until(Duration::from_secs(5), "the primary answers requests", || load.answered_since(pods[0], since)).await;
    let fallback = since.elapsed();
    for target in [Target::Standby, Target::ReadOnly] {
        let client = lenient.get_for(target).await.expect("checkout falls back to the primary");
        assert_eq!(client.endpoint().address().tcp().unwrap().ip(), pods[0], "Pod for target {target}");
    }
    let client = strict.get_for(Target::Any).await.expect("the primary is not late");
    assert_eq!(client.endpoint().address().tcp().unwrap().ip(), pods[0]);
    let error = strict.get_for(Target::Standby).await.expect_err("every standby is late");
    println!("the primary serves reads {fallback:.2?} after both standbys are late; without `lag_fallback`: {error}");
    for ordinal in [1, 2] {
        set_replay(&cluster, ordinal, true).await;
    }
    let resumed = Instant::now();
    let again = || pods[1..].iter().all(|pod| load.answered_since(*pod, resumed));
    until(Duration::from_secs(20), "the standbys answer requests", again).await;
    let caught_up = events_of(&mut events, "standby_caught_up").await;
    assert_eq!(caught_up.len(), 2, "{caught_up:?}");
    let (caught_up, count) = (Instant::now(), load.count());
    until(Duration::from_secs(10), "500 requests complete", || load.count() > count + 500).await;
    let requests = load.stop().await;
    let on_primary = |request: &&Request| request.started > caught_up && request.answered_by(pods[0]);
    assert_eq!(requests.iter().filter(on_primary).count(), 0, "reads on the primary after the standbys caught up");
    assert_eq!(failures(&requests), BTreeMap::new(), "failed reads");
    drop((client, writing, strict, lenient));
    cluster.shutdown().await.expect("the cluster shuts down");
}
