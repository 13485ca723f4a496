//! Tests that callers leave a primary that has stopped responding, without waiting for its TCP timeout.

use std::time::{Duration, Instant};

use podpool::{Pool, State, testkit::Cluster};
use tokio::time::timeout;

mod common;
use common::{in_state, until};

/// The pool aborts the statements in flight on a frozen primary as soon as another Pod's promotion is known. Until
/// then, the primary may still respond, and its connections are kept for the time that `tcp_user_timeout` allows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_on_a_frozen_primary_end_when_another_pod_is_promoted() {
    common::init_logging();
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let url = format!("{}&target_session_attrs=read-write&tcp_user_timeout=30000", cluster.url());
    let pool = Pool::connect(&url).await.expect("the pool is created");
    until(Duration::from_secs(20), "all Pods serve", || in_state(&pool, State::Healthy) == 3).await;
    let client = pool.primary().await.expect("checkout succeeds");
    let mut statement = tokio::spawn(async move { client.simple_query("SELECT pg_sleep(120)").await.map(drop) });

    cluster.pause(0).await.expect("SIGSTOP is sent");
    until(Duration::from_secs(10), "the primary is ejected", || in_state(&pool, State::Ejected) == 1).await;
    timeout(Duration::from_secs(2), &mut statement).await.expect_err("the statement waits for the frozen primary");
    // A caller that waits for a primary makes the pool probe all Pods in quick succession.
    let writer = tokio::spawn({
        let pool = pool.clone();
        async move { pool.primary().await }
    });
    cluster.promote(1).await.expect("the standby is promoted");
    let promoted = Instant::now();
    let ended = timeout(Duration::from_secs(20), &mut statement).await.expect("the statement ends");
    ended.expect("the task does not panic").expect_err("the server has not responded");
    let took = promoted.elapsed();
    println!("the statement ended {took:.0?} after the promotion; `tcp_user_timeout` is 30 s");
    assert!(took < Duration::from_secs(1), "{took:?}");
    let writer = writer.await.expect("the task does not panic").expect("checkout succeeds");
    assert_eq!(writer.endpoint().address().tcp().unwrap(), cluster.pod(1).address());
    drop((writer, pool));
    cluster.resume(0).await.expect("SIGCONT is sent");
    cluster.shutdown().await.expect("the cluster shuts down");
}
