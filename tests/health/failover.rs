//! Tests failover and switchover of the primary: writes resume on the new primary, no write is lost or applied twice,
//! and no checkout returns a connection to the former primary.

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
    setup::{addresses, pool, row, run_alone},
};

const TRIALS: usize = 20;
/// Maximum time from the first write that the new primary accepts to the first write through the pool.
const WRITE_DELAY: Duration = Duration::from_millis(100);
/// Number of concurrent writers, and thus the maximum number of writes in flight when the primary stops.
const WRITERS: usize = 8;
/// Statement that turns off synchronous replication. Without this statement, the commits of a former primary would wait
/// for standbys that it no longer has.
const ASYNCHRONOUS: &str = "ALTER SYSTEM SET synchronous_standby_names = ''";

/// Makes the primary replicate synchronously to all standbys, so that any of them has every acknowledged write. On the
/// standbys, the setting is empty, so that a promoted standby does not wait for the others.
async fn set_synchronous(cluster: &Cluster) {
    let primary = cluster.primary().expect("the cluster has a primary");
    let pods = cluster.pods();
    let others: Vec<_> = pods.iter().enumerate().filter(|(i, _)| *i != primary).map(|(_, pod)| pod.name()).collect();
    for ordinal in 0..pods.len() {
        let superuser = cluster.client(ordinal).await.expect("the superuser connects");
        let names = others.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        let setting = if ordinal == primary { format!("{} ({names})", others.len()) } else { String::new() };
        let alter = format!("ALTER SYSTEM SET synchronous_standby_names = '{setting}'");
        superuser.batch_execute(&alter).await.expect("the setting is changed");
        superuser.batch_execute("SELECT pg_reload_conf()").await.expect("the configuration is reloaded");
    }
    let superuser = cluster.client(primary).await.expect("the superuser connects");
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let sync = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
        let count: i64 = superuser.query_one(sync, &[]).await.expect("the query succeeds").get(0);
        if count == others.len() as i64 {
            return;
        }
        assert!(Instant::now() < deadline, "only {count} standbys are synchronous");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits until no standby is streaming from the dead primary, and returns the standby with the highest WAL position. If
/// a standby with a lower position were promoted, the returned standby would be ahead of the new timeline and could not
/// follow it.
async fn most_advanced(cluster: &Cluster, dead: usize) -> usize {
    let query = "SELECT coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) - '0/0'::pg_lsn, \
        EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')";
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut standbys = Vec::new();
    for ordinal in (0..cluster.len()).filter(|ordinal| *ordinal != dead) {
        standbys.push((ordinal, cluster.client(ordinal).await.expect("the superuser connects")));
    }
    loop {
        let (mut received, mut receiving) = (BTreeMap::new(), false);
        for (ordinal, superuser) in &standbys {
            let messages = superuser.simple_query(query).await.expect("the query succeeds");
            let row = messages.iter().find_map(|message| match message {
                SimpleQueryMessage::Row(row) => Some(row),
                _ => None,
            });
            let row = row.expect("the result has a row");
            let position: u64 = row.get(0).and_then(|bytes| bytes.parse().ok()).expect("the WAL position parses");
            received.insert(position, *ordinal);
            receiving |= row.get(1) == Some("t");
        }
        if !receiving {
            return *received.values().last().expect("there is a standby");
        }
        assert!(Instant::now() < deadline, "a standby is still streaming from the dead primary");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Spawns a task that tries to write to a Pod every millisecond and returns the time of the first success.
async fn first_accepted(cluster: &Cluster, ordinal: usize) -> JoinHandle<Instant> {
    let superuser = cluster.client(ordinal).await.expect("the superuser connects");
    tokio::spawn(async move {
        loop {
            match superuser.batch_execute("INSERT INTO accepted VALUES (1)").await {
                Ok(()) => return Instant::now(),
                Err(error) => {
                    assert_eq!(error.code().map(|code| code.code()), Some("25006"), "unexpected error: {error}")
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
}

/// Restarts the former primary as a writable primary on the old timeline, and returns the time until the pool fences
/// the Pod, that is, until it rejects the Pod for every target. Asserts that no checkout, for any target, returns a
/// connection to the Pod after its restart.
async fn restart_and_measure_fencing(cluster: &Cluster, pool: &Pool, old: usize) -> Duration {
    let address = cluster.pod(old).address().ip();
    let reads = Paced::start(pool, Target::Any);
    let before = Instant::now();
    cluster.start_pod(old).await.expect("the Pod starts");
    let started = Instant::now();
    let stale = cluster.client(old).await.expect("the superuser connects");
    stale.batch_execute(ASYNCHRONOUS).await.expect("the setting is changed");
    stale.batch_execute("SELECT pg_reload_conf()").await.expect("the configuration is reloaded");
    let is_fenced = || {
        let status = pool.status();
        status.endpoints.iter().any(|pod| pod.endpoint.address().tcp().unwrap().ip() == address && pod.fenced.is_some())
    };
    let checkouts = async {
        let mut clients = 0;
        // Checks out connections before, during and after the detection of the stale primary.
        while !is_fenced() || clients < 200 {
            for &target in Target::ALL {
                // A checkout may fail if all connections are in use, but must not return the former primary.
                if let Ok(client) = pool.get_for(target).await {
                    assert_ne!(
                        client.endpoint().address().tcp().unwrap().ip(),
                        address,
                        "target {target}: former primary"
                    );
                    clients += 1;
                }
            }
            assert!(started.elapsed() < Duration::from_secs(10), "the former primary is not fenced within 10 s");
        }
    };
    let fenced = async {
        until(Duration::from_secs(10), "the former primary is fenced", is_fenced).await;
        started.elapsed()
    };
    let ((), fenced) = tokio::join!(checkouts, fenced);
    let reads = reads.stop().await;
    let on_former_primary =
        |read: &&Request| read.attempts.iter().any(|one| one.address == address && one.checked_out >= before);
    assert_eq!(reads.iter().filter(on_former_primary).count(), 0, "reads on the former primary");
    assert_eq!(failures(&reads), BTreeMap::new(), "failed reads");
    fenced
}

/// Starts a cluster and creates the tables that the tests write to.
async fn cluster() -> Cluster {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let superuser = cluster.client(0).await.expect("the superuser connects");
    let tables = format!("{TABLE}; CREATE TABLE accepted (n int); GRANT ALL ON ledger TO PUBLIC");
    superuser.batch_execute(&tables).await.expect("the tables are created");
    cluster
}

/// Kills the primary and promotes a standby in each trial, under a load of writes and, if `reading` is set, reads.
/// Asserts that writes resume in time and that no write is lost or applied twice.
async fn measure_failover(reading: bool) {
    let _alone = run_alone().await;
    let cluster = cluster().await;
    let (mut delays, mut fenced, mut acknowledged, mut unknown) = (Vec::new(), Vec::new(), 0, 0);
    for trial in 0..TRIALS {
        set_synchronous(&cluster).await;
        let old = cluster.primary().expect("the cluster has a primary");
        let pool = pool(&cluster).await;
        let reads = reading.then(|| Paced::start(&pool, Target::Any));
        let first = i64::try_from(trial).expect("the trial number fits in i64") * 1_000_000;
        let writes = Ledger::start(&pool, WRITERS, first);
        writes.wait_for_acknowledged(200).await;

        cluster.kill(old).await.expect("SIGKILL is sent");
        let killed = Instant::now();
        let new = most_advanced(&cluster, old).await;
        let accepted = first_accepted(&cluster, new).await;
        let promoted = cluster.promote(new);
        let measured = async {
            let accepted = accepted.await.expect("the writing task does not panic");
            until(Duration::from_secs(10), "a write is acknowledged", || writes.first_after(accepted).is_some()).await;
            let first = writes.first_after(accepted).expect("a write is acknowledged");
            (accepted - killed, first - accepted)
        };
        let (promoted, (took, delay)) = tokio::join!(promoted, measured);
        promoted.expect("the standby is promoted");
        delays.push(delay);
        let count = writes.acknowledged();
        writes.wait_for_acknowledged(count + 200).await;
        let written = writes.stop().await;
        if let Some(reads) = reads {
            assert_eq!(failures(&reads.stop().await), BTreeMap::new(), "failed reads");
        }
        assert_eq!(
            written.not_applied,
            BTreeMap::new(),
            "failed writes; the new primary accepted writes {took:?} after the kill"
        );
        assert!(written.unknown.len() <= WRITERS, "more unknown outcomes than writers: {:?}", written.unknown);
        written.assert_consistent(&cluster.client(new).await.expect("the superuser connects")).await;
        acknowledged += written.acknowledged.len();
        unknown += written.unknown.len();
        if reading {
            fenced.push(restart_and_measure_fencing(&cluster, &pool, old).await);
        }
        drop(pool);
        cluster.reattach(old).await.expect("the former primary follows the new one");
    }
    if reading {
        let fenced = Spread::new(fenced);
        println!("former primary restarted {TRIALS} times: fenced after {fenced}, never checked out");
        row(
            "the former primary restarts as a primary",
            "no effect: the Pod is fenced for every target until it follows the new primary",
            &format!("fenced {:.1?} after it accepts connections (p95 of {TRIALS})", fenced.at(0.95)),
        );
    }
    let delays = Spread::new(delays);
    println!(
        "{} reads: time from the first accepted write to the first write through the pool, in {TRIALS} failovers: \
         {delays}; {acknowledged} acknowledged, {unknown} unknown",
        if reading { "with" } else { "without" },
    );
    row(
        &format!("primary killed, standby promoted, {} reads", if reading { "with" } else { "without" }),
        "writes wait and succeed; those in flight at the kill return `Unknown`; none is lost or applied twice",
        &format!("first write {:.1?} after the new primary accepts writes (p95)", delays.at(0.95)),
    );
    assert!(delays.at(0.95) <= WRITE_DELAY, "writes resumed too late after the promotion: {delays}");
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_resume_within_100_ms_of_promotion_under_read_load() {
    measure_failover(true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_resume_within_100_ms_of_promotion_without_reads() {
    measure_failover(false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn former_primary_is_fenced_until_it_follows_the_new_one() {
    let _alone = run_alone().await;
    let cluster = cluster().await;
    set_synchronous(&cluster).await;
    let pods = addresses(&cluster);
    let pool = pool(&cluster).await;
    let reads = Paced::start(&pool, Target::Any);
    let writes = Ledger::start(&pool, WRITERS, 0);
    writes.wait_for_acknowledged(200).await;
    cluster.kill(0).await.expect("SIGKILL is sent");
    let new = most_advanced(&cluster, 0).await;
    cluster.promote(new).await.expect("the standby is promoted");
    writes.wait_for_acknowledged(writes.acknowledged() + 200).await;

    // The former primary restarts as a primary on the old timeline, without standbys.
    cluster.start_pod(0).await.expect("the Pod starts");
    let started = Instant::now();
    let stale = cluster.client(0).await.expect("the superuser connects");
    stale.batch_execute(ASYNCHRONOUS).await.expect("the setting is changed");
    stale.batch_execute("SELECT pg_reload_conf()").await.expect("the configuration is reloaded");
    let fence = || {
        let status = pool.status();
        status
            .endpoints
            .into_iter()
            .find(|pod| pod.endpoint.address().tcp().unwrap().ip() == pods[0])
            .and_then(|pod| pod.fenced)
    };
    until(Duration::from_secs(10), "the former primary is fenced", || fence().is_some()).await;
    let fenced = started.elapsed();
    let cause = fence().expect("the former primary is fenced");
    for &target in Target::ALL {
        for _ in 0..50 {
            // A checkout may fail if all connections are in use, but must not return the former primary.
            let client = pool.get_for(target).await;
            if let Ok(client) = client {
                assert_ne!(client.endpoint().address().tcp().unwrap().ip(), pods[0], "target {target}: former primary");
            }
        }
    }
    // The fence must survive further probes, so the test waits for longer than the maximum interval between two probes.
    let longest = pool.config().limits().probe_interval * 2;
    until(longest * 2, "two probe intervals pass", || started.elapsed() > longest).await;
    assert!(fence().is_some(), "the former primary is no longer fenced, but does not follow the new one");
    let reattached = Instant::now();
    cluster.reattach(0).await.expect("the former primary follows the new one");
    let serves = || reads.answered_since(pods[0], reattached);
    until(Duration::from_secs(20), "the former primary serves as a standby", serves).await;
    let back = reattached.elapsed();
    let written = writes.stop().await;
    let reads = reads.stop().await;
    println!("fenced {fenced:.2?} after its restart: {cause}; serving {back:.2?} after the reattachment");
    let while_fenced = reads.iter().filter(|read| {
        let attempts = read.attempts.iter().filter(|one| one.address == pods[0]);
        attempts.filter(|one| (started..reattached).contains(&one.checked_out)).count() > 0
    });
    assert_eq!(while_fenced.count(), 0, "reads on the former primary");
    assert_eq!(failures(&reads), BTreeMap::new(), "failed reads");
    assert_eq!(written.not_applied, BTreeMap::new(), "failed writes");
    written.assert_consistent(&cluster.client(new).await.expect("the superuser connects")).await;
    drop((pool, stale));
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_succeed_during_a_planned_switchover() {
    let _alone = run_alone().await;
    let cluster = cluster().await;
    let (mut gaps, mut reads_done, mut acknowledged, mut unknown) = (Vec::new(), 0, 0, 0);
    for trial in 0..TRIALS {
        set_synchronous(&cluster).await;
        let old = cluster.primary().expect("the cluster has a primary");
        let new = (old + 1) % cluster.len();
        let pool = pool(&cluster).await;
        let reads = Paced::start(&pool, Target::Any);
        let writes =
            Ledger::start(&pool, WRITERS, i64::try_from(trial).expect("the trial number fits in i64") * 1_000_000);
        writes.wait_for_acknowledged(200).await;
        let requested = Instant::now();
        cluster.stop(old, Shutdown::Fast).await.expect("the Pod stops");
        cluster.promote(new).await.expect("the standby is promoted");
        let promoted = Instant::now();
        until(Duration::from_secs(10), "a write is acknowledged", || writes.first_after(promoted).is_some()).await;
        writes.wait_for_acknowledged(writes.acknowledged() + 200).await;
        let (written, reads) = (writes.stop().await, reads.stop().await);
        // The longest gap between two acknowledged writes lies between the last write on the old primary and the first
        // write on the new one.
        let times: Vec<_> = written.acknowledged.values().copied().filter(|at| *at >= requested).collect();
        let mut times = Vec::from_iter(std::iter::once(requested).chain(times));
        times.sort();
        gaps.extend(times.windows(2).map(|pair| pair[1] - pair[0]).max());
        assert_eq!(failures(&reads), BTreeMap::new(), "failed reads");
        assert_eq!(written.not_applied, BTreeMap::new(), "failed writes");
        assert!(written.unknown.len() <= WRITERS, "more unknown outcomes than writers: {:?}", written.unknown);
        written.assert_consistent(&cluster.client(new).await.expect("the superuser connects")).await;
        reads_done += reads.len();
        acknowledged += written.acknowledged.len();
        unknown += written.unknown.len();
        drop(pool);
        cluster.reattach(old).await.expect("the former primary follows the new one");
    }
    let gaps = Spread::new(gaps);
    println!(
        "{TRIALS} switchovers: longest time without a write: {gaps}; {reads_done} reads, {acknowledged} writes \
         acknowledged, none failed, {unknown} unknown"
    );
    row(
        "planned switchover: fast shutdown, promotion",
        &format!("no failed read; writes wait and succeed, {unknown} in {TRIALS} switchovers returned `Unknown`"),
        &format!("no write for {:.1?} (p95 of {TRIALS})", gaps.at(0.95)),
    );
    cluster.shutdown().await.expect("the cluster shuts down");
}
