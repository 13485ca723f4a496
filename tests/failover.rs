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
