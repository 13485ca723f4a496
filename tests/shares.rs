//! Tests that Pods get the shares of the requests that correspond to their capacity: a primary outside the subset, new
//! pools, restarted Pods, and a Pod that is farther away.

use std::{
    collections::BTreeMap,
    future::Future,
    net::IpAddr,
    time::{Duration, Instant},
};

use podpool::{Config, Endpoint, Pool, State, Target, discovery::Fixed, testkit::Cluster};
use tokio::time::{MissedTickBehavior, interval, sleep};

mod common;
use common::{
    distance::Distance,
    in_state,
    paced::{Paced, failures},
    trials::{self, assert_shares},
    until,
};

const LONG: Duration = Duration::from_secs(20);
/// Maximum mean time by which a Pod is farther away than another one to count as one millisecond farther away.
const MAX_FARTHER: Duration = Duration::from_micros(1500);

fn build(cluster: &Cluster, parameters: &str) -> Pool {
    let config: Config = format!("{}{parameters}", cluster.url()).parse().expect("the URL parses");
    Pool::builder(config).build().expect("the pool is created")
}

fn addresses(cluster: &Cluster) -> Vec<IpAddr> {
    cluster.pods().iter().map(|pod| pod.address().ip()).collect()
}

/// Runs `requests` short statements at this rate, each in a checkout of its own and without waiting for the previous
/// ones. Returns the start of each statement and the address of the Pod that it ran on.
async fn paced(pool: &Pool, target: Target, rate: u32, requests: usize) -> Vec<(Instant, IpAddr)> {
    paced_with("SELECT 1", pool, target, rate, requests).await
}

/// Does the same as [`paced`], but with this statement.
async fn paced_with(
    statement: &'static str,
    pool: &Pool,
    target: Target,
    rate: u32,
    requests: usize,
) -> Vec<(Instant, IpAddr)> {
    let mut pace = interval(Duration::from_secs(1) / rate);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut tasks = Vec::new();
    for _ in 0..requests {
        pace.tick().await;
        let pool = pool.clone();
        tasks.push(tokio::spawn(async move {
            let began = Instant::now();
            let client = pool.get_for(target).await.expect("checkout succeeds");
            client.simple_query(statement).await.expect("the statement succeeds");
            (began, client.endpoint().address().tcp().unwrap().ip())
        }));
    }
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await.expect("the task does not panic"));
    }
    done
}

