//! Tests that no request fails when a Pod is killed, restarts, moves to another address, or has no free connection
//! slots, and that each target selects the same servers as in libpq.

use std::time::{Duration, Instant};

use podpool::{Pool, State, Target, testkit::Cluster};

mod common;
use common::{in_state, load::Load, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_succeed_while_a_standby_is_killed_and_restarted() {
    common::init_logging();
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let pool = Pool::connect(&cluster.url()).await.expect("the pool is created");
    until(Duration::from_secs(10), "three Pods serve", || in_state(&pool, State::Healthy) == 3).await;
    let victim = cluster.pod(1).address().ip().to_string();

    let load = Load::start(&pool, Target::Any, 8);
    let began = Instant::now();
    until(Duration::from_secs(10), "the Pod receives requests", || load.answered_since(&victim, began)).await;

    cluster.kill(1).await.expect("SIGKILL is sent");
    let killed = Instant::now();
    until(Duration::from_secs(5), "the killed Pod is ejected", || in_state(&pool, State::Healthy) == 2).await;
    let ejected = killed.elapsed();
    let answered = load.answered();
    until(Duration::from_secs(10), "the other Pods answer 500 requests", || load.answered() > answered + 500).await;

    cluster.start_pod(1).await.expect("the Pod restarts");
    let started = Instant::now();
    until(Duration::from_secs(10), "the Pod receives requests again", || load.answered_since(&victim, started)).await;
    let back = started.elapsed();
    let report = load.stop().await;
    println!(
        "ejected {ejected:?} after the kill, serving again {back:?} after the restart, {} responses",
        report.answers.len()
    );
    assert_eq!(report.failures, Vec::<String>::new(), "failed requests");
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_follows_a_pod_to_its_new_address() {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let pool = Pool::connect(&cluster.url()).await.expect("the pool is created");
    until(Duration::from_secs(10), "three Pods serve", || in_state(&pool, State::Healthy) == 3).await;
    let old = cluster.pod(2).address().ip().to_string();

    let load = Load::start(&pool, Target::Any, 4);
    cluster.move_pod(2).await.expect("the Pod moves");
    let moved = Instant::now();
    let new = cluster.pod(2).address().ip().to_string();
    assert_ne!(old, new);
    until(Duration::from_secs(15), "the new address receives requests", || load.answered_since(&new, moved)).await;
    let followed = moved.elapsed();
    let known =
        || pool.status().endpoints.iter().any(|pod| pod.endpoint.address().tcp().unwrap().ip().to_string() == old);
    until(Duration::from_secs(15), "the old address is removed", || !known()).await;
    let removed = moved.elapsed();
    let report = load.stop().await;
    // Traffic follows the moved Pod after at most one refresh interval with its jitter of 10 %, and one probe interval
    // with its jitter of 20 %.
    let limits = pool.config().limits();
    let bound = limits.refresh_max.mul_f64(1.1) + limits.probe_interval.mul_f64(1.2);
    println!("traffic followed {followed:?} after the move, old address removed after {removed:?}; bound {bound:?}");
    assert!(followed < bound, "traffic followed the Pod only after {followed:?}, expected less than {bound:?}");
    assert_eq!(report.failures, Vec::<String>::new(), "failed requests");
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Checks out a connection and returns two properties of its server: whether it is in recovery, and whether its
/// transactions are read-only by default.
async fn server_mode(pool: &Pool, target: Target) -> (bool, bool) {
    let client =
        pool.get_for(target).await.unwrap_or_else(|error| panic!("checkout for target {target} failed: {error:?}"));
    let query = "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::bool";
    let row = client.query_one(query, &[]).await.expect("the query succeeds");
    (row.get(0), row.get(1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_target_selects_the_same_servers_as_in_libpq() {
    const CHECKOUTS: usize = 60;
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let pool = Pool::connect(&cluster.url()).await.expect("the pool is created");
    until(Duration::from_secs(10), "three Pods serve", || in_state(&pool, State::Healthy) == 3).await;
    let seen = async |target| {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..CHECKOUTS {
            seen.insert(server_mode(&pool, target).await);
        }
        Vec::from_iter(seen)
    };
    let (primary, standby) = ((false, false), (true, false));
    assert_eq!(seen(Target::Any).await, [primary, standby]);
    assert_eq!(seen(Target::ReadWrite).await, [primary]);
    assert_eq!(seen(Target::Primary).await, [primary]);
    assert_eq!(seen(Target::PreferPrimary).await, [primary]);
    assert_eq!(seen(Target::ReadOnly).await, [standby]);
    assert_eq!(seen(Target::Standby).await, [standby]);
    assert_eq!(seen(Target::PreferStandby).await, [standby]);

    // While no standby is up, only the targets that require a standby fail.
    for ordinal in [1, 2] {
        cluster.kill(ordinal).await.expect("SIGKILL is sent");
    }
    until(Duration::from_secs(10), "only the primary serves", || in_state(&pool, State::Healthy) == 1).await;
    for &target in Target::ALL {
        let requires_standby = matches!(target, Target::ReadOnly | Target::Standby);
        if !requires_standby {
            assert_eq!(seen(target).await, [primary], "servers of target {target}");
            continue;
        }
        let within = Duration::from_millis(300);
        let error = pool.wait_ready(target, within).await.expect_err("no standby serves");
        assert_eq!(error.kind(), podpool::Kind::NoEndpoints, "target {target}: {error:?}");
    }

    // As in libpq, a primary with default_transaction_read_only=on matches `read-only` and not `read-write`.
    let superuser = cluster.client(0).await.expect("the superuser connects");
    superuser
        .batch_execute("ALTER SYSTEM SET default_transaction_read_only = on")
        .await
        .expect("the setting is changed");
    superuser.batch_execute("SELECT pg_reload_conf()").await.expect("the configuration is reloaded");
    let read_only = || pool.wait_ready(Target::ReadOnly, Duration::from_secs(20));
    read_only().await.expect("the primary is read-only");
    assert_eq!(seen(Target::ReadOnly).await, [(false, true)]);
    assert_eq!(seen(Target::Primary).await, [(false, true)]);
    pool.wait_ready(Target::ReadWrite, Duration::from_millis(300)).await.expect_err("no server accepts writes");
    drop((superuser, pool));
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_without_free_connection_slots_stays_healthy() {
    common::init_logging();
    let cluster =
        Cluster::builder().pods(2).setting("max_connections", "14").start().await.expect("the cluster starts");
    let pool = Pool::connect(&cluster.url()).await.expect("the pool is created");
    until(Duration::from_secs(10), "both Pods serve", || in_state(&pool, State::Healthy) == 2).await;
    let full = cluster.pod(1).address().ip().to_string();
    // Two other pools use all free connection slots of Pod 1.
    let config: podpool::Config = cluster.pod_url(1).parse().expect("the URL parses");
    let mut sessions = Vec::new();
    let others = Pool::builder(config.clone()).build().expect("the pool is created");
    let more = Pool::builder(config).build().expect("the pool is created");
    for taken in [&others, &more] {
        while let Ok(client) = tokio::time::timeout(Duration::from_millis(500), taken.get()).await {
            match client {
                Ok(client) => sessions.push(client),
                Err(_) => break,
            }
        }
    }
    // This load makes the pool dial more connections, which Pod 1 refuses.
    let began = Instant::now();
    let load = Load::start(&pool, Target::Any, 16);
    until(Duration::from_secs(10), "a connection was refused", || pool.status().counters.open_failed > 0).await;
    let (count, since) = (load.answered(), Instant::now());
    // The load must last for longer than the maximum interval between two probes.
    let longest = pool.config().limits().probe_interval.mul_f64(1.3);
    let probed = || since.elapsed() > longest && load.answered() > count + 500;
    until(longest * 3, "a probe interval passes under load", probed).await;
    assert_eq!(in_state(&pool, State::Healthy), 2, "a full Pod was ejected: {:?}", pool.status());
    assert!(load.answered_since(&full, since), "open connections of the full Pod serve no requests");
    let report = load.stop().await;
    println!("{} sessions of other pools, {} responses in {:?}", sessions.len(), report.answers.len(), began.elapsed());
    assert_eq!(report.failures, Vec::<String>::new(), "failed requests");
    drop((sessions, others, more, pool));
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// `ALTER DATABASE … SET default_transaction_read_only` affects only new sessions. The pool notices the setting, and
/// later its reset, although the probe's session was opened before the reset.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_resume_after_the_database_is_no_longer_read_only() {
    let limit = Duration::from_secs(10);
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let pool = Pool::connect(&cluster.url()).await.expect("the pool is created");
    pool.wait_ready(Target::ReadWrite, limit).await.expect("the primary accepts writes");
    let superuser = cluster.client(0).await.expect("the superuser connects");
    let database = cluster.database();
    for round in 0..3 {
        superuser
            .batch_execute(&format!(
                "ALTER DATABASE \"{database}\" SET default_transaction_read_only = on;
                 SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            ))
            .await
            .expect("the setting is changed, and all other sessions end");
        let began = Instant::now();
        while pool.wait_ready(Target::ReadWrite, Duration::from_millis(100)).await.is_ok() {
            assert!(began.elapsed() < limit, "the read-only primary still counts as writable");
        }
        superuser
            .batch_execute(&format!("ALTER DATABASE \"{database}\" RESET default_transaction_read_only"))
            .await
            .expect("the setting is reset");
        let reset = Instant::now();
        pool.wait_ready(Target::ReadWrite, limit).await.expect("the primary accepts writes again");
        let client = pool.get_for(Target::ReadWrite).await.expect("checkout succeeds");
        client.batch_execute("CREATE TABLE IF NOT EXISTS written ()").await.expect("the write succeeds");
        println!("round {round}: writes resumed {:.1?} after the reset", reset.elapsed());
    }
    drop(superuser);
    pool.close().await;
    cluster.shutdown().await.expect("the cluster shuts down");
}
