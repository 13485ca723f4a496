//! Evidence against a Pod. The end of one session must not eject a healthy Pod, and a former primary must not return
//! before the other Pods have been asked.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use podpool::{Pool, State, Target, testkit::Cluster};
use tokio::time::sleep;

mod common;
use common::{
    ejections::ejections,
    in_state,
    load::Load,
    trials::{self, assert_within},
    until,
};

async fn serving(url: &str, pods: usize) -> Pool {
    common::init_logging();
    let pool = Pool::connect(url).await.expect("the pool is created");
    until(Duration::from_secs(20), "all Pods serve", || in_state(&pool, State::Healthy) == pods).await;
    pool
}

/// Ends one idle session of the same Pod per second while 200 statements per second run. The policy `random` gives each
/// candidate an equal share, so the share shows whether the Pod stays a candidate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_not_ejected_when_an_administrator_ends_idle_sessions() {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let pool = serving(&format!("{}&min_idle=3&policy=random", cluster.url()), 3).await;
    let ejections = ejections(&pool);
    let admin = cluster.client(1).await.expect("an administrator connects");
    let victim = cluster.pod(1).address().ip().to_string();
    let seconds = if trials::count(1) < 20 { 8 } else { 30 };
    let (mut counts, failures) = (BTreeMap::<String, u32>::new(), Arc::new(Mutex::new(Vec::new())));
    let (mut ended, start) = (0, Instant::now());
    let (answers, mut received) = tokio::sync::mpsc::unbounded_channel();
    for number in 0..seconds * 200 {
        let at = start + Duration::from_millis(5) * number;
        sleep(at.saturating_duration_since(Instant::now())).await;
        if number % 200 == 100 {
            // The sessions of this pool, idle for at least 50 ms, and not the administrator's own.
            let sql = "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity \
                       WHERE backend_type = 'client backend' AND state = 'idle' AND pid <> pg_backend_pid() \
                       ORDER BY state_change LIMIT 1) AS oldest";
            ended += admin.query_one(sql, &[]).await.expect("the session is ended").get::<_, i64>(0);
        }
        let (pool, answers, failures) = (pool.clone(), answers.clone(), failures.clone());
        tokio::spawn(async move {
            let sql = "SELECT host(inet_server_addr())";
            let work = |client: podpool::Client| async move { client.query_one(sql, &[]).await };
            match pool.retry(Target::Any, work).await {
                Ok(row) => drop(answers.send(row.get::<_, String>(0))),
                Err(error) => failures.lock().unwrap().push(format!("{error:?}")),
            }
        });
    }
    drop(answers);
    while let Some(address) = received.recv().await {
        *counts.entry(address).or_default() += 1;
    }
    println!("{ended} sessions ended in {seconds} s; statements per Pod {counts:?}, of the Pod {}", counts[&victim]);
    assert_eq!(*failures.lock().unwrap(), Vec::<String>::new(), "failed statements");
    assert_eq!(*ejections.lock().unwrap(), Vec::<String>::new(), "ejections");
    assert!(ended >= i64::from(seconds) * 8 / 10, "{ended} sessions ended");
    let fair = f64::from(seconds) * 200.0 / 3.0;
    let share = f64::from(counts[&victim]) / fair;
    assert!((0.8..=1.2).contains(&share), "the Pod received {share:.2} of its fair share");
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_ends_itself_affects_no_other_connection() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let pool = serving(&format!("{}&min_idle=4", cluster.url()), 1).await;
    until(Duration::from_secs(10), "four connections are idle", || pool.status().endpoints[0].idle == 4).await;
    let ejections = ejections(&pool);
    for _ in 0..5 {
        let client = pool.get().await.expect("checkout succeeds");
        client.query_one("SELECT pg_terminate_backend(pg_backend_pid())", &[]).await.expect_err("the session ends");
        drop(client);
        // More than 100 ms apart: two sessions that end together would mean that the server has ended.
        sleep(Duration::from_millis(150)).await;
        until(Duration::from_secs(5), "the Pod has responded", || !pool.status().endpoints[0].suspect).await;
    }
    let closed = pool.status().counters.closed;
    println!("{closed} connections closed after five ended sessions");
    assert_eq!(closed, 5);
    assert_eq!(*ejections.lock().unwrap(), Vec::<String>::new(), "ejections");
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Freezes the primary (SIGSTOP) until it is ejected, promotes another Pod, and resumes the former primary at the same
/// time. The client only writes. No write that is sent after the former primary has been resumed may be lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_former_primary_that_returns_gets_no_writes_after_a_promotion() {
    for trial in 0..trials::count(2) {
        let cluster = Cluster::start(3).await.expect("the cluster starts");
        let pool = serving(&format!("{}&target_session_attrs=read-write", cluster.url()), 3).await;
        let create = "CREATE TABLE written (id bigint PRIMARY KEY)";
        pool.get().await.expect("checkout succeeds").batch_execute(create).await.expect("the table is created");
        cluster.wait_replicated().await.expect("the standbys are up to date");
        let (resumed, acknowledged) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        let next = Arc::new(AtomicUsize::new(0));
        let writers: Vec<_> = (0..4)
            .map(|_| {
                let (pool, resumed, acknowledged) = (pool.clone(), resumed.clone(), acknowledged.clone());
                let next = next.clone();
                tokio::spawn(async move {
                    loop {
                        let (id, after) = (next.fetch_add(1, Ordering::SeqCst), resumed.load(Ordering::SeqCst));
                        if after > 1 {
                            return;
                        }
                        let Ok(client) = pool.primary().await else { continue };
                        let after = resumed.load(Ordering::SeqCst);
                        let sql = format!("INSERT INTO written VALUES ({id})");
                        if client.execute(sql.as_str(), &[]).await.is_ok() && after == 1 {
                            acknowledged.lock().unwrap().push(id as i64);
                        }
                    }
                })
            })
            .collect();
        cluster.pause(0).await.expect("SIGSTOP is sent");
        until(Duration::from_secs(10), "the primary is ejected", || in_state(&pool, State::Ejected) >= 1).await;
        let (promoted, thawed) = tokio::join!(cluster.promote(1), async {
            sleep(Duration::from_millis(20 * trial as u64 % 200)).await;
            resumed.store(1, Ordering::SeqCst);
            cluster.resume(0).await
        });
        promoted.expect("the standby is promoted");
        thawed.expect("SIGCONT is sent");
        let enough = || acknowledged.lock().unwrap().len() >= 200;
        until(Duration::from_secs(20), "200 writes are acknowledged after the thaw", enough).await;
        resumed.store(2, Ordering::SeqCst);
        for writer in writers {
            writer.await.expect("the writer ends");
        }
        let found = cluster.client(1).await.expect("a connection to the new primary");
        let found = found.query("SELECT id FROM written", &[]).await.expect("the writes are read");
        let found: std::collections::BTreeSet<i64> = found.iter().map(|row| row.get(0)).collect();
        let acknowledged = acknowledged.lock().unwrap().clone();
        let lost: Vec<_> = acknowledged.iter().filter(|id| !found.contains(id)).collect();
        println!("trial {trial}: {} acknowledged after the thaw, {} lost", acknowledged.len(), lost.len());
        assert_eq!(lost, Vec::<&i64>::new(), "acknowledged writes that were lost");
        drop(pool);
        cluster.shutdown().await.expect("the cluster shuts down");
    }
}

