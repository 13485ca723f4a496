//! Tests that a caller leaves nothing behind for the next caller of its connection, wherever the caller is interrupted.
//!
//! The tests query the server to verify that the next caller's session has no open transaction and no running or queued
//! statement. The next caller must not wait for leftover work either. The tests use only the public `Client`, on both
//! runtime flavors. Set `PODPOOL_SEED` to repeat a random sequence.

use std::{
    collections::BTreeMap,
    future::Future,
    pin::pin,
    task::{Context, Waker},
    time::Duration,
};

use futures_util::future::join_all;
use podpool::{Config, Pool, testkit::Cluster, tokio_postgres};
use rand::{RngExt, SeedableRng, rngs::StdRng};

use crate::{
    actions::ACTIONS,
    common::until,
    interruption::{INTERRUPTIONS, Interruption, interrupt, silence_intended_panics},
    server_view::{first_query, sessions},
};

/// Maximum number of polls before an interruption. After that many polls, every action has completed or is waiting.
const POLLS: usize = 12;
/// Maximum 95th percentile of the duration of the next caller's first query. Leftover work would delay the query for
/// longer: the pool waits 100 ms before it cancels a statement, and the slowest actions sleep for ten seconds.
const FIRST_QUERY: Duration = Duration::from_millis(50);

/// A series of rounds. In each round, one caller is interrupted and the next caller checks the connection.
struct Callers<'a> {
    pool: &'a Pool,
    observer: &'a tokio_postgres::Client,
    rng: StdRng,
    /// Number of interruptions, keyed by action and number of polls.
    interruptions: BTreeMap<(usize, usize), usize>,
    /// Durations of the next callers' first queries.
    delays: Vec<Duration>,
}

impl<'a> Callers<'a> {
    fn new(pool: &'a Pool, observer: &'a tokio_postgres::Client, seed: u64) -> Self {
        let rng = StdRng::seed_from_u64(seed);
        Self { pool, observer, rng, interruptions: BTreeMap::new(), delays: Vec::new() }
    }

    /// Interrupts one caller and checks the next caller's connection. Returns true if the first caller was interrupted.
    async fn round(&mut self, action: usize, polls: usize, interruption: Interruption) -> bool {
        let limit = Duration::from_micros(self.rng.random_range(0..4_000));
        let client = self.pool.get().await.expect("checkout succeeds");
        let interrupted = interrupt(client, action, polls, interruption, limit).await;
        if interrupted && interruption != Interruption::Timeout {
            *self.interruptions.entry((action, polls)).or_default() += 1;
        }
        // Half of the rounds check out the next connection without yielding to the pool's tasks.
        for _ in 0..[0, 0, 1, 5][self.rng.random_range(0..4)] {
            tokio::task::yield_now().await;
        }
        let next = self.pool.get().await.expect("checkout succeeds");
        let case = format!("after action {action}, {polls} polls, {interruption:?}");
        if self.rng.random_bool(0.3) {
            // Captures the server's view before the next caller has sent anything.
            let before = sessions(self.observer).await;
            let first = first_query(&next).await;
            assert!(first.clean, "{case}: the next caller is in a transaction of an earlier caller");
            let session = &before[&first.pid];
            assert!(session.is_idle, "{case}: the session is not idle: {}", session.description);
        } else {
            let first = first_query(&next).await;
            assert!(first.clean, "{case}: the next caller is in a transaction of an earlier caller");
            self.delays.push(first.took);
        }
        interrupted
    }

    async fn random_round(&mut self) {
        let (action, interruption) = (self.rng.random_range(0..ACTIONS), self.rng.random_range(0..INTERRUPTIONS.len()));
        let polls = self.rng.random_range(1..=POLLS);
        self.round(action, polls, INTERRUPTIONS[interruption]).await;
    }
}

fn percentile(sorted: &[Duration], share: f64) -> Duration {
    sorted[((sorted.len() - 1) as f64 * share).round() as usize]
}

/// Sorts the durations and formats their percentiles.
fn spread(delays: &mut [Duration]) -> String {
    delays.sort();
    let [p50, p95, p99] = [0.5, 0.95, 0.99].map(|share| percentile(delays, share));
    format!("p50 {p50:.2?}, p95 {p95:.2?}, p99 {p99:.2?}, max {:.2?} of {}", percentile(delays, 1.0), delays.len())
}

