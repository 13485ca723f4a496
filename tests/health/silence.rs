//! A Pod that says nothing: its connections are open, and no byte comes back.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use podpool::{Pool, State, Target, testkit::Cluster};

use crate::{
    common::{
        paced::{Paced, Request, Spread, failures},
        until,
    },
    stage::{addresses, alone, pool, row, state_of, warm},
};

/// How long a Pod may say nothing before it is out.
const OUT: Duration = Duration::from_secs(3);
/// How long a request that was on its way there may take: the TCP user time-out, a probe that notices, and a repetition.
const MOVED_ON: Duration = Duration::from_secs(5);
/// How long a checkout may take, of all but one in a thousand.
const CHECKOUT: Duration = Duration::from_millis(5);
/// How soon after it speaks again it serves.
const BACK: Duration = Duration::from_secs(5);

/// What is seen while a Pod is silent, under load: `silence` begins it and `speak` ends it.
pub async fn silent(
    what: &str,
    pool: &Pool,
    pods: &[IpAddr],
    victim: IpAddr,
    silence: impl AsyncFnOnce(),
    speak: impl AsyncFnOnce(),
) {
    let load = Paced::start(pool, Target::Any);
    warm(&load, pods).await;

    let began = Instant::now();
    silence().await;
    let fell = Instant::now();
    until(Duration::from_secs(10), "the Pod is out", || state_of(pool, victim) != Some(State::Healthy)).await;
    let out = began.elapsed();
    // As long as it takes for what was stuck to move on, and again.
    until(MOVED_ON * 2, "time passes under load", || began.elapsed() > MOVED_ON + OUT).await;
    let ended = Instant::now();
    speak().await;
    until(Duration::from_secs(20), "the Pod answers again", || load.answered_since(victim, ended)).await;
    let back = ended.elapsed();
    let requests = load.stop().await;

    // Sent there before it fell silent, and not answered by then; or sent there since, before it was known.
    let there = |request: &Request| request.tries.first().is_some_and(|first| first.address == victim);
    let during = || requests.iter().filter(|request| request.done >= fell && request.made < ended);
    let sent_there = during().filter(|request| there(request) && request.took() > CHECKOUT).count();
    let sent_late = during().filter(|request| there(request) && request.made > fell).count();
    let stuck = during().map(Request::took).max().unwrap_or_default();
    let checkouts = Spread::new(during().filter(|request| request.made > fell).filter_map(Request::checkout));
    println!(
        "out {out:.2?} after it fell silent, back {back:.2?} after it spoke; {sent_there} requests were stuck there, \
         {sent_late} of them sent after it fell silent, for {stuck:.2?} at most; checkouts meanwhile: {checkouts}"
    );
    assert_eq!(failures(&requests), BTreeMap::new());
    row(
        what,
        "no failed read; what was in flight there waits, every other checkout takes its usual time",
        &format!("out {out:.1?}, stuck {stuck:.1?}, p99.9 of checkouts {:.1?}, back {back:.1?}", checkouts.at(0.999)),
    );
    assert!(out < OUT, "{out:?}");
    assert!(stuck < MOVED_ON, "{stuck:?}");
    assert!(back < BACK, "{back:?}");
    assert!(checkouts.at(0.999) < CHECKOUT, "{checkouts}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_stopped_costs_only_what_was_in_flight_there() {
    let _alone = alone().await;
    let cluster = Cluster::start(3).await.expect("a cluster");
    let (pool, pods) = (pool(&cluster).await, addresses(&cluster));
    let stop = async || cluster.pause(1).await.expect("SIGSTOP");
    let go_on = async || cluster.resume(1).await.expect("SIGCONT");
    silent("SIGSTOP (the server hangs)", &pool, &pods, pods[1], stop, go_on).await;
    drop(pool);
    cluster.shutdown().await.expect("an orderly end");
}