fn count(requests: &[(Instant, IpAddr)]) -> BTreeMap<IpAddr, usize> {
    let mut counts = BTreeMap::new();
    requests.iter().for_each(|(_, pod)| *counts.entry(*pod).or_default() += 1);
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_outside_the_subset_takes_only_writes() {
    const PODS: usize = 5;
    let cluster = Cluster::start(PODS).await.expect("the cluster starts");
    let primary = addresses(&cluster)[0];
    // Two of five clients have the primary in their subsets of two Pods, as on average over all clients.
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for id in 0.. {
        let pool = build(&cluster, &format!("&subset_size=2&client_id=web-{id}"));
        until(LONG, "two healthy Pods", || in_state(&pool, State::Healthy) == 2).await;
        let has_primary =
            pool.status().endpoints.iter().any(|pod| pod.endpoint.address().tcp().unwrap().ip() == primary);
        let (clients, wanted) = if has_primary { (&mut inside, 2) } else { (&mut outside, 3) };
        if clients.len() < wanted {
            clients.push(pool);
        }
        if (inside.len(), outside.len()) == (2, 3) {
            break;
        }
    }
    let mut total = BTreeMap::new();
    for (pool, has_primary) in inside.iter().map(|pool| (pool, true)).chain(outside.iter().map(|pool| (pool, false))) {
        let writer = pool.primary().await.expect("the primary is found");
        assert_eq!(writer.endpoint().address().tcp().unwrap().ip(), primary);
        drop(writer);
        let reads = count(&paced(pool, Target::Any, 400, 400).await);
        assert_eq!(reads.contains_key(&primary), has_primary, "{reads:?}");
        reads.into_iter().for_each(|(pod, reads)| *total.entry(pod).or_default() += reads);
    }
    let sum: usize = total.values().sum();
    let share = total[&primary] as f64 * PODS as f64 / sum as f64;
    println!("the primary has {share:.2} of a fair share of {sum} reads for the target `any`: {total:?}");
    assert!(share <= 1.3, "{share:.2}");
    drop((inside, outside));
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_used_only_to_measure_lag_has_no_idle_connections() {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let primary = addresses(&cluster)[0];
    for id in 0.. {
        let pool = build(&cluster, &format!("&subset_size=1&max_lag=10s&idle_timeout=1s&client_id=web-{id}"));
        // Returns the number of idle connections to the primary.
        let idle = || {
            let status = pool.status();
            let pod = status.endpoints.iter().find(|pod| pod.endpoint.address().tcp().unwrap().ip() == primary);
            pod.filter(|pod| pod.state == State::Healthy).map(|pod| pod.idle)
        };
        until(LONG, "the primary is found", || idle().is_some()).await;
        let read = pool.get_for(Target::PreferStandby).await.expect("checkout succeeds");
        let reader = read.endpoint().address().tcp().unwrap().ip();
        drop(read);
        let settled = || in_state(&pool, State::Healthy) == pool.status().endpoints.len();
        until(LONG, "every Pod in use is healthy", settled).await;
        if reader == primary || pool.status().endpoints.len() != 2 {
            continue; // the primary is this client's subset
        }
        // The primary may have been found before the standby served, and then have served callers for a moment.
        until(LONG, "no idle connection to the primary", || idle() == Some(0)).await;
        let reads = count(&paced(&pool, Target::PreferStandby, 200, 400).await);
        assert!(!reads.contains_key(&primary), "{reads:?}");
        assert_eq!(idle(), Some(0), "the primary serves no caller");
        drop(pool.primary().await.expect("the primary serves writes"));
        until(LONG, "a warm connection to the primary", || idle() > Some(0)).await;
        break;
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn equal_pods_get_equal_shares_of_the_first_checkouts() {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let mut all = Vec::new();
    for _ in 0..5 {
        let pool = build(&cluster, "");
        until(LONG, "three healthy Pods", || in_state(&pool, State::Healthy) == 3).await;
        let shares: Vec<_> = count(&paced(&pool, Target::Any, 200, 300).await).into_values().collect();
        println!("first 300 checkouts of a new pool: {shares:?}");
        all.push(shares);
    }
    for shares in all {
        assert!(shares.len() == 3 && shares.iter().all(|share| (70..=130).contains(share)), "{shares:?}");
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_pod_gets_its_share_within_a_second_of_its_first_answer() {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let mut shares = Vec::new();
    for _ in 0..trials::count(1) {
        shares.push(restart(&cluster).await);
    }
    assert_shares(0.8..=1.2, "share of a restarted Pod, relative to a fair share", &shares);
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Kills and restarts the second Pod under load. Returns its share of the requests, relative to a fair share, from one
/// second after its first answer. The pool is new, because the return of a Pod that fails often is delayed.
async fn restart(cluster: &Cluster) -> f64 {
    let address = addresses(cluster)[1];
    let pool = build(cluster, "");
    until(LONG, "three healthy Pods", || in_state(&pool, State::Healthy) == 3).await;
    let load = Paced::every(Duration::from_millis(5), &pool, Target::Any);
    until(LONG, "400 requests", || load.count() >= 400).await;
    cluster.kill(1).await.expect("SIGKILL is sent");
    until(LONG, "the Pod is ejected", || in_state(&pool, State::Healthy) == 2).await;
    let restarted = Instant::now();
    cluster.start_pod(1).await.expect("the Pod starts");
    until(LONG, "the Pod answers", || load.answered_since(address, restarted)).await;
    let from = Instant::now() + Duration::from_secs(1);
    let to = from + Duration::from_secs(10);
    until(LONG, "ten seconds", || Instant::now() >= to).await;
    let requests = load.stop().await;
    assert_eq!(failures(&requests), [].into(), "failed reads");
    let measured: Vec<_> = requests.iter().filter(|request| (from..to).contains(&request.started)).collect();
    let own = measured.iter().filter(|request| request.answered_by(address)).count();
    own as f64 * 3.0 / measured.len() as f64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_one_millisecond_farther_away_keeps_a_share() {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let proxy = Distance::start(cluster.pod(1).address(), Duration::from_millis(1));
    let (near, far) = (cluster.pod(0).endpoint().clone(), Endpoint::new(proxy.address()));
    let published = [near.clone(), far.clone(), cluster.pod(2).endpoint().clone()];
    cluster.dns().set_pods(cluster.service(), published).expect("DNS is updated");
    for (statement, range) in [("SELECT pg_sleep(0.001)", 0.15..=0.33), ("SELECT 1", 0.10..=0.33)] {
        let (mut shares, mut too_far) = (Vec::new(), Vec::new());
        while shares.len() < trials::count(1) {
            let pool = build(&cluster, "");
            until(LONG, "three healthy Pods", || in_state(&pool, State::Healthy) == 3).await;
            let requests = async {
                // The share is equal until there are enough statements to compare the Pods.
                paced_with(statement, &pool, Target::Any, 400, 800).await;
                count(&paced_with(statement, &pool, Target::Any, 400, 2000).await)
            };
            let (reads, farther) = while_measured(&cluster, &near, &far, requests).await;
            // A busy machine runs the proxy's threads late.
            if farther > MAX_FARTHER {
                too_far.push(farther);
                assert!(too_far.len() < 5 * trials::count(1), "the Pod was farther away: {too_far:.1?}");
                continue;
            }
            shares.push(reads[&far.address().ip().unwrap()] as f64 / 2000.0);
        }
        println!("{statement}: {} trials repeated, because the Pod was farther away: {too_far:.1?}", too_far.len());
        assert_shares(range, &format!("{statement}: share of the Pod that is 1 ms farther away"), &shares);
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Runs `requests`. Returns their result, and by how much a statement on the far Pod took longer than one on the near
/// Pod on average in this time, measured by connections of its own.
async fn while_measured<T>(
    cluster: &Cluster,
    near: &Endpoint,
    far: &Endpoint,
    requests: impl Future<Output = T>,
) -> (T, Duration) {
    let config = || cluster.url().parse::<Config>().expect("the URL parses");
    let pools = [near, far].map(|pod| {
        let resolver = Fixed::new([pod.clone()]);
        Pool::builder(config()).resolver(resolver).build().expect("the pool is created")
    });
    let (mut took, mut count) = ([Duration::ZERO; 2], 0);
    let measure = async {
        loop {
            for (pool, took) in pools.iter().zip(&mut took) {
                let client = pool.get().await.expect("checkout succeeds");
                let began = Instant::now();
                client.simple_query("SELECT 1").await.expect("the statement succeeds");
                *took += began.elapsed();
            }
            count += 1;
            sleep(Duration::from_millis(20)).await; // paces the statements
        }
    };
    let result = tokio::select! {
        result = requests => result,
        () = measure => unreachable!("the measurement does not end"),
    };
    (result, took[1].saturating_sub(took[0]) / count)
}