/// Returns the seed from `PODPOOL_SEED` or a random one, and prints it.
fn seed() -> u64 {
    let seed = std::env::var("PODPOOL_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    println!("PODPOOL_SEED={seed}");
    seed
}

fn pool(cluster: &Cluster, size: usize) -> Pool {
    let url = format!("{}&pool_size={size}&acquire_timeout=30s", cluster.url());
    let config: Config = url.parse().expect("the URL parses");
    Pool::builder(config).build().expect("the pool is created")
}

/// Interrupts every action after every number of polls in every way, and then runs rounds with a random action, number
/// of polls and way.
async fn interrupt_everywhere() {
    silence_intended_panics();
    let seed = seed();
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let (pool, observer) = (pool(&cluster, 6), cluster.client(0).await.expect("the superuser connects"));
    let (pool, observer) = (&pool, &observer);
    let workers = (0..6).map(|worker| async move {
        let mut callers = Callers::new(pool, observer, seed ^ worker);
        for action in (0..ACTIONS).filter(|action| action % 6 == worker as usize) {
            for polls in 1..=POLLS {
                let mut any = false;
                for interruption in INTERRUPTIONS {
                    any |= callers.round(action, polls, interruption).await && interruption != Interruption::Timeout;
                }
                if !any {
                    break;
                }
            }
        }
        for _ in 0..100 {
            callers.random_round().await;
        }
        callers.interruptions
    });
    let mut interruptions = BTreeMap::new();
    for (key, count) in join_all(workers).await.into_iter().flatten() {
        *interruptions.entry(key).or_insert(0) += count;
    }
    let total: usize = interruptions.values().sum();
    println!(
        "{total} interruptions at {} different polls of {ACTIONS} actions; {:?}",
        interruptions.len(),
        pool.status().counters
    );
    for action in 0..ACTIONS {
        assert!(
            interruptions.contains_key(&(action, 1)),
            "action {action} was never interrupted after its first poll: {interruptions:?}"
        );
    }
    let at_rest = || pool.status().endpoints.iter().all(|pod| pod.in_use == 0 && pod.idle == pod.open);
    until(Duration::from_secs(10), "every connection is idle", at_rest).await;
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "current_thread")]
async fn session_is_clean_after_any_interruption_on_one_thread() {
    interrupt_everywhere().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_is_clean_after_any_interruption_on_many_threads() {
    interrupt_everywhere().await;
}

/// Measures the first query of the caller after an interrupted one. There is one connection and one caller at a time,
/// so only leftover work can delay the query.
async fn measure_first_queries() {
    silence_intended_panics();
    let seed = seed();
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let (pool, observer) = (pool(&cluster, 1), cluster.client(0).await.expect("the superuser connects"));
    let mut baseline = Vec::new();
    for _ in 0..200 {
        let client = pool.get().await.expect("checkout succeeds");
        baseline.push(first_query(&client).await.took);
    }
    let mut callers = Callers::new(&pool, &observer, seed);
    while callers.delays.len() < 100 {
        callers.random_round().await;
    }
    let mut delays = callers.delays;
    println!("first query without an interruption: {}", spread(&mut baseline));
    println!("first query after an interruption: {}", spread(&mut delays));
    assert!(percentile(&delays, 0.95) < FIRST_QUERY, "first queries are delayed: {}", spread(&mut delays));
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "current_thread")]
async fn first_query_after_an_interruption_is_fast_on_one_thread() {
    measure_first_queries().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_query_after_an_interruption_is_fast_on_many_threads() {
    measure_first_queries().await;
}

/// Number of rounds in which `BEGIN` must have been queued.
const QUEUED: usize = 200;

/// Drops a `BEGIN` after its first poll, while the request is in the driver's channel and not yet sent.
async fn drop_a_queued_begin() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let pool = pool(&cluster, 1);
    let (mut pending, mut rounds) = (0, 0);
    // On several threads, the server may have answered before the first poll ends.
    while pending < QUEUED {
        rounds += 1;
        assert!(rounds <= 10 * QUEUED, "BEGIN was queued in only {pending} of {rounds} rounds");
        let client = pool.get().await.expect("checkout succeeds");
        {
            let mut begin = pin!(client.batch_execute("BEGIN"));
            pending += usize::from(begin.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        }
        drop(client);
        let next = pool.get().await.expect("checkout succeeds");
        assert!(first_query(&next).await.clean, "the next caller is in a transaction of an earlier caller");
    }
    println!("BEGIN was queued in {pending} of {rounds} rounds; {:?}", pool.status().counters);
    assert_eq!(pool.status().counters.opened, 1, "the connection was closed instead of recycled");
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "current_thread")]
async fn a_dropped_begin_never_reaches_the_next_caller_on_one_thread() {
    drop_a_queued_begin().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_begin_never_reaches_the_next_caller_on_many_threads() {
    drop_a_queued_begin().await;
}

/// Dropping a prepared statement after the checkout has ended queues another request, `Close`, on the connection.
#[tokio::test(flavor = "current_thread")]
async fn checkout_recycles_a_connection_with_a_queued_request() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let pool = pool(&cluster, 1);
    drop(pool.get().await.expect("checkout succeeds"));
    for round in 1..=100 {
        let client = pool.get().await.expect("checkout succeeds");
        let statement = client.prepare("SELECT 1").await.expect("the statement is prepared");
        drop(client);
        let at_rest = || pool.status().endpoints[0].idle == 1;
        until(Duration::from_secs(5), "the connection is idle", at_rest).await;
        let recycled = pool.status().counters.recycled;
        // The test does not yield here, so the request is still in the driver's channel during the checkout.
        drop(statement);
        let next = pool.get().await.expect("checkout succeeds");
        assert_eq!(
            pool.status().counters.recycled,
            recycled + 1,
            "round {round}: the connection was handed out with a queued request"
        );
        assert!(first_query(&next).await.clean, "round {round}: the next caller is in a transaction");
    }
    assert_eq!(pool.status().counters.opened, 1, "the connection was closed instead of recycled");
    cluster.shutdown().await.expect("the cluster shuts down");
}
