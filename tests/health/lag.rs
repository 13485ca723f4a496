//! A replica that does not keep up gets no reads; one that does is never taken for one that does not.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use podpool::{Pool, State, Target, testkit::Cluster};

use crate::{
    common::{
        in_state,
        paced::{Paced, Spread, failures},
        until,
    },
    stage::{addresses, alone, pool_of, row, state_of},
};

const LIMIT: Duration = Duration::from_secs(2);
/// Standbys whose replay is stopped, and how often.
const VICTIMS: usize = 5;
const ROUNDS: usize = 4;

/// A pool that does not want standbys that are more than two seconds behind.
async fn limited(cluster: &Cluster, more: &str) -> Pool {
    pool_of(&format!("{}&max_lag=2s{more}", cluster.url()), cluster.len()).await
}

/// Whether the pool takes the Pod at this address for late.
fn late(pool: &Pool, address: IpAddr) -> bool {
    pool.status().endpoints.iter().any(|pod| pod.endpoint.address().ip() == address && pod.late)
}

/// The longest time between two probes of a healthy Pod, and for one to be answered and looked at twice.
fn one_probe(pool: &Pool) -> Duration {
    let limits = pool.config().limits();
    limits.probe_interval.mul_f64(1.2) + limits.probe_timeout * 2
}

/// Writes a row on the primary, ten times a second, until dropped.
struct Writing(tokio::task::JoinHandle<()>);

