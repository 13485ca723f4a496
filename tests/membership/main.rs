//! Tests Pods that leave DNS and return: a healthy Pod that is absent for a moment keeps its connections, the last Pod
//! of a role stays in use, and a Pod whose server shuts down is drained.
//!
//! The environment variable `ABSENT_SECONDS` sets how long Pods are absent. The default is 6 s.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use podpool::{
    EndpointStatus, Pool, State, Target,
    testkit::{Cluster, Shutdown},
};
use tokio::time::{sleep, timeout};

#[path = "../common/mod.rs"]
mod common;
mod requests;

use common::{
    in_state,
    trials::{self, assert_within},
    until,
};
use requests::{Requests, request};

const SOON: Duration = Duration::from_secs(15);
const MINUTE: Duration = Duration::from_secs(60);
/// Maximum time between two successful requests while a healthy Pod is absent.
const GAP: Duration = Duration::from_millis(500);
/// Maximum time until a role is available after DNS names a Pod that has it.
const FOLLOW: Duration = Duration::from_millis(1500);
/// Maximum time from the return of the last connection to the end of a smart shutdown.
const SERVER_END: Duration = Duration::from_secs(5);

fn absent_for() -> Duration {
    let seconds = std::env::var("ABSENT_SECONDS").map(|text| text.parse().expect("ABSENT_SECONDS is a number"));
    Duration::from_secs(seconds.unwrap_or(6))
}

/// Starts three Pods whose DNS records have a TTL of 1 s.
async fn start() -> Cluster {
    common::init_logging();
    Cluster::builder().ttl(Duration::from_secs(1)).start().await.expect("the cluster starts")
}

async fn pool(cluster: &Cluster, parameters: &str) -> Pool {
    let url = format!("{}&{parameters}", cluster.url());
    let pool = Pool::connect(&url).await.expect("the pool is created");
    until(SOON, "three Pods serve", || in_state(&pool, State::Healthy) == 3).await;
    pool
}

/// Returns the status of a Pod, or `None` if the pool does not use it.
fn status(pool: &Pool, cluster: &Cluster, ordinal: usize) -> Option<EndpointStatus> {
    let address = cluster.pod(ordinal).address();
    pool.status().endpoints.into_iter().find(|pod| pod.endpoint.address().tcp().unwrap() == address)
}

/// Creates the pools that observe a fault.
async fn pools(cluster: &Cluster, parameters: &str) -> Vec<Pool> {
    let mut pools = Vec::new();
    for _ in 0..trials::observers() {
        pools.push(pool(cluster, parameters).await);
    }
    pools
}

/// Returns the process ids of the sessions with this application name on all Pods, except those of probes.
async fn sessions(cluster: &Cluster, name: &str) -> BTreeSet<(usize, i32)> {
    let mut sessions = BTreeSet::new();
    for ordinal in 0..cluster.len() {
        let client = cluster.client(ordinal).await.expect("the superuser connects");
        let sql = "SELECT pid FROM pg_stat_activity WHERE application_name = $1";
        let rows = client.query(sql, &[&name]).await.expect("the query succeeds");
        sessions.extend(rows.iter().map(|row| (ordinal, row.get(0))));
    }
    sessions
}

async fn create_table(cluster: &Cluster) {
    let client = cluster.client(0).await.expect("the superuser connects");
    let sql = "CREATE TABLE membership (id bigserial); GRANT ALL ON membership, membership_id_seq TO PUBLIC";
    client.batch_execute(sql).await.expect("the table is created");
}

