//! Pods that say nothing: their connections are open, and no byte comes back.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use podpool::{
    Config, Endpoint, Pool, State, Target,
    discovery::Fixed,
    testkit::{Cluster, Shutdown},
};

use crate::{
    common::{
        in_state,
        paced::{PACE, Paced, Request, Spread, failures},
        until,
    },
    stage::{addresses, alone, row, state_of, warm},
};

/// Pools, each with the primary and two standbys of its own, so that one Pod of three is silent at a time.
const LANES: usize = 3;
/// Faults in each of them.
const FAULTS: usize = 7;
/// Pods of the cluster.
pub const PODS: usize = 1 + LANES * 2;
/// How long a Pod may say nothing before it is out.
const OUT: Duration = Duration::from_secs(3);
/// How long a request that was on its way there may take: the TCP user time-out, a probe that notices, and a repetition.
const MOVED_ON: Duration = Duration::from_secs(5);
/// How long a checkout may take, of all but one in a thousand.
const CHECKOUT: Duration = Duration::from_millis(5);
/// How soon after it speaks again it serves.
const BACK: Duration = Duration::from_secs(5);

/// What one fault did.
struct Fault {
    out: Duration,
    back: Duration,
    /// Of the requests that were sent there, those that got stuck, and those of them that were sent after it fell silent.
    stuck: usize,
    late: usize,
    /// The longest that one was.
    longest: Duration,
    checkouts: Vec<Duration>,
}

/// What is seen of silent Pods under load: `silence` and `speak` begin and end the silence of the Pod with this ordinal.
pub async fn silent(what: &str, cluster: &Cluster, silence: impl AsyncFn(usize), speak: impl AsyncFn(usize)) {
    let lanes = join_all((0..LANES).map(|lane| lane_of(cluster, lane, &silence, &speak))).await;
    let faults: Vec<Fault> = lanes.into_iter().flatten().collect();
    let spread = |of: fn(&Fault) -> Duration| Spread::new(faults.iter().map(of));
    let (out, back, longest) = (spread(|f| f.out), spread(|f| f.back), spread(|f| f.longest));
    let checkouts = Spread::new(faults.iter().flat_map(|fault| fault.checkouts.iter().copied()));
    let stuck: Vec<_> = faults.iter().map(|fault| (fault.stuck, fault.late)).collect();
    println!("{what}, {} faults, one of three Pods each: out after {out}; back after {back}", faults.len());
    println!(
        "requests stuck, and those of them that were made after it fell silent: {stuck:?}; the longest: {longest}"
    );
    println!("checkouts meanwhile: {checkouts}");
    row(
        what,
        "no failed read; what was in flight there waits, every other checkout takes its usual time",
        &format!(
            "out {:.1?}, stuck {:.1?}, back {:.1?} (p95 of {}); p99.9 of checkouts {:.1?}",
            out.at(0.95),
            longest.at(0.95),
            back.at(0.95),
            faults.len(),
            checkouts.at(0.999)
        ),
    );
    assert!(faults.len() >= 20);
    assert!(out.at(0.95) < OUT, "{out}");
    assert!(longest.at(0.95) < MOVED_ON, "{longest}");
    assert!(back.at(0.95) < BACK, "{back}");
    assert!(checkouts.at(0.999) < CHECKOUT, "{checkouts}");
}