impl Writing {
    async fn start(cluster: &Cluster) -> Self {
        let primary = cluster.client(cluster.primary().expect("a primary")).await.expect("a superuser's connection");
        primary.batch_execute("CREATE TABLE IF NOT EXISTS written (n int)").await.expect("a table");
        Self(tokio::spawn(async move {
            // Until the server goes.
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

async fn replay(cluster: &Cluster, ordinal: usize, on: bool) {
    let superuser = cluster.client(ordinal).await.expect("a superuser's connection");
    let call = if on { "SELECT pg_wal_replay_resume()" } else { "SELECT pg_wal_replay_pause()" };
    superuser.batch_execute(call).await.expect("replay is paused or resumed");
}

/// One standby's replay stopped once.
struct Pause {
    standby: IpAddr,
    /// From the stop to the moment that the pool knows.
    out: Duration,
    seen: Instant,
    resumed: Instant,
    back: Duration,
}

/// Stops a standby's replay again and again, from any moment between two probes.
async fn pauses(cluster: &Cluster, pool: &Pool, load: &Paced, ordinal: usize) -> Vec<Pause> {
    let standby = addresses(cluster)[ordinal];
    let mut pauses = Vec::new();
    for _ in 0..ROUNDS {
        let since = Instant::now();
        until(Duration::from_secs(20), "the standby answers", || load.answered_since(standby, since)).await;
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..2000))).await;
        replay(cluster, ordinal, false).await;
        let paused = Instant::now();
        until(Duration::from_secs(20), "the standby is late", || late(pool, standby)).await;
        let seen = Instant::now();
        let count = load.count();
        until(Duration::from_secs(10), "the others answer", || load.count() > count + 500).await;
        let resumed = Instant::now();
        replay(cluster, ordinal, true).await;
        until(Duration::from_secs(20), "it answers again", || load.answered_since(standby, resumed)).await;
        pauses.push(Pause { standby, out: seen - paused, seen, resumed, back: resumed.elapsed() });
    }
    pauses
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_falls_behind_gets_no_read_within_one_probe() {
    let _alone = alone().await;
    // One standby always keeps up.
    let cluster = Cluster::start(VICTIMS + 2).await.expect("a cluster");
    let pool = limited(&cluster, "").await;
    let load = Paced::start(&pool, Target::Standby);
    let writing = Writing::start(&cluster).await;
    let pauses: Vec<Pause> = join_all((1..=VICTIMS).map(|standby| pauses(&cluster, &pool, &load, standby)))
        .await
        .into_iter()
        .flatten()
        .collect();
    let requests = load.stop().await;
    let out = Spread::new(pauses.iter().map(|pause| pause.out));
    let back = Spread::new(pauses.iter().map(|pause| pause.back));
    let bound = LIMIT + one_probe(&pool);
    println!(
        "replay stopped {} times: no read there after {out} (limit and probe: {bound:.2?}); back after {back}",
        out.len()
    );
    assert_eq!(failures(&requests), BTreeMap::new());
    row(
        "a replica stops replaying, `max_lag=2s`",
        "no read there, from the probe that sees it",
        &format!(
            "out {:.1?} after it stopped, back {:.1?} after it went on (p95 of {})",
            out.at(0.95),
            back.at(0.95),
            out.len()
        ),
    );
    for Pause { standby, seen, resumed, .. } in &pauses {
        // What the threads saw of the list before: a moment.
        let grace = *seen + Duration::from_millis(50);
        let tries = requests.iter().flat_map(|request| &request.tries);
        let reads = tries.filter(|one| one.address == *standby && one.got > grace && one.got < *resumed).count();
        assert_eq!(reads, 0, "reads on a standby that is known to be late");
    }
    assert!(out.len() >= 20);
    assert!(out.at(0.95) < bound, "{out}");
    assert!(back.at(0.95) < one_probe(&pool) * 2, "{back}");
    drop((writing, pool));
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_primary_makes_nobody_late_and_neither_does_a_dead_one() {
    let _alone = alone().await;
    let cluster = Cluster::start(3).await.expect("a cluster");
    let pods = addresses(&cluster);
    let pool = limited(&cluster, "&max_lag_bytes=1048576").await;
    let load = Paced::start(&pool, Target::Standby);
    let mut lates = BTreeSet::new();
    let mut watch = async |what: &str, time: Duration| {
        let until_then = Instant::now() + time;
        let look = || {
            lates.extend(pods.iter().filter(|pod| late(&pool, **pod)).map(|pod| format!("{pod}, {what}")));
            Instant::now() > until_then
        };
        until(time * 2, what, look).await;
    };
    // Several times the limit, and three probes.
    watch("idle", LIMIT + one_probe(&pool) * 2).await;
    // The first write after that finds the last one long ago.
    let primary = cluster.client(0).await.expect("a superuser's connection");
    primary.batch_execute("CREATE TABLE written (n int)").await.expect("a table");
    watch("the first write after an idle time", one_probe(&pool)).await;
    let writing = Writing::start(&cluster).await;
    watch("writes", one_probe(&pool)).await;
    cluster.kill(0).await.expect("SIGKILL");
    let killed = Instant::now();
    watch("a dead primary", LIMIT + one_probe(&pool) * 2).await;
    for &pod in &pods[1..] {
        assert_eq!(state_of(&pool, pod), Some(State::Healthy));
        assert!(load.answered_since(pod, killed + LIMIT), "{pod}");
    }
    let requests = load.stop().await;
    println!("{} reads on the standbys; late: {lates:?}", requests.len());
    assert_eq!(lates, BTreeSet::new());
    assert_eq!(failures(&requests), BTreeMap::new());
    assert_eq!(in_state(&pool, State::Healthy), 2);
    drop((writing, primary, pool));
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_stands_in_for_standbys_that_are_all_late() {
    let _alone = alone().await;
    let cluster = Cluster::start(3).await.expect("a cluster");
    let pods = addresses(&cluster);
    let strict = limited(&cluster, "").await;
    let lenient = limited(&cluster, "&lag_fallback=primary").await;
    let load = Paced::start(&lenient, Target::Standby);
    let writing = Writing::start(&cluster).await;
    for ordinal in [1, 2] {
        replay(&cluster, ordinal, false).await;
    }
    let both = |pool: &Pool| late(pool, pods[1]) && late(pool, pods[2]);
    until(Duration::from_secs(20), "both are late", || both(&lenient) && both(&strict)).await;
    let since = Instant::now();
    until(Duration::from_secs(5), "the primary answers", || load.answered_since(pods[0], since)).await;
    let stood_in = since.elapsed();
    for target in [Target::Standby, Target::ReadOnly] {
        let client = lenient.get_for(target).await.expect("the primary stands in");
        assert_eq!(client.endpoint().address().ip(), pods[0], "{target}");
    }
    let client = strict.get_for(Target::Any).await.expect("the primary is not late");
    assert_eq!(client.endpoint().address().ip(), pods[0]);
    let error = strict.get_for(Target::Standby).await.expect_err("every standby is late");
    println!("the primary answers {stood_in:.2?} after both were known to be late; without a stand-in: {error}");
    for ordinal in [1, 2] {
        replay(&cluster, ordinal, true).await;
    }
    let resumed = Instant::now();
    let again = || pods[1..].iter().all(|pod| load.answered_since(*pod, resumed));
    until(Duration::from_secs(20), "the standbys answer", again).await;
    let (settled, count) = (Instant::now(), load.count());
    until(Duration::from_secs(10), "the load goes on", || load.count() > count + 500).await;
    let requests = load.stop().await;
    let there = |request: &&crate::common::paced::Request| request.made > settled && request.answered_by(pods[0]);
    assert_eq!(requests.iter().filter(there).count(), 0, "the primary is not needed any more");
    assert_eq!(failures(&requests), BTreeMap::new());
    drop((client, writing, strict, lenient));
    cluster.shutdown().await.expect("an orderly end");
}
