//! Who does the work of a Pod that is out: all the others, evenly.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use podpool::{State, Target, testkit::Cluster};

use crate::{
    common::{load::Load, until},
    stage::{addresses, alone, pool, state_of},
};

/// Of an equal share.
const TOLERANCE: f64 = 0.05;
/// Enough for chance to stay far within the tolerance: with two Pods, three standard deviations are 1.5 % of a share.
const ANSWERS: usize = 40_000;

async fn shares_of_the_survivors(tasks: usize, answers: usize) {
    let _alone = alone().await;
    let cluster = Cluster::start(3).await.expect("a cluster");
    let pods = addresses(&cluster);
    let pool = pool(&cluster).await;
    cluster.kill(1).await.expect("SIGKILL");
    let out = || state_of(&pool, pods[1]) == Some(State::Ejected);
    until(Duration::from_secs(10), "the Pod is out", out).await;
    let load = Load::start(&pool, Target::Any, tasks);
    let count = load.answered();
    until(Duration::from_secs(10), "the pools have grown", || load.answered() > count + 1000).await;
    let (from, count) = (Instant::now(), load.answered());
    until(Duration::from_secs(50), "enough answers", || load.answered() > count + answers).await;
    let to = Instant::now();
    let report = load.stop().await;
    let shares = report.shares(from, to);
    let equal = shares.values().sum::<usize>() as f64 / 2.0;
    let relative: BTreeMap<_, _> = shares.iter().map(|(pod, n)| (pod, *n as f64 / equal)).collect();
    println!("{tasks} tasks, {} answers in {:.1?}: {relative:.3?}", 2.0 * equal, to - from);
    assert_eq!(report.failures, Vec::<String>::new());
    assert_eq!(shares.len(), 2, "{shares:?}");
    for (pod, share) in relative {
        assert!((share - 1.0).abs() <= TOLERANCE, "{pod}: {share}");
    }
    drop(pool);
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_survivors_share_evenly_at_1_task() {
    // Even where each is the toss of a coin, 6,000 deviate by 5 % less than once in ten thousand times.
    shares_of_the_survivors(1, 6_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_survivors_share_evenly_at_64_tasks() {
    shares_of_the_survivors(64, ANSWERS).await;
}
