//! Tests Pods that leave DNS and return: a healthy Pod that is absent for a moment keeps its connections, the last Pod
//! of a role stays in use, and a Pod whose server shuts down is drained.
//!
//! The environment variable `ABSENT_SECONDS` sets how long Pods are absent. The default is 6 s.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use podpool::{
    EndpointStatus, Pool, State, Target,
    testkit::{Cluster, Shutdown},
};
use tokio::{
    task::JoinHandle,
    time::{sleep, timeout},
};

mod common;
use common::{in_state, until};

const SOON: Duration = Duration::from_secs(15);
const MINUTE: Duration = Duration::from_secs(60);
/// Maximum time between two successful requests while a healthy Pod is absent. Twice the required 500 ms.
const GAP: Duration = Duration::from_secs(1);
/// Maximum time until a role is available after DNS names a Pod that has it. Twice the required 1.5 s.
const FOLLOW: Duration = Duration::from_secs(3);
/// Maximum time from the return of the last connection to the end of a smart shutdown. Twice the required 5 s.
const SERVER_END: Duration = Duration::from_secs(10);

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
    let url = format!("{}&application_name=membership{parameters}", cluster.url());
    let pool = Pool::connect(&url).await.expect("the pool is created");
    until(SOON, "three Pods serve", || in_state(&pool, State::Healthy) == 3).await;
    pool
}

/// Returns the status of a Pod, or `None` if the pool does not use it.
fn status(pool: &Pool, cluster: &Cluster, ordinal: usize) -> Option<EndpointStatus> {
    let address = cluster.pod(ordinal).address();
    pool.status().endpoints.into_iter().find(|pod| pod.endpoint.address() == address)
}

/// Returns the process ids of the pool's sessions on all Pods, except those of probes.
async fn sessions(cluster: &Cluster) -> BTreeSet<(usize, i32)> {
    let mut sessions = BTreeSet::new();
    for ordinal in 0..cluster.len() {
        let client = cluster.client(ordinal).await.expect("the superuser connects");
        let sql = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'membership%' \
                   AND application_name NOT LIKE '%/probe'";
        let rows = client.query(sql, &[]).await.expect("the query succeeds");
        sessions.extend(rows.iter().map(|row| (ordinal, row.get(0))));
    }
    sessions
}

/// The time at which each request ended, and its result.
type Log = Vec<(Instant, Result<(), String>)>;

/// One request after another, without retries.
struct Requests {
    stop: Arc<AtomicBool>,
    log: Arc<Mutex<Log>>,
    task: JoinHandle<()>,
}

impl Requests {
    fn start(pool: &Pool, target: Target) -> Self {
        let (stop, log) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let task = tokio::spawn({
            let (pool, stop, log) = (pool.clone(), stop.clone(), log.clone());
            async move {
                while !stop.load(Ordering::Relaxed) {
                    let result = request(&pool, target).await;
                    log.lock().unwrap().push((Instant::now(), result));
                    sleep(Duration::from_millis(5)).await; // paces the requests
                }
            }
        });
        Self { stop, log, task }
    }

    fn succeeded_since(&self, since: Instant) -> Option<Instant> {
        self.log.lock().unwrap().iter().find(|(at, result)| *at >= since && result.is_ok()).map(|(at, _)| *at)
    }

    /// Returns the time of the last success before `until`.
    fn last_success(&self, until: Instant) -> Option<Instant> {
        let log = self.log.lock().unwrap();
        log.iter().rev().find(|(at, result)| *at <= until && result.is_ok()).map(|(at, _)| *at)
    }

    /// Stops the requests. Returns the number of successes, the longest time between two of them, and the failures.
    async fn stop(self) -> (usize, Duration, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the task does not panic");
        let log = std::mem::take(&mut *self.log.lock().unwrap());
        let ok: Vec<_> = log.iter().filter(|(_, result)| result.is_ok()).map(|(at, _)| *at).collect();
        let gap = ok.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        (ok.len(), gap, log.into_iter().filter_map(|(_, result)| result.err()).collect())
    }
}

async fn request(pool: &Pool, target: Target) -> Result<(), String> {
    let client = pool.get_for(target).await.map_err(|error| format!("{error:?}"))?;
    let statement = match target {
        Target::ReadWrite => "INSERT INTO membership DEFAULT VALUES",
        _ => "SELECT 1",
    };
    client.batch_execute(statement).await.map_err(|error| format!("{error:?}"))
}

async fn create_table(cluster: &Cluster) {
    let client = cluster.client(0).await.expect("the superuser connects");
    let sql = "CREATE TABLE membership (id bigserial); GRANT ALL ON membership, membership_id_seq TO PUBLIC";
    client.batch_execute(sql).await.expect("the table is created");
}