/// A hung Pod is ejected although one of three Pods hangs, and a load keeps running.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_pod_is_ejected_within_its_bound() {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let victim = cluster.pod(2).address().ip().to_string();
    let mut times = Vec::new();
    for _ in 0..trials::count(1) {
        // A new pool, because the return of a Pod that fails often is delayed.
        let pool = serving(&cluster.url(), 3).await;
        let load = Load::start(&pool, Target::Any, 4);
        let began = Instant::now();
        until(Duration::from_secs(20), "the Pod receives requests", || load.answered_since(&victim, began)).await;
        cluster.pause(2).await.expect("SIGSTOP is sent");
        let hung = Instant::now();
        until(Duration::from_secs(5), "the hung Pod is ejected", || in_state(&pool, State::Healthy) == 2).await;
        times.push(hung.elapsed());
        cluster.resume(2).await.expect("SIGCONT is sent");
        until(Duration::from_secs(20), "the Pod is healthy again", || in_state(&pool, State::Healthy) == 3).await;
        assert!(!load.stop().await.answers.is_empty());
    }
    assert_within(Duration::from_millis(1500), "a Pod is hung (SIGSTOP): ejected", times);
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Limits every Pod to a fifth of the processor time that it uses, under load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_pod_is_ejected_while_all_pods_are_slow() {
    const PERIOD: Duration = Duration::from_secs(5);
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let pool = serving(&cluster.url(), 3).await;
    let ejections = ejections(&pool);
    for _ in 0..trials::count(1) {
        let load = Load::start(&pool, Target::Any, 8);
        sleep(PERIOD).await;
        let usual = load.answered();
        let mut throttles = Vec::new();
        for ordinal in 0..cluster.len() {
            throttles.push(cluster.throttle(ordinal, 0.2).await.expect("the Pod is throttled"));
        }
        let before = load.answered();
        sleep(PERIOD).await;
        let slow = load.answered() - before;
        drop(throttles);
        let report = load.stop().await;
        println!("{usual} reads in {PERIOD:?}, {slow} while all Pods are slow; {} failed", report.failures.len());
        assert!(slow < usual / 2, "the Pods were not slow");
        assert_eq!(report.failures, Vec::<String>::new(), "failed reads");
        assert_eq!(*ejections.lock().unwrap(), Vec::<String>::new(), "ejections");
    }
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Promotes a standby while the former primary stays alive and writable, as after a failure of the HA manager. The
/// client only writes. Measures the time from the promotion to the last write that reached the former primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_leave_a_former_primary_that_is_still_alive() {
    let mut times = Vec::new();
    for trial in 0..trials::count(2) {
        let cluster = Cluster::start(3).await.expect("the cluster starts");
        let pool = serving(&format!("{}&target_session_attrs=read-write", cluster.url()), 3).await;
        let former = cluster.pod(0).address().ip().to_string();
        let stop = Instant::now() + Duration::from_secs(8);
        let writer = tokio::spawn({
            let (pool, former) = (pool.clone(), former.clone());
            async move {
                let mut last = None;
                while Instant::now() < stop {
                    let Ok(client) = pool.primary().await else { continue };
                    // Assigns a transaction identifier, which a server in recovery refuses.
                    let sql = "SELECT host(inet_server_addr()), txid_current()";
                    if let Ok(row) = client.query_one(sql, &[]).await
                        && row.get::<_, String>(0) == former
                    {
                        last = Some(Instant::now());
                    }
                    sleep(Duration::from_millis(5)).await;
                }
                last
            }
        });
        // A different point in the interval of the checks in each trial.
        sleep(Duration::from_millis(1500 + 137 * trial as u64 % 650)).await;
        // The new primary accepts writes as soon as it has left recovery.
        let admin = cluster.client(1).await.expect("a connection to the standby");
        let promoted = tokio::spawn(async move {
            loop {
                let row = admin.query_one("SELECT pg_is_in_recovery()", &[]).await.expect("the query succeeds");
                if !row.get::<_, bool>(0) {
                    return Instant::now();
                }
                sleep(Duration::from_millis(1)).await;
            }
        });
        cluster.promote(1).await.expect("the standby is promoted");
        let promoted = promoted.await.expect("the promotion is seen");
        let last = writer.await.expect("the writer ends").expect("the former primary has received writes");
        assert!(last < stop - Duration::from_secs(2), "the former primary received writes until the end");
        let took = last.saturating_duration_since(promoted);
        println!("trial {trial}: the last write reached the former primary {took:?} after the promotion");
        times.push(took);
        drop(pool);
        cluster.shutdown().await.expect("the cluster shuts down");
    }
    assert_within(Duration::from_secs(1), "last write on a former primary that is still alive", times);
}
