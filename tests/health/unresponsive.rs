//! Measures the effects of Pods that hang: they do not respond, but their connections stay open.

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
    setup::{addresses, row, run_alone, state_of, warm},
};

/// Number of pools that run in parallel. Each pool uses the primary and two standbys that no other pool uses. At any
/// time, at most one of its three Pods is unresponsive.
const LANES: usize = 3;
/// Number of faults per pool.
const FAULTS: usize = 7;
/// Number of Pods in the cluster: the primary and two standbys for each pool.
pub const PODS: usize = 1 + LANES * 2;
/// Maximum time until an unresponsive Pod is ejected.
const OUT: Duration = Duration::from_secs(3);
/// Maximum duration of a request that was in flight on an unresponsive Pod. It includes the TCP user timeout, a failed
/// probe, and a retry.
const STUCK: Duration = Duration::from_secs(5);
/// Maximum 99.9th percentile of the checkout times.
const CHECKOUT: Duration = Duration::from_millis(5);
/// Maximum time from the end of the fault until the Pod serves again.
const BACK: Duration = Duration::from_secs(5);

/// Measurements of one fault.
struct Fault {
    /// Time from the start of the fault until the Pod was ejected.
    out: Duration,
    /// Time from the end of the fault until the Pod served again.
    back: Duration,
    /// Number of requests that were stuck on the Pod.
    stuck: usize,
    /// Number of stuck requests that started after the fault began.
    late: usize,
    /// Maximum duration of a request.
    longest: Duration,
    /// Durations of the checkouts that started during the fault.
    checkouts: Vec<Duration>,
}

/// Makes Pods unresponsive under load, and asserts that the effects are within limits. `begin` and `end` start and end
/// the fault of the Pod with a given ordinal.
pub async fn measure(name: &str, cluster: &Cluster, begin: impl AsyncFn(usize), end: impl AsyncFn(usize)) {
    let lanes = join_all((0..LANES).map(|lane| run_lane(cluster, lane, &begin, &end))).await;
    let faults: Vec<Fault> = lanes.into_iter().flatten().collect();
    let spread = |of: fn(&Fault) -> Duration| Spread::new(faults.iter().map(of));
    let (out, back, longest) = (spread(|f| f.out), spread(|f| f.back), spread(|f| f.longest));
    let checkouts = Spread::new(faults.iter().flat_map(|fault| fault.checkouts.iter().copied()));
    let stuck: Vec<_> = faults.iter().map(|fault| (fault.stuck, fault.late)).collect();
    println!("{name}, {} faults of one Pod in three: ejected after {out}; back after {back}", faults.len());
    println!("stuck requests per fault (all, started after it began): {stuck:?}; longest: {longest}");
    println!("checkouts during the faults: {checkouts}");
    row(
        name,
        "no failed read; requests in flight on that Pod wait, other checkouts are not delayed",
        &format!(
            "ejected after {:.1?}, stuck for {:.1?}, back after {:.1?} (p95 of {}); p99.9 of checkouts {:.1?}",
            out.at(0.95),
            longest.at(0.95),
            back.at(0.95),
            faults.len(),
            checkouts.at(0.999)
        ),
    );
    assert!(faults.len() >= 20, "too few faults: {}", faults.len());
    assert!(out.at(0.95) < OUT, "unresponsive Pods were ejected too late: {out}");
    assert!(longest.at(0.95) < STUCK, "requests were stuck for too long: {longest}");
    assert!(back.at(0.95) < BACK, "Pods served again too late: {back}");
    assert!(checkouts.at(0.999) < CHECKOUT, "checkouts were delayed: {checkouts}");
}

