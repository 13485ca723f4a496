//! A Pod dies, comes back, moves: what callers notice of it.

use std::time::{Duration, Instant};

use podpool::{Pool, State, Target, testkit::Cluster};

mod common;
use common::{in_state, load::Load, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_standby_fails_no_request_and_serves_again_after_its_restart() {
    common::logged();
    let cluster = Cluster::start(3).await.expect("a cluster");
    let pool = Pool::connect(&cluster.url()).await.expect("a pool");
    until(Duration::from_secs(10), "three Pods serve", || in_state(&pool, State::Healthy) == 3).await;
    let victim = cluster.pod(1).address().ip().to_string();

    let load = Load::start(&pool, Target::Any, 8);
    let began = Instant::now();
    until(Duration::from_secs(10), "the Pod answers", || load.answered_since(&victim, began)).await;

    cluster.kill(1).await.expect("SIGKILL");
    let killed = Instant::now();
    until(Duration::from_secs(5), "the Pod is out", || in_state(&pool, State::Healthy) == 2).await;
    let out = killed.elapsed();
    let answered = load.answered();
    until(Duration::from_secs(10), "the others answer", || load.answered() > answered + 500).await;

    cluster.start_pod(1).await.expect("a restart");
    let started = Instant::now();
    until(Duration::from_secs(10), "the Pod answers again", || load.answered_since(&victim, started)).await;
    let back = started.elapsed();
    let report = load.stop().await;
    println!("out {out:?} after the kill, answering {back:?} after the restart, {} answers", report.answers.len());
    assert_eq!(report.failures, Vec::<String>::new());
    drop(pool);
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_follows_a_pod_that_moved() {
    let cluster = Cluster::start(3).await.expect("a cluster");
    let pool = Pool::connect(&cluster.url()).await.expect("a pool");
    until(Duration::from_secs(10), "three Pods serve", || in_state(&pool, State::Healthy) == 3).await;
    let old = cluster.pod(2).address().ip().to_string();

    let load = Load::start(&pool, Target::Any, 4);
    cluster.move_pod(2).await.expect("a move");
    let moved = Instant::now();
    let new = cluster.pod(2).address().ip().to_string();
    assert_ne!(old, new);
    until(Duration::from_secs(15), "the new address answers", || load.answered_since(&new, moved)).await;
    let followed = moved.elapsed();
    let known = || pool.status().endpoints.iter().any(|pod| pod.endpoint.address().ip().to_string() == old);
    until(Duration::from_secs(15), "the old address is gone", || !known()).await;
    let forgotten = moved.elapsed();
    let report = load.stop().await;
    // One refresh is the records' TTL, a tenth more at most, and one probe is an interval and a fifth at most.
    let limits = pool.config().limits();
    let bound = limits.refresh_max.mul_f64(1.1) + limits.probe_interval.mul_f64(1.2);
    println!(
        "traffic followed {followed:?} after the move, the old address was gone after {forgotten:?}; bound {bound:?}"
    );
    assert!(followed < bound, "{followed:?}");
    assert_eq!(report.failures, Vec::<String>::new());
    drop(pool);
    cluster.shutdown().await.expect("an orderly end");
}

/// What the server itself says that it is: in recovery, and read-only by default.
async fn server_says(pool: &Pool, target: Target) -> (bool, bool) {
    let client = pool.get_for(target).await.unwrap_or_else(|error| panic!("{target}: {error:?}"));
    let question = "SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only')::bool";
    let row = client.query_one(question, &[]).await.expect("an answer");
    (row.get(0), row.get(1))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_of_the_seven_targets_gets_what_libpq_would_accept() {
    const CHECKOUTS: usize = 60;
    let cluster = Cluster::start(3).await.expect("a cluster");
    let pool = Pool::connect(&cluster.url()).await.expect("a pool");
    until(Duration::from_secs(10), "three Pods serve", || in_state(&pool, State::Healthy) == 3).await;
    let seen = async |target| {
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..CHECKOUTS {
            seen.insert(server_says(&pool, target).await);
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

    // Without a standby, only who demands one goes without.
    for ordinal in [1, 2] {
        cluster.kill(ordinal).await.expect("SIGKILL");
    }
    until(Duration::from_secs(10), "the primary is alone", || in_state(&pool, State::Healthy) == 1).await;
    for target in Target::ALL {
        let demands = matches!(target, Target::ReadOnly | Target::Standby);
        if !demands {
            assert_eq!(seen(target).await, [primary], "{target}");
            continue;
        }
        let within = Duration::from_millis(300);
        let error = pool.wait_ready(target, within).await.expect_err("there is none");
        assert_eq!(error.kind(), podpool::Kind::NoEndpoints, "{target}: {error:?}");
    }

    // A primary that is read-only by default is libpq's `read-only`, and not its `read-write`.
    let superuser = cluster.client(0).await.expect("a superuser's connection");
    superuser.batch_execute("ALTER SYSTEM SET default_transaction_read_only = on").await.expect("a setting");
    superuser.batch_execute("SELECT pg_reload_conf()").await.expect("a reload");
    let read_only = || pool.wait_ready(Target::ReadOnly, Duration::from_secs(20));
    read_only().await.expect("the primary is read-only");
    assert_eq!(seen(Target::ReadOnly).await, [(false, true)]);
    assert_eq!(seen(Target::Primary).await, [(false, true)]);
    pool.wait_ready(Target::ReadWrite, Duration::from_millis(300)).await.expect_err("nobody takes writes");
    drop((superuser, pool));
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_without_a_free_session_is_full_and_not_sick() {
    common::logged();
    let cluster = Cluster::builder().pods(2).setting("max_connections", "14").start().await.expect("a cluster");
    let pool = Pool::connect(&cluster.url()).await.expect("a pool");
    until(Duration::from_secs(10), "both Pods serve", || in_state(&pool, State::Healthy) == 2).await;
    let full = cluster.pod(1).address().ip().to_string();
    // Others take every session that is left on Pod 1.
    let config: podpool::Config = cluster.pod_url(1).parse().expect("a URL");
    let mut sessions = Vec::new();
    let others = Pool::builder(config.clone()).build().expect("a pool");
    let more = Pool::builder(config).build().expect("a pool");
    for taken in [&others, &more] {
        while let Ok(client) = tokio::time::timeout(Duration::from_millis(500), taken.get()).await {
            match client {
                Ok(client) => sessions.push(client),
                Err(_) => break,
            }
        }
    }
    // The pool would grow under this load, and cannot there.
    let began = Instant::now();
    let load = Load::start(&pool, Target::Any, 16);
    until(Duration::from_secs(10), "a connection was refused", || pool.status().counters.open_failed > 0).await;
    let (count, since) = (load.answered(), Instant::now());
    // Longer than any interval between two probes.
    let longest = pool.config().limits().probe_interval.mul_f64(1.3);
    until(longest * 3, "a probe's interval", || since.elapsed() > longest && load.answered() > count + 500).await;
    assert_eq!(in_state(&pool, State::Healthy), 2, "{:?}", pool.status());
    assert!(load.answered_since(&full, since), "what is open there goes on serving");
    let report = load.stop().await;
    println!("{} sessions of others, {} answers in {:?}", sessions.len(), report.answers.len(), began.elapsed());
    assert_eq!(report.failures, Vec::<String>::new());
    drop((sessions, others, more, pool));
    cluster.shutdown().await.expect("an orderly end");
}