async fn lane_of(
    cluster: &Cluster,
    lane: usize,
    silence: &impl AsyncFn(usize),
    speak: &impl AsyncFn(usize),
) -> Vec<Fault> {
    let ordinals = [0, 1 + lane * 2, 2 + lane * 2];
    let endpoints = ordinals.map(|ordinal| Endpoint::new(cluster.pod(ordinal).address()));
    let pods = endpoints.clone().map(|endpoint| endpoint.address().ip());
    let config: Config = cluster.url().parse().expect("a URL");
    let pool = Pool::builder(config).resolver(Fixed::new(endpoints)).build().expect("a pool");
    until(Duration::from_secs(10), "every Pod serves", || in_state(&pool, State::Healthy) == pods.len()).await;
    let load = Paced::every(PACE * LANES as u32, &pool, Target::Any);
    let mut times = Vec::new();
    for fault in 0..FAULTS {
        let (ordinal, victim) = (ordinals[1 + fault % 2], pods[1 + fault % 2]);
        warm(&load, &pods).await;
        let began = Instant::now();
        silence(ordinal).await;
        let fell = Instant::now();
        until(Duration::from_secs(10), "the Pod is out", || state_of(&pool, victim) != Some(State::Healthy)).await;
        let out = began.elapsed();
        // Until what was stuck has moved on, or should have.
        let count = load.count();
        until(MOVED_ON * 2, "time passes under load", || fell.elapsed() > MOVED_ON && load.count() > count + 100).await;
        let ended = Instant::now();
        speak(ordinal).await;
        until(Duration::from_secs(20), "the Pod answers again", || load.answered_since(victim, ended)).await;
        times.push((victim, out, fell, ended, ended.elapsed()));
    }
    let requests = load.stop().await;
    assert_eq!(failures(&requests), BTreeMap::new());
    let seen = |(victim, out, fell, ended, back): (IpAddr, Duration, Instant, Instant, Duration)| {
        let during = || requests.iter().filter(|request| request.done >= fell && request.made < ended);
        let there = |request: &&Request| {
            request.took() > CHECKOUT * 20 && request.tries.iter().any(|one| one.address == victim)
        };
        let made_since = || during().filter(|request| request.made > fell);
        Fault {
            out,
            back,
            stuck: during().filter(there).count(),
            late: made_since().filter(there).count(),
            longest: during().map(Request::took).max().unwrap_or_default(),
            checkouts: made_since().filter_map(Request::checkout).collect(),
        }
    };
    times.into_iter().map(seen).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_stopped_costs_only_what_was_in_flight_there() {
    let _alone = alone().await;
    let cluster = Cluster::start(PODS).await.expect("a cluster");
    let stop = async |pod| cluster.pause(pod).await.expect("SIGSTOP");
    let go_on = async |pod| cluster.resume(pod).await.expect("SIGCONT");
    silent("SIGSTOP (the server hangs)", &cluster, stop, go_on).await;
    cluster.shutdown().await.expect("an orderly end");
}

/// Pools that have been idle for so long that their connections want a ping, while a Pod is stopped: each trial stops it
/// anew. The pools come one after the other, each with a few requests in turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkout_of_an_idle_pool_does_not_wait_for_a_pod_that_is_stopped() {
    const POOLS: usize = 12;
    const TRIALS: usize = 20;
    const REQUESTS: usize = 4;
    let _alone = alone().await;
    let cluster = Cluster::start(3).await.expect("a cluster");
    let pods = addresses(&cluster);
    let mut pools = Vec::new();
    for _ in 0..POOLS {
        let pool = crate::stage::pool(&cluster).await;
        let idle = || pool.status().endpoints.iter().all(|pod| pod.idle > 0);
        until(Duration::from_secs(10), "every Pod has an idle connection", idle).await;
        pools.push(pool);
    }
    let idle_for = pools[0].config().limits().ping_after + Duration::from_millis(300);
    let (mut checkouts, mut pinged) = (Vec::new(), 0);
    for trial in 0..TRIALS {
        let ordinal = 1 + trial % 2;
        let quiet = Instant::now();
        until(idle_for * 2, "the connections grow stale", || quiet.elapsed() > idle_for).await;
        let waits = || pools.iter().map(|pool| pool.status().counters.waits).sum::<u64>();
        let before = waits();
        cluster.pause(ordinal).await.expect("SIGSTOP");
        for pool in &pools {
            for _ in 0..REQUESTS {
                let asked = Instant::now();
                let client = pool.get_for(Target::Any).await.expect("a connection");
                checkouts.push(asked.elapsed());
                assert_ne!(client.endpoint().address().ip(), pods[ordinal], "it has not answered");
                client.simple_query("SELECT").await.expect("an answer");
            }
        }
        pinged += waits() - before;
        cluster.resume(ordinal).await.expect("SIGCONT");
        // A Pod that is stopped for no longer than this is not out.
        assert!(pools.iter().all(|pool| in_state(pool, State::Healthy) == 3), "longer than a probe's time-out");
    }
    let detours = checkouts.iter().filter(|took| **took >= Duration::from_millis(1)).count();
    let checkouts = Spread::new(checkouts);
    println!("idle pools, {TRIALS} stops: checkouts: {checkouts}; {pinged} pinged, {detours} went elsewhere");
    row(
        "SIGSTOP, connections idle for more than a second",
        "nothing: a ping that is not answered in 1 ms is left behind, and another Pod serves",
        &format!("p95 of {} checkouts {:.1?}, p99.9 {:.1?}", checkouts.len(), checkouts.at(0.95), checkouts.at(0.999)),
    );
    assert!(detours >= TRIALS, "the stopped Pod was never chosen");
    // About one in twelve has to go elsewhere, after a millisecond and another Pod's ping; none waits for the time-out of a ping.
    assert!(checkouts.at(0.95) < CHECKOUT, "{checkouts}");
    assert!(checkouts.at(0.999) < CHECKOUT * 10, "{checkouts}");
    drop(pools);
    cluster.shutdown().await.expect("an orderly end");
}

