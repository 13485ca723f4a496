//! The primary dies, or is replaced: writes go on, none is lost or doubled, and nobody is sent to the old one.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use podpool::{
    Pool, Target,
    testkit::{Cluster, Shutdown},
    tokio_postgres::SimpleQueryMessage,
};
use tokio::task::JoinHandle;

use crate::{
    common::{
        paced::{Paced, Request, Spread, failures},
        until,
    },
    ledger::{Ledger, TABLE},
    stage::{addresses, alone, pool, row},
};

const TRIALS: usize = 20;
/// From the first write that the new primary takes from anyone to the first that it takes through the pool.
const WRITES: Duration = Duration::from_millis(100);
/// Tasks that write.
const WRITERS: usize = 8;
/// A former primary waits for nobody: nobody follows it.
const ALONE: &str = "ALTER SYSTEM SET synchronous_standby_names = ''";

/// Makes the primary wait for every other Pod's word on every commit; the others wait for nobody, should they become one.
async fn synchronous(cluster: &Cluster) {
    let primary = cluster.primary().expect("a primary");
    let pods = cluster.pods();
    let others: Vec<_> = pods.iter().enumerate().filter(|(i, _)| *i != primary).map(|(_, pod)| pod.name()).collect();
    for ordinal in 0..pods.len() {
        let superuser = cluster.client(ordinal).await.expect("a superuser's connection");
        let names = others.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        let setting = if ordinal == primary { format!("{} ({names})", others.len()) } else { String::new() };
        let alter = format!("ALTER SYSTEM SET synchronous_standby_names = '{setting}'");
        superuser.batch_execute(&alter).await.expect("a setting");
        superuser.batch_execute("SELECT pg_reload_conf()").await.expect("a reload");
    }
    let superuser = cluster.client(primary).await.expect("a superuser's connection");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let sync = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        let count: i64 = superuser.query_one(sync, &[]).await.expect("an answer").get(0);
        if count == others.len() as i64 {
            return;
        }
        assert!(Instant::now() < deadline, "{count} standbys are synchronous");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The standby that has received the most, once nothing more can come from the dead primary: who is promoted for less
/// leaves the other one with a past that it cannot follow from.
async fn most_advanced(cluster: &Cluster, dead: usize) -> usize {
    let question = "SELECT coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'::pg_lsn, \
        EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')";
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut standbys = Vec::new();
    for ordinal in (0..cluster.len()).filter(|ordinal| *ordinal != dead) {
        standbys.push((ordinal, cluster.client(ordinal).await.expect("a superuser's connection")));
    }
    loop {
        let (mut received, mut receiving) = (BTreeMap::new(), false);
        for (ordinal, superuser) in &standbys {
            let answer = superuser.simple_query(question).await.expect("an answer");
            let row = answer.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            });
            let row = row.expect("one row");
            let position: u64 = row.get(0).and_then(|bytes| bytes.parse().ok()).expect("a position");
            received.insert(position, *ordinal);
            receiving |= row.get(1) == Some("t");
        }
        if !receiving {
            return *received.values().last().expect("a standby");
        }
        assert!(Instant::now() < deadline, "the standbys still receive");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Tells when a Pod takes a write for the first time, asking every millisecond.
async fn first_accepted(cluster: &Cluster, ordinal: usize) -> JoinHandle<Instant> {
    let superuser = cluster.client(ordinal).await.expect("a superuser's connection");
    tokio::spawn(async move {
        loop {
            match superuser.batch_execute("INSERT INTO accepted VALUES (1)").await {
                Ok(()) => return Instant::now(),
                Err(error) => assert_eq!(error.code().map(|code| code.code()), Some("25006"), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
}

/// Starts a former primary as it was: a primary on the old timeline, which takes writes. Gives how long it takes until it
/// is fenced, and asserts that from its start on nobody is sent there, whatever the target.
async fn stays_fenced(cluster: &Cluster, pool: &Pool, old: usize) -> Duration {
    let address = cluster.pod(old).address().ip();
    let reads = Paced::start(pool, Target::Any);
    let before = Instant::now();
    cluster.start_pod(old).await.expect("a start");
    let started = Instant::now();
    let stale = cluster.client(old).await.expect("a superuser's connection");
    stale.batch_execute(ALONE).await.expect("a setting");
    stale.batch_execute("SELECT pg_reload_conf()").await.expect("a reload");
    let is_fenced = || {
        let status = pool.status();
        status.endpoints.iter().any(|pod| pod.endpoint.address().ip() == address && pod.fenced.is_some())
    };
    let asked = async {
        let mut clients = 0;
        // Before it is known, when it becomes known, and after.
        while !is_fenced() || clients < 200 {
            for target in Target::ALL {
                // A standby may be short of connections, but nobody is sent to the wrong Pod.
                if let Ok(client) = pool.get_for(target).await {
                    assert_ne!(client.endpoint().address().ip(), address, "{target}");
                    clients += 1;
                }
            }
            assert!(started.elapsed() < Duration::from_secs(10), "it is not fenced");
        }
    };
    let fenced = async {
        until(Duration::from_secs(10), "the former primary is fenced", is_fenced).await;
        started.elapsed()
    };
    let ((), fenced) = tokio::join!(asked, fenced);
    let reads = reads.stop().await;
    let there = |read: &&Request| read.tries.iter().any(|one| one.address == address && one.got >= before);
    assert_eq!(reads.iter().filter(there).count(), 0, "reads on the former primary");
    assert_eq!(failures(&reads), BTreeMap::new());
    fenced
}

async fn cluster() -> Cluster {
    let cluster = Cluster::start(3).await.expect("a cluster");
    let superuser = cluster.client(0).await.expect("a superuser's connection");
    let tables = format!("{TABLE}; CREATE TABLE accepted (n int); GRANT ALL ON ledger TO PUBLIC");
    superuser.batch_execute(&tables).await.expect("tables");
    cluster
}

/// Kills the primary and promotes a standby, again and again. Reads run meanwhile, or nothing but the writes.
async fn writes_go_on(reading: bool) {
    let _alone = alone().await;
    let cluster = cluster().await;
    let (mut delays, mut fenced, mut acknowledged, mut unknown) = (Vec::new(), Vec::new(), 0, 0);
    for trial in 0..TRIALS {
        synchronous(&cluster).await;
        let old = cluster.primary().expect("a primary");
        let pool = pool(&cluster).await;
        let reads = reading.then(|| Paced::start(&pool, Target::Any));
        let first = i64::try_from(trial).expect("a small number") * 1_000_000;
        let writes = Ledger::start(&pool, WRITERS, first);
        writes.acknowledges(200).await;

        cluster.kill(old).await.expect("SIGKILL");
        let killed = Instant::now();
        let new = most_advanced(&cluster, old).await;
        let accepted = first_accepted(&cluster, new).await;
        let promoted = cluster.promote(new);
        let measured = async {
            let accepted = accepted.await.expect("the new primary takes writes");
            until(Duration::from_secs(10), "a write is acknowledged", || writes.first_after(accepted).is_some()).await;
            let first = writes.first_after(accepted).expect("it is there");
            (accepted - killed, first - accepted)
        };
        let (promoted, (took, delay)) = tokio::join!(promoted, measured);
        promoted.expect("a promotion");
        delays.push(delay);
        let count = writes.acknowledged();
        writes.acknowledges(count + 200).await;
        let written = writes.stop().await;
        if let Some(reads) = reads {
            assert_eq!(failures(&reads.stop().await), BTreeMap::new());
        }
        assert_eq!(written.no, BTreeMap::new(), "the new primary took writes {took:?} after the old one died");
        assert!(written.unknown.len() <= WRITERS, "only what was in flight: {:?}", written.unknown);
        written.check(&cluster.client(new).await.expect("a superuser's connection")).await;
        acknowledged += written.acknowledged.len();
        unknown += written.unknown.len();
        if reading {
            fenced.push(stays_fenced(&cluster, &pool, old).await);
        }
        drop(pool);
        cluster.reattach(old).await.expect("the old primary follows");
    }
    if reading {
        let fenced = Spread::new(fenced);
        println!("the former primary, back as it was {TRIALS} times: fenced after {fenced}, and nobody was sent there");
        row(
            "the former primary comes back as it was",
            "nothing: it is fenced from every target until it follows",
            &format!("fenced {:.1?} after it takes connections (p95 of {TRIALS})", fenced.at(0.95)),
        );
    }
    let delays = Spread::new(delays);
    println!(
        "{} reads: first write through the pool after the new primary took one, in {TRIALS} failovers: {delays}; \
         {acknowledged} acknowledged, {unknown} unknown",
        if reading { "with" } else { "without" },
    );
    row(
        &format!("primary killed, standby promoted, {} reads", if reading { "with" } else { "without" }),
        "writes wait and succeed; those in flight at the kill answer `Unknown`; none lost, doubled or denied",
        &format!("first write {:.1?} after the new primary takes any (p95)", delays.at(0.95)),
    );
    assert!(delays.at(0.95) <= WRITES, "{delays}");
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_within_100_ms_of_a_promotion_while_reads_run() {
    writes_go_on(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_go_on_within_100_ms_of_a_promotion_while_nothing_else_runs() {
    writes_go_on(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_primary_that_comes_back_gets_nothing_until_it_follows() {
    let _alone = alone().await;
    let cluster = cluster().await;
    synchronous(&cluster).await;
    let pods = addresses(&cluster);
    let pool = pool(&cluster).await;
    let reads = Paced::start(&pool, Target::Any);
    let writes = Ledger::start(&pool, WRITERS, 0);
    writes.acknowledges(200).await;
    cluster.kill(0).await.expect("SIGKILL");
    let new = most_advanced(&cluster, 0).await;
    cluster.promote(new).await.expect("a promotion");
    writes.acknowledges(writes.acknowledged() + 200).await;

    // As it was: a primary, on the old timeline. Nobody follows it, and it waits for nobody.
    cluster.start_pod(0).await.expect("a start");
    let started = Instant::now();
    let stale = cluster.client(0).await.expect("a superuser's connection");
    stale.batch_execute(ALONE).await.expect("a setting");
    stale.batch_execute("SELECT pg_reload_conf()").await.expect("a reload");
    let fence = || {
        let status = pool.status();
        status.endpoints.into_iter().find(|pod| pod.endpoint.address().ip() == pods[0]).and_then(|pod| pod.fenced)
    };
    until(Duration::from_secs(10), "the former primary is fenced", || fence().is_some()).await;
    let fenced = started.elapsed();
    let cause = fence().expect("it is there");
    for target in Target::ALL {
        for _ in 0..50 {
            // A standby may be short of connections, but nobody is sent to the wrong Pod.
            let client = pool.get_for(target).await;
            if let Ok(client) = client {
                assert_ne!(client.endpoint().address().ip(), pods[0], "{target}");
            }
        }
    }
    // Longer than any interval between probes.
    let longest = pool.config().limits().probe_interval * 2;
    until(longest * 2, "it stays so", || started.elapsed() > longest).await;
    assert!(fence().is_some(), "it has not changed");
    let reattached = Instant::now();
    cluster.reattach(0).await.expect("it follows");
    until(Duration::from_secs(20), "it serves again", || reads.answered_since(pods[0], reattached)).await;
    let back = reattached.elapsed();
    let written = writes.stop().await;
    let reads = reads.stop().await;
    println!("fenced {fenced:.2?} after its start: {cause}; answering {back:.2?} after it was told to follow");
    let there = reads.iter().filter(|read| {
        let tries = read.tries.iter().filter(|one| one.address == pods[0]);
        tries.filter(|one| (started..reattached).contains(&one.got)).count() > 0
    });
    assert_eq!(there.count(), 0, "reads on the former primary");
    assert_eq!(failures(&reads), BTreeMap::new());
    assert_eq!(written.no, BTreeMap::new());
    written.check(&cluster.client(new).await.expect("a superuser's connection")).await;
    drop((pool, stale));
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_switchover_fails_no_read() {
    let _alone = alone().await;
    let cluster = cluster().await;
    let (mut gaps, mut reads_done, mut acknowledged, mut unknown) = (Vec::new(), 0, 0, 0);
    for trial in 0..TRIALS {
        synchronous(&cluster).await;
        let old = cluster.primary().expect("a primary");
        let new = (old + 1) % cluster.len();
        let pool = pool(&cluster).await;
        let reads = Paced::start(&pool, Target::Any);
        let writes = Ledger::start(&pool, WRITERS, i64::try_from(trial).expect("a small number") * 1_000_000);
        writes.acknowledges(200).await;
        let asked = Instant::now();
        cluster.stop(old, Shutdown::Fast).await.expect("a fast shutdown");
        cluster.promote(new).await.expect("a promotion");
        let promoted = Instant::now();
        until(Duration::from_secs(10), "a write is acknowledged", || writes.first_after(promoted).is_some()).await;
        writes.acknowledges(writes.acknowledged() + 200).await;
        let (written, reads) = (writes.stop().await, reads.stop().await);
        // From the last write on the old primary to the first on the new one.
        let times: Vec<_> = written.acknowledged.values().copied().filter(|at| *at >= asked).collect();
        let mut times = Vec::from_iter(std::iter::once(asked).chain(times));
        times.sort();
        gaps.extend(times.windows(2).map(|pair| pair[1] - pair[0]).max());
        assert_eq!(failures(&reads), BTreeMap::new());
        assert_eq!(written.no, BTreeMap::new());
        assert!(written.unknown.len() <= WRITERS, "only what was in flight: {:?}", written.unknown);
        written.check(&cluster.client(new).await.expect("a superuser's connection")).await;
        reads_done += reads.len();
        acknowledged += written.acknowledged.len();
        unknown += written.unknown.len();
        drop(pool);
        cluster.reattach(old).await.expect("the former primary follows");
    }
    let gaps = Spread::new(gaps);
    println!(
        "{TRIALS} switchovers: the longest time without a write: {gaps}; {reads_done} reads, {acknowledged} writes \
         acknowledged, none said not to be applied, {unknown} unknown"
    );
    row(
        "planned switchover: fast shutdown, promotion",
        &format!("no failed read; writes wait and succeed, {unknown} in {TRIALS} switchovers answered `Unknown`"),
        &format!("no write for {:.1?} (p95 of {TRIALS})", gaps.at(0.95)),
    );
    cluster.shutdown().await.expect("an orderly end");
}