/// Removes these Pods from DNS for a while under load, and asserts that nothing fails and no connection is opened or
/// closed, unless the Pods are detached for longer than `detach_linger`. `expect` is checked for each of the Pods once
/// their absence is confirmed.
async fn flap(ordinals: &[usize], target: Target, expect: impl Fn(&EndpointStatus) -> bool) {
    let cluster = start().await;
    create_table(&cluster).await;
    let mut gaps = Vec::new();
    for fault in 0..trials::faults() {
        gaps.extend(absence(&cluster, fault, ordinals, target, &expect).await);
    }
    let scenario = format!("Pods {ordinals:?} absent for {:.1?}: longest gap between {target} requests", absent_for());
    assert_within(GAP, &scenario, gaps);
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Runs one fault of [`flap`]. Returns the longest time between two successful requests of each pool.
async fn absence(
    cluster: &Cluster,
    fault: usize,
    ordinals: &[usize],
    target: Target,
    expect: &impl Fn(&EndpointStatus) -> bool,
) -> Vec<Duration> {
    let name = format!("membership{fault}");
    // With one connection to each Pod, the load causes no further connections.
    let pools = pools(cluster, &format!("pool_size=1&application_name={name}")).await;
    let requests: Vec<_> = pools.iter().map(|pool| Requests::start(pool, target)).collect();
    let succeeded = |since: Instant| {
        let since = since + Duration::from_secs(1);
        requests.iter().all(|requests| requests.succeeded_since(since).is_some())
    };
    let of_all = |accept: &dyn Fn(EndpointStatus) -> bool| {
        pools.iter().all(|pool| ordinals.iter().all(|&ordinal| status(pool, cluster, ordinal).is_some_and(accept)))
    };
    let counters =
        || pools.iter().map(|pool| pool.status().counters).map(|counters| (counters.opened, counters.closed));
    let started = Instant::now();
    until(SOON, "requests succeed", || succeeded(started)).await;
    let (before, opened_and_closed) = (sessions(cluster, &name).await, counters().collect::<Vec<_>>());
    let left = Instant::now();
    ordinals.iter().for_each(|&ordinal| cluster.unpublish(ordinal).expect("the Pod is removed from DNS"));
    until(SOON, "the absence is confirmed", || of_all(&|pod| expect(&pod))).await;
    let confirmed = left.elapsed();
    let drained = absent_for() > pools[0].config().limits().detach_linger && of_all(&|pod| pod.detached);
    sleep(absent_for().saturating_sub(left.elapsed())).await;
    assert!(drained || of_all(&|pod| expect(&pod)), "the absence ended");
    ordinals.iter().for_each(|&ordinal| cluster.publish(ordinal).expect("the Pod is added to DNS"));
    let back = Instant::now();
    let ordinary = |pod: EndpointStatus| !pod.retained && !pod.detached && pod.is_usable();
    until(SOON, "the Pods are ordinary members", || of_all(&ordinary)).await;
    until(SOON, "requests succeed", || succeeded(back)).await;
    if !drained {
        assert_eq!(counters().collect::<Vec<_>>(), opened_and_closed, "connections opened and closed");
        let lost: Vec<_> = before.difference(&sessions(cluster, &name).await).copied().collect();
        assert_eq!(lost, [], "sessions that ended");
    }
    let mut gaps = Vec::new();
    for requests in requests {
        let (count, gap, failures) = requests.stop().await;
        println!(
            "Pods {ordinals:?} absent for {:.1?}, confirmed after {confirmed:.1?}: {count} requests for {target}, \
             {} failed, longest gap {gap:.1?}",
            absent_for(),
            failures.len(),
        );
        assert_eq!(failures, [""; 0], "failed requests");
        gaps.push(gap);
    }
    for pool in pools {
        pool.close().await;
    }
    gaps
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_only_primary_serves_writes_while_it_is_absent_from_dns() {
    flap(&[0], Target::ReadWrite, |pod| pod.retained && pod.is_usable()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_standby_that_is_absent_for_a_moment_keeps_its_connections() {
    flap(&[1], Target::Standby, |pod| pod.detached && !pod.is_usable()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_standbys_serve_reads_while_no_standby_is_named() {
    flap(&[1, 2], Target::Standby, |pod| pod.retained && pod.is_usable()).await;
}

/// The pool remembers the requested targets, however rarely callers request them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_writes_once_a_minute_keeps_the_primary_while_it_is_absent_from_dns() {
    let cluster = start().await;
    create_table(&cluster).await;
    let mut times = [Vec::new(), Vec::new()];
    for fault in 0..trials::faults() {
        let [during, after] = absence_between_writes(&cluster, fault).await;
        times[0].extend(during);
        times[1].extend(after);
    }
    for (times, when) in times.into_iter().zip(["at the end of it", "after it"]) {
        assert_within(GAP, &format!("primary absent for a minute, one write a minute: a write {when}"), times);
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Removes the primary from DNS for a minute in which each pool writes at the beginning and at the end. Returns the
/// durations of the last write in the absence and of one after it.
async fn absence_between_writes(cluster: &Cluster, fault: usize) -> [Vec<Duration>; 2] {
    let name = format!("rare{fault}");
    let pools = pools(cluster, &format!("pool_size=1&application_name={name}")).await;
    for pool in &pools {
        request(pool, Target::ReadWrite).await.expect("the first write succeeds");
    }
    let wrote = Instant::now();
    let counters =
        || pools.iter().map(|pool| pool.status().counters).map(|counters| (counters.opened, counters.closed));
    let (before, opened_and_closed) = (sessions(cluster, &name).await, counters().collect::<Vec<_>>());
    cluster.unpublish(0).expect("the Pod is removed from DNS");
    let retained = |pool| status(pool, cluster, 0).is_some_and(|pod| pod.retained && pod.is_usable());
    until(SOON, "the primary is retained", || pools.iter().all(retained)).await;
    until(MINUTE * 2, "a minute passes", || {
        assert!(pools.iter().all(retained), "the primary is not retained");
        wrote.elapsed() >= MINUTE
    })
    .await;
    let mut times = [Vec::new(), Vec::new()];
    for published in [false, true] {
        if published {
            cluster.publish(0).expect("the Pod is added to DNS");
            let ordinary = |pool| status(pool, cluster, 0).is_some_and(|pod| !pod.retained && pod.is_usable());
            until(SOON, "the primary is an ordinary member", || pools.iter().all(ordinary)).await;
        }
        for pool in &pools {
            let began = Instant::now();
            request(pool, Target::ReadWrite).await.expect("the write succeeds");
            times[usize::from(published)].push(began.elapsed());
        }
    }
    assert_eq!(counters().collect::<Vec<_>>(), opened_and_closed, "connections opened and closed");
    let lost: Vec<_> = before.difference(&sessions(cluster, &name).await).copied().collect();
    assert_eq!(lost, [], "sessions that ended");
    for pool in pools {
        pool.close().await;
    }
    times
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminating_primary_serves_until_its_server_stops() {
    let cluster = start().await;
    create_table(&cluster).await;
    let mut delays = Vec::new();
    for _ in 0..trials::faults() {
        let pools = pools(&cluster, "acquire_timeout=20s").await;
        let requests: Vec<_> = pools.iter().map(|pool| Requests::start(pool, Target::ReadWrite)).collect();
        let succeeded = |since| requests.iter().all(|requests| requests.succeeded_since(since).is_some());
        let started = Instant::now();
        until(SOON, "writes succeed", || succeeded(started)).await;
        cluster.unpublish(0).expect("the Pod is removed from DNS");
        let is_retained = |pool| status(pool, &cluster, 0).is_some_and(|pod| pod.retained);
        until(SOON, "the primary is retained", || pools.iter().all(is_retained)).await;
        sleep(absent_for()).await;
        let stopping = Instant::now();
        for requests in &requests {
            let last = requests.last_success(stopping).expect("writes succeed");
            assert!(stopping - last < GAP * 2, "no write succeeded for {:?} before the shutdown", stopping - last);
        }
        cluster.stop(0, Shutdown::Fast).await.expect("the primary stops");
        let is_removed = |pool| status(pool, &cluster, 0).is_none();
        until(SOON, "the stopped Pod is removed", || pools.iter().all(is_removed)).await;
        cluster.start_pod(0).await.expect("the primary starts");
        cluster.publish(0).expect("the Pod is added to DNS");
        let named = Instant::now();
        until(SOON, "writes succeed again", || succeeded(named)).await;
        for requests in requests {
            delays.push(requests.succeeded_since(named).expect("a write succeeded") - named);
            let (count, _, failures) = requests.stop().await;
            println!("{count} writes, {} failed", failures.len());
            assert!(failures.len() <= 1, "more than the write in flight at the shutdown failed: {failures:?}");
        }
    }
    assert_within(FOLLOW, "primary restarted while absent: writes resume after DNS names it", delays);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_wait_at_a_cold_start_are_served_soon_after_dns_names_a_pod() {
    let cluster = start().await;
    let mut delays = [Vec::new(), Vec::new()];
    for _ in 0..trials::faults() {
        (0..3).for_each(|ordinal| cluster.unpublish(ordinal).expect("the Pod is removed from DNS"));
        let config = || format!("{}&acquire_timeout=60s", cluster.url()).parse().expect("the URL parses");
        let pools: Vec<_> =
            (0..trials::observers()).map(|_| Pool::builder(config()).build().expect("the pool is created")).collect();
        let wait = |target: Target| {
            let wait = |pool: Pool| async move {
                drop(pool.get_for(target).await.expect("checkout succeeds"));
                Instant::now()
            };
            pools.iter().map(|pool| tokio::spawn(wait(pool.clone()))).collect::<Vec<_>>()
        };
        let (reads, writes) = (wait(Target::Standby), wait(Target::ReadWrite));
        for ((ordinal, callers), delays) in [(1, reads), (0, writes)].into_iter().zip(&mut delays) {
            // Longer than the backoff of failed lookups needs to reach its maximum.
            sleep(absent_for()).await;
            assert!(callers.iter().all(|caller| !caller.is_finished()));
            cluster.publish(ordinal).expect("the Pod is added to DNS");
            let named = Instant::now();
            for caller in callers {
                let served = timeout(SOON, caller).await.expect("the caller is served");
                delays.push(served.expect("the task does not panic") - named);
            }
        }
        cluster.publish(2).expect("the Pod is added to DNS");
    }
    for (delays, target) in delays.into_iter().zip([Target::Standby, Target::ReadWrite]) {
        assert_within(FOLLOW, &format!("cold start: a {target} caller is served after DNS names such a Pod"), delays);
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_smart_shutdown_ends_soon_after_the_last_connection_is_returned() {
    let cluster = start().await;
    let pool = pool(&cluster, "application_name=membership").await;
    let mut times = Vec::new();
    for _ in 0..trials::count(1) {
        let client = loop {
            let client = pool.get_for(Target::Standby).await.expect("checkout succeeds");
            if client.endpoint().address().tcp().unwrap() == cluster.pod(1).address() {
                break client;
            }
        };
        cluster.unpublish(1).expect("the Pod is removed from DNS");
        sleep(Duration::from_secs(1)).await;
        let stopping = async {
            cluster.stop(1, Shutdown::Smart).await.expect("the Pod stops");
            Instant::now()
        };
        let returning = async {
            sleep(Duration::from_secs(1)).await;
            client.batch_execute("SELECT 1").await.expect("the connection still works");
            drop(client);
            Instant::now()
        };
        let (stopped, returned) = tokio::join!(stopping, returning);
        times.push(stopped.saturating_duration_since(returned));
        until(SOON, "the Pod is removed", || status(&pool, &cluster, 1).is_none()).await;
        cluster.start_pod(1).await.expect("the Pod starts");
        cluster.publish(1).expect("the Pod is added to DNS");
        until(SOON, "three Pods serve", || in_state(&pool, State::Healthy) == 3).await;
    }
    assert_within(SERVER_END, "smart shutdown: the server ends after the last connection is returned", times);
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detached_pod_serves_no_caller_and_is_drained_after_the_linger_time() {
    let cluster = start().await;
    let pool = pool(&cluster, "pool_size=1&detach_linger=3s&acquire_timeout=30s").await;
    let mut held = Vec::new();
    while held.len() < 3 {
        held.push(pool.get().await.expect("checkout succeeds"));
    }
    let left = cluster.pod(1).address();
    let waiter = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get().await.expect("checkout succeeds").endpoint().address().tcp().unwrap() }
    });
    cluster.unpublish(1).expect("the Pod is removed from DNS");
    let is_detached = || status(&pool, &cluster, 1).is_some_and(|pod| pod.detached);
    until(SOON, "the Pod is detached", is_detached).await;
    let detached = Instant::now();
    let (of_left, others): (Vec<_>, Vec<_>) =
        held.into_iter().partition(|client| client.endpoint().address().tcp().unwrap() == left);
    drop(of_left);
    let is_idle = || status(&pool, &cluster, 1).is_some_and(|pod| pod.idle == 1);
    until(SOON, "the returned connection is idle", is_idle).await;
    assert!(!waiter.is_finished(), "a waiter was served by a detached Pod");
    drop(others);
    let address = timeout(SOON, waiter).await.expect("the waiter is served").expect("the task does not panic");
    assert_ne!(address, left);
    while is_detached() {
        assert!(detached.elapsed() < SOON, "the drained Pod is not removed");
        assert_ne!(pool.get().await.expect("checkout succeeds").endpoint().address().tcp().unwrap(), left);
    }
    let took = detached.elapsed();
    println!("drained {took:.1?} after it was detached");
    assert!((2..5).contains(&took.as_secs()), "drained {took:?} after it was detached, linger time 3 s");
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absent_pods_serve_until_they_fail_if_they_are_kept() {
    let cluster = start().await;
    let pool = pool(&cluster, "absent_pods=keep").await;
    cluster.unpublish(1).expect("the Pod is removed from DNS");
    let lookups = pool.status().counters.resolve_ok;
    until(SOON, "five lookups do not contain the Pod", || pool.status().counters.resolve_ok >= lookups + 5).await;
    let pod = status(&pool, &cluster, 1).expect("the Pod is known");
    assert!(pod.is_usable() && !pod.retained, "{pod:?}");
    cluster.kill(1).await.expect("SIGKILL is sent");
    until(SOON, "the failed Pod is removed", || status(&pool, &cluster, 1).is_none()).await;
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}