/// Runs a load through one pool and makes its two standbys unresponsive in turn.
async fn run_lane(
    cluster: &Cluster,
    lane: usize,
    begin: &impl AsyncFn(usize),
    end: &impl AsyncFn(usize),
) -> Vec<Fault> {
    let ordinals = [0, 1 + lane * 2, 2 + lane * 2];
    let endpoints = ordinals.map(|ordinal| Endpoint::new(cluster.pod(ordinal).address()));
    let pods = endpoints.clone().map(|endpoint| endpoint.address().tcp().unwrap().ip());
    let config: Config = cluster.url().parse().expect("the URL parses");
    let pool = Pool::builder(config).resolver(Fixed::new(endpoints)).build().expect("the pool is created");
    until(Duration::from_secs(10), "every Pod serves", || in_state(&pool, State::Healthy) == pods.len()).await;
    let load = Paced::every(PACE * LANES as u32, &pool, Target::Any);
    let mut times = Vec::new();
    for fault in 0..FAULTS {
        let (ordinal, victim) = (ordinals[1 + fault % 2], pods[1 + fault % 2]);
        warm(&load, &pods).await;
        let began = Instant::now();
        begin(ordinal).await;
        let in_effect = Instant::now();
        let ejected = || state_of(&pool, victim) != Some(State::Healthy);
        until(Duration::from_secs(10), "the unresponsive Pod is ejected", ejected).await;
        let out = began.elapsed();
        // Keeps the fault active until the stuck requests have been retried.
        let count = load.count();
        let retried = || in_effect.elapsed() > STUCK && load.count() > count + 100;
        until(STUCK * 2, "the load runs until stuck requests have been retried", retried).await;
        let ended = Instant::now();
        end(ordinal).await;
        until(Duration::from_secs(20), "the Pod answers requests again", || load.answered_since(victim, ended)).await;
        times.push((victim, out, in_effect, ended, ended.elapsed()));
    }
    let requests = load.stop().await;
    assert_eq!(failures(&requests), BTreeMap::new(), "failed reads");
    let fault = |(victim, out, in_effect, ended, back): (IpAddr, Duration, Instant, Instant, Duration)| {
        let during = || requests.iter().filter(|request| request.done >= in_effect && request.started < ended);
        let stuck = |request: &&Request| {
            request.took() > CHECKOUT * 20 && request.attempts.iter().any(|one| one.address == victim)
        };
        let started_during = || during().filter(|request| request.started > in_effect);
        Fault {
            out,
            back,
            stuck: during().filter(stuck).count(),
            late: started_during().filter(stuck).count(),
            longest: during().map(Request::took).max().unwrap_or_default(),
            checkouts: started_during().filter_map(Request::checkout).collect(),
        }
    };
    times.into_iter().map(fault).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_pod_delays_only_requests_in_flight() {
    let _alone = run_alone().await;
    let cluster = Cluster::start(PODS).await.expect("the cluster starts");
    let begin = async |pod| cluster.pause(pod).await.expect("SIGSTOP is sent");
    let end = async |pod| cluster.resume(pod).await.expect("SIGCONT is sent");
    measure("SIGSTOP (the server hangs)", &cluster, begin, end).await;
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// In each trial, waits until all pools have been idle for so long that a checkout first pings its connection, and then
/// stops a Pod (SIGSTOP). Each pool then serves a few requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_pod_does_not_delay_checkouts_from_an_idle_pool() {
    const POOLS: usize = 12;
    const TRIALS: usize = 20;
    const REQUESTS: usize = 4;
    let _alone = run_alone().await;
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let pods = addresses(&cluster);
    let mut pools = Vec::new();
    for _ in 0..POOLS {
        let pool = crate::setup::pool(&cluster).await;
        let idle = || pool.status().endpoints.iter().all(|pod| pod.idle > 0);
        until(Duration::from_secs(10), "every Pod has an idle connection", idle).await;
        pools.push(pool);
    }
    let idle_for = pools[0].config().limits().ping_after + Duration::from_millis(300);
    let (mut checkouts, mut pinged) = (Vec::new(), 0);
    for trial in 0..TRIALS {
        let ordinal = 1 + trial % 2;
        let idle_since = Instant::now();
        until(idle_for * 2, "the connections need a ping", || idle_since.elapsed() > idle_for).await;
        let waits = || pools.iter().map(|pool| pool.status().counters.waits).sum::<u64>();
        let before = waits();
        cluster.pause(ordinal).await.expect("SIGSTOP is sent");
        for pool in &pools {
            for _ in 0..REQUESTS {
                let began = Instant::now();
                let client = pool.get_for(Target::Any).await.expect("checkout succeeds");
                checkouts.push(began.elapsed());
                assert_ne!(
                    client.endpoint().address().tcp().unwrap().ip(),
                    pods[ordinal],
                    "checkout from the stopped Pod"
                );
                client.simple_query("SELECT").await.expect("the query succeeds");
            }
        }
        pinged += waits() - before;
        cluster.resume(ordinal).await.expect("SIGCONT is sent");
        // The Pod was stopped for less than the probe timeout, so no pool may have ejected it. Checkouts do not ping an
        // ejected Pod, so a trial with an ejected Pod would prove nothing.
        let all_healthy = pools.iter().all(|pool| in_state(pool, State::Healthy) == 3);
        assert!(all_healthy, "the trial is invalid: a pool has ejected the stopped Pod");
    }
    let redirected = checkouts.iter().filter(|took| **took >= Duration::from_millis(1)).count();
    let checkouts = Spread::new(checkouts);
    println!("idle pools, {TRIALS} stops: checkouts: {checkouts}; {pinged} pinged, {redirected} redirected");
    row(
        "SIGSTOP, connections idle for more than one second",
        "no effect: after 1 ms without a response to the ping, another Pod serves",
        &format!("p95 of {} checkouts {:.1?}, p99.9 {:.1?}", checkouts.len(), checkouts.at(0.95), checkouts.at(0.999)),
    );
    assert!(redirected >= TRIALS, "the stopped Pod was chosen too rarely: {redirected} times");
    // About one checkout in twelve pings the stopped Pod and, after one millisecond, pings another Pod instead. No
    // checkout waits for the ping timeout.
    assert!(checkouts.at(0.95) < CHECKOUT, "checkouts were delayed: {checkouts}");
    assert!(checkouts.at(0.999) < CHECKOUT * 10, "checkouts were delayed: {checkouts}");
    drop(pools);
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Removes Pods from DNS while statements run on them, and then stops them (SIGSTOP). Pools do not probe Pods that were
/// removed from DNS.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_on_a_hung_drained_pod_fail_within_5_s() {
    const POOLS: usize = 4;
    const VICTIMS: usize = 5;
    /// Ordinal of a Pod that is not stopped. Its statements are slow, but must succeed.
    const SLOW: usize = VICTIMS + 1;
    let _alone = run_alone().await;
    let cluster = Cluster::start(VICTIMS + 2).await.expect("the cluster starts");
    let pods = addresses(&cluster);
    let mut pools = Vec::new();
    let mut statements = Vec::new();
    for _ in 0..POOLS {
        let pool = crate::setup::pool_of(&format!("{}&detach_linger=0", cluster.url()), cluster.len()).await;
        let mut clients = BTreeMap::new();
        let mut others = Vec::new();
        while clients.len() < pods.len() {
            let client = pool.get_for(Target::Any).await.expect("checkout succeeds");
            let address = client.endpoint().address().tcp().unwrap().ip();
            others.extend(clients.insert(address, client));
        }
        for (ordinal, address) in pods.iter().enumerate().skip(1) {
            let client = clients.remove(address).expect("every Pod has a connection");
            let seconds = if ordinal == SLOW { 9 } else { 60 };
            statements.push(tokio::spawn(async move {
                let result = client.batch_execute(&format!("SELECT pg_sleep({seconds})")).await;
                (ordinal, result.map_err(|error| error.to_string()), Instant::now())
            }));
        }
        pools.push(pool);
    }
    (1..=SLOW).for_each(|ordinal| cluster.unpublish(ordinal).expect("the Pod is removed from DNS"));
    let drained = || pools.iter().all(|pool| pool.status().endpoints.len() == 1);
    until(Duration::from_secs(15), "the Pods are drained", drained).await;
    let mut stopped = BTreeMap::new();
    for ordinal in 1..=VICTIMS {
        // Stops the Pods at different times relative to the pools' timers.
        cluster.pause(ordinal).await.expect("SIGSTOP is sent");
        stopped.insert(ordinal, Instant::now());
        tokio::time::sleep(Duration::from_millis(rand::random_range(0..150))).await;
    }
    let (mut failed, mut slow) = (Vec::new(), 0);
    for statement in statements {
        let (ordinal, result, ended) = statement.await.expect("the task does not panic");
        match stopped.get(&ordinal) {
            Some(stopped) => {
                assert!(result.is_err(), "a statement on a stopped server succeeded");
                failed.push(ended - *stopped);
            }
            None => {
                assert_eq!(result, Ok(()), "a slow statement on a responsive Pod failed");
                slow += 1;
            }
        }
    }
    let failed = Spread::new(failed);
    println!(
        "{VICTIMS} drained Pods stopped, {POOLS} pools each: statements failed after {failed}; \
         {slow} slow ones succeeded"
    );
    row(
        "a Pod hangs after its removal from DNS",
        "requests in flight on that Pod wait, and `retry` repeats them on another Pod",
        &format!("failed after {:.1?} (p95 of {}: {VICTIMS} Pods, {POOLS} pools)", failed.at(0.95), failed.len()),
    );
    assert_eq!((failed.len(), slow), (VICTIMS * POOLS, POOLS));
    assert!(failed.at(0.95) < STUCK, "statements on stopped Pods failed too late: {failed}");
    for ordinal in 1..=VICTIMS {
        cluster.resume(ordinal).await.expect("SIGCONT is sent");
        cluster.stop(ordinal, Shutdown::Immediate).await.expect("the Pod stops");
    }
    drop(pools);
    cluster.shutdown().await.expect("the cluster shuts down");
}
