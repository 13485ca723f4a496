//! Tests that the remaining Pods share the load evenly after a Pod is ejected.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use podpool::{State, Target, testkit::Cluster};

use crate::{
    common::{load::Load, until},
    setup::{addresses, pool, run_alone, state_of},
};

/// Maximum relative deviation of a Pod's load from an equal share.
const TOLERANCE: f64 = 0.05;
/// Number of requests in the test with 64 tasks. If the pool chose Pods at random, three standard deviations of a Pod's
/// load would be 1.5 % of an equal share, which is well within the tolerance.
const REQUESTS: usize = 40_000;

/// Kills one of three Pods and asserts that the other two serve equal shares of the requests.
async fn measure_shares(tasks: usize, requests: usize) {
    let _alone = run_alone().await;
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let pods = addresses(&cluster);
    let pool = pool(&cluster).await;
    cluster.kill(1).await.expect("SIGKILL is sent");
    let ejected = || state_of(&pool, pods[1]) == Some(State::Ejected);
    until(Duration::from_secs(10), "the killed Pod is ejected", ejected).await;
    let load = Load::start(&pool, Target::Any, tasks);
    let count = load.answered();
    until(Duration::from_secs(10), "1,000 requests complete", || load.answered() > count + 1000).await;
    let (from, count) = (Instant::now(), load.answered());
    until(Duration::from_secs(50), "the measured requests complete", || load.answered() > count + requests).await;
    let to = Instant::now();
    let report = load.stop().await;
    let shares = report.shares(from, to);
    let equal = shares.values().sum::<usize>() as f64 / 2.0;
    let relative: BTreeMap<_, _> = shares.iter().map(|(pod, n)| (pod, *n as f64 / equal)).collect();
    println!("{tasks} tasks, {} requests in {:.1?}: shares {relative:.3?}", 2.0 * equal, to - from);
    assert_eq!(report.failures, Vec::<String>::new(), "failed requests");
    assert_eq!(shares.len(), 2, "expected two Pods to serve requests: {shares:?}");
    for (pod, share) in relative {
        assert!((share - 1.0).abs() <= TOLERANCE, "Pod {pod} has {share:.3} of an equal share");
    }
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn remaining_pods_share_the_load_evenly_with_1_task() {
    // Even if the pool chose Pods at random, a Pod's share of 6,000 requests would deviate from an equal share by more
    // than 5 % in only about one of 10,000 runs.
    measure_shares(1, 6_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn remaining_pods_share_the_load_evenly_with_64_tasks() {
    measure_shares(64, REQUESTS).await;
}