/// Pods that leave DNS while a statement runs there, and are stopped only then: nobody probes them any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_is_stopped_while_it_is_drained_holds_nobody_for_long() {
    const POOLS: usize = 4;
    const VICTIMS: usize = 5;
    /// It only takes long.
    const SLOW: usize = VICTIMS + 1;
    let _alone = alone().await;
    let cluster = Cluster::start(VICTIMS + 2).await.expect("a cluster");
    let pods = addresses(&cluster);
    let mut pools = Vec::new();
    let mut statements = Vec::new();
    for _ in 0..POOLS {
        let pool = crate::stage::pool(&cluster).await;
        let mut clients = BTreeMap::new();
        let mut others = Vec::new();
        while clients.len() < pods.len() {
            let client = pool.get_for(Target::Any).await.expect("a connection");
            let address = client.endpoint().address().ip();
            others.extend(clients.insert(address, client));
        }
        for (ordinal, address) in pods.iter().enumerate().skip(1) {
            let client = clients.remove(address).expect("it is there");
            let seconds = if ordinal == SLOW { 9 } else { 60 };
            statements.push(tokio::spawn(async move {
                let answer = client.batch_execute(&format!("SELECT pg_sleep({seconds})")).await;
                (ordinal, answer.map_err(|error| error.to_string()), Instant::now())
            }));
        }
        pools.push(pool);
    }
    (1..=SLOW).for_each(|ordinal| cluster.unpublish(ordinal).expect("out of DNS"));
    let drained = || pools.iter().all(|pool| pool.status().endpoints.len() == 1);
    until(Duration::from_secs(15), "the Pods are drained", drained).await;
    let mut stopped = BTreeMap::new();
    for ordinal in 1..=VICTIMS {
        // One after the other, so that each finds the pools at another moment.
        cluster.pause(ordinal).await.expect("SIGSTOP");
        stopped.insert(ordinal, Instant::now());
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..150))).await;
    }
    let (mut held, mut slow) = (Vec::new(), 0);
    for statement in statements {
        let (ordinal, answer, ended) = statement.await.expect("it does not panic");
        match stopped.get(&ordinal) {
            Some(stopped) => {
                assert!(answer.is_err(), "a stopped server has answered");
                held.push(ended - *stopped);
            }
            None => {
                assert_eq!(answer, Ok(()), "a slow statement of a Pod that answers");
                slow += 1;
            }
        }
    }
    let held = Spread::new(held);
    println!(
        "{VICTIMS} drained Pods stopped, {POOLS} pools each: statements given up after {held}; {slow} slow ones ended well"
    );
    row(
        "a Pod hangs after it left DNS",
        "what was in flight there waits, and is done again elsewhere by `retry`",
        &format!("given up after {:.1?} (p95 of {}: {VICTIMS} Pods, {POOLS} pools)", held.at(0.95), held.len()),
    );
    assert_eq!((held.len(), slow), (VICTIMS * POOLS, POOLS));
    assert!(held.at(0.95) < MOVED_ON, "{held}");
    for ordinal in 1..=VICTIMS {
        cluster.resume(ordinal).await.expect("SIGCONT");
        cluster.stop(ordinal, Shutdown::Immediate).await.expect("an end");
    }
    drop(pools);
    cluster.shutdown().await.expect("an orderly end");
}