/// Removes these Pods from DNS for a while under load, and asserts that nothing fails and no connection is opened or
/// closed. `expect` is checked for each of the Pods once their absence is confirmed.
async fn flap(ordinals: &[usize], target: Target, expect: impl Fn(&EndpointStatus) -> bool) {
    let cluster = start().await;
    create_table(&cluster).await;
    // With one connection to each Pod, the load causes no further connections.
    let pool = pool(&cluster, "&pool_size=1").await;
    let requests = Requests::start(&pool, target);
    let started = Instant::now();
    until(SOON, "requests succeed", || requests.succeeded_since(started + Duration::from_secs(1)).is_some()).await;
    let (before, counters) = (sessions(&cluster).await, pool.status().counters);
    let left = Instant::now();
    for &ordinal in ordinals {
        cluster.unpublish(ordinal).expect("the Pod is removed from DNS");
    }
    let of = |ordinal: &usize| status(&pool, &cluster, *ordinal).expect("the Pod is still known");
    until(SOON, "the absence is confirmed", || ordinals.iter().map(of).all(|pod| expect(&pod))).await;
    let confirmed = left.elapsed();
    sleep(absent_for().saturating_sub(left.elapsed())).await;
    assert!(ordinals.iter().map(of).all(|pod| expect(&pod)), "{:?}", pool.status().endpoints);
    for &ordinal in ordinals {
        cluster.publish(ordinal).expect("the Pod is added to DNS");
    }
    let back = Instant::now();
    let ordinary = |pod: EndpointStatus| !pod.retained && !pod.detached && pod.is_usable();
    until(SOON, "the Pods are ordinary members", || ordinals.iter().map(of).all(ordinary)).await;
    until(SOON, "requests succeed", || requests.succeeded_since(back + Duration::from_secs(1)).is_some()).await;
    let after = pool.status().counters;
    let lost: Vec<_> = before.difference(&sessions(&cluster).await).copied().collect();
    let (count, gap, failures) = requests.stop().await;
    println!(
        "Pods {ordinals:?} absent for {:.1?}, confirmed after {confirmed:.1?}: {count} requests for {target}, \
         {} failed, longest gap {gap:.1?}, {} connections opened, {} closed",
        absent_for(),
        failures.len(),
        after.opened - counters.opened,
        after.closed - counters.closed
    );
    assert_eq!(failures, [""; 0], "failed requests");
    assert!(gap < GAP, "no request succeeded for {gap:?}");
    assert_eq!((after.opened, after.closed), (counters.opened, counters.closed), "connections opened and closed");
    assert_eq!(lost, [], "sessions that ended");
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
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
    let pool = pool(&cluster, "&pool_size=1").await;
    request(&pool, Target::ReadWrite).await.expect("the first write succeeds");
    let wrote = Instant::now();
    let (before, counters) = (sessions(&cluster).await, pool.status().counters);
    cluster.unpublish(0).expect("the Pod is removed from DNS");
    let primary = || status(&pool, &cluster, 0).expect("the Pod is still known");
    until(SOON, "the primary is retained", || primary().retained).await;
    until(MINUTE * 2, "a minute passes", || {
        let pod = primary();
        assert!(pod.retained && pod.is_usable(), "{pod:?}");
        wrote.elapsed() >= MINUTE
    })
    .await;
    let mut took = Vec::new();
    for published in [false, true] {
        if published {
            cluster.publish(0).expect("the Pod is added to DNS");
            until(SOON, "the primary is an ordinary member", || !primary().retained && primary().is_usable()).await;
        }
        let began = Instant::now();
        request(&pool, Target::ReadWrite).await.expect("the write succeeds");
        took.push(began.elapsed());
    }
    let after = pool.status().counters;
    println!(
        "primary absent for {:.1?}: writes took {took:.1?}, {} connections opened, {} closed",
        wrote.elapsed(),
        after.opened - counters.opened,
        after.closed - counters.closed
    );
    assert!(took.iter().all(|took| *took < GAP), "writes took {took:?}");
    assert_eq!((after.opened, after.closed), (counters.opened, counters.closed), "connections opened and closed");
    let lost: Vec<_> = before.difference(&sessions(&cluster).await).copied().collect();
    assert_eq!(lost, [], "sessions that ended");
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminating_primary_serves_until_its_server_stops() {
    let cluster = start().await;
    create_table(&cluster).await;
    let pool = pool(&cluster, "&acquire_timeout=20s").await;
    let requests = Requests::start(&pool, Target::ReadWrite);
    let started = Instant::now();
    until(SOON, "writes succeed", || requests.succeeded_since(started).is_some()).await;
    cluster.unpublish(0).expect("the Pod is removed from DNS");
    let is_retained = || status(&pool, &cluster, 0).is_some_and(|pod| pod.retained);
    until(SOON, "the primary is retained", is_retained).await;
    sleep(absent_for()).await;
    let stopping = Instant::now();
    let last = requests.last_success(stopping).expect("writes succeed");
    assert!(stopping - last < GAP, "no write succeeded for {:?} before the shutdown", stopping - last);
    cluster.stop(0, Shutdown::Fast).await.expect("the primary stops");
    until(SOON, "the stopped Pod is removed", || status(&pool, &cluster, 0).is_none()).await;
    cluster.start_pod(0).await.expect("the primary starts");
    cluster.publish(0).expect("the Pod is added to DNS");
    let named = Instant::now();
    until(SOON, "writes succeed again", || requests.succeeded_since(named).is_some()).await;
    let resumed = requests.succeeded_since(named).expect("a write succeeded") - named;
    let (count, _, failures) = requests.stop().await;
    println!("{count} writes, {} failed; writes resume {resumed:.1?} after DNS names the primary", failures.len());
    assert!(resumed < FOLLOW, "writes resumed only {resumed:?} after DNS named the primary");
    assert!(failures.len() <= 1, "more than the write in flight at the shutdown failed: {failures:?}");
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_that_wait_at_a_cold_start_are_served_soon_after_dns_names_a_pod() {
    let cluster = start().await;
    (0..3).for_each(|ordinal| cluster.unpublish(ordinal).expect("the Pod is removed from DNS"));
    let config = format!("{}&acquire_timeout=60s", cluster.url()).parse().expect("the URL parses");
    let pool = Pool::builder(config).build().expect("the pool is created");
    let wait = |target: Target| {
        let pool = pool.clone();
        tokio::spawn(async move {
            drop(pool.get_for(target).await.expect("checkout succeeds"));
            Instant::now()
        })
    };
    let (reads, writes) = (wait(Target::Standby), wait(Target::ReadWrite));
    for (ordinal, caller) in [(1, reads), (0, writes)] {
        // Longer than the backoff of failed lookups needs to reach its maximum.
        sleep(absent_for()).await;
        assert!(!caller.is_finished());
        cluster.publish(ordinal).expect("the Pod is added to DNS");
        let named = Instant::now();
        let served = timeout(SOON, caller).await.expect("the caller is served").expect("the task does not panic");
        let took = served - named;
        println!("a caller is served by Pod {ordinal} {took:.1?} after DNS names it");
        assert!(took < FOLLOW, "the caller was served only {took:?} after DNS named Pod {ordinal}");
    }
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_smart_shutdown_ends_soon_after_the_last_connection_is_returned() {
    let cluster = start().await;
    let pool = pool(&cluster, "").await;
    let client = loop {
        let client = pool.get_for(Target::Standby).await.expect("checkout succeeds");
        if client.endpoint().address() == cluster.pod(1).address() {
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
    let took = stopped.saturating_duration_since(returned);
    println!("the server ends {took:.1?} after the last connection is returned");
    assert!(took < SERVER_END, "the server ended only {took:?} after the last connection was returned");
    until(SOON, "the Pod is removed", || status(&pool, &cluster, 1).is_none()).await;
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_detached_pod_serves_no_caller_and_is_drained_after_the_linger_time() {
    let cluster = start().await;
    let pool = pool(&cluster, "&pool_size=1&detach_linger=3s&acquire_timeout=30s").await;
    let mut held = Vec::new();
    while held.len() < 3 {
        held.push(pool.get().await.expect("checkout succeeds"));
    }
    let left = cluster.pod(1).address();
    let waiter = tokio::spawn({
        let pool = pool.clone();
        async move { pool.get().await.expect("checkout succeeds").endpoint().address() }
    });
    cluster.unpublish(1).expect("the Pod is removed from DNS");
    let is_detached = || status(&pool, &cluster, 1).is_some_and(|pod| pod.detached);
    until(SOON, "the Pod is detached", is_detached).await;
    let detached = Instant::now();
    let (of_left, others): (Vec<_>, Vec<_>) = held.into_iter().partition(|client| client.endpoint().address() == left);
    drop(of_left);
    let is_idle = || status(&pool, &cluster, 1).is_some_and(|pod| pod.idle == 1);
    until(SOON, "the returned connection is idle", is_idle).await;
    assert!(!waiter.is_finished(), "a waiter was served by a detached Pod");
    drop(others);
    let address = timeout(SOON, waiter).await.expect("the waiter is served").expect("the task does not panic");
    assert_ne!(address, left);
    while is_detached() {
        assert_ne!(pool.get().await.expect("checkout succeeds").endpoint().address(), left);
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
    let pool = pool(&cluster, "&absent_pods=keep").await;
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
