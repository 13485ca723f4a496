//! Tests `Checkout::max_lag`: no read gets data that is older than its own limit, while reads with other limits, or
//! with none, go on.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use podpool::{Checkout, Kind, Pool, Role, State, Target, testkit::Cluster};
use tokio::{task::JoinHandle, time::sleep};

use crate::{
    at_rest,
    common::{in_state, until},
};

const LIMITS: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(3)];
/// Time between two writes.
const WRITE_INTERVAL: Duration = Duration::from_millis(20);
/// A checkout that takes longer has waited for a connection, so the moment of the hand-over is near its end.
const WAITED: Duration = Duration::from_millis(50);

/// The times at which the writes were acknowledged. The write with number `n` is the `n`-th.
#[derive(Clone, Default)]
struct Writes(Arc<Mutex<Vec<Instant>>>);

impl Writes {
    /// Starts to insert rows on the primary.
    async fn start(&self, cluster: &Cluster) -> JoinHandle<()> {
        let primary = cluster.client(0).await.expect("the superuser connects");
        let table = "CREATE TABLE written (n int8); GRANT ALL ON written TO PUBLIC";
        primary.batch_execute(table).await.expect("the table is created");
        let writes = self.clone();
        tokio::spawn(async move {
            for n in 1i64.. {
                primary.execute("INSERT INTO written VALUES ($1)", &[&n]).await.expect("the row is inserted");
                writes.0.lock().unwrap().push(Instant::now());
                sleep(WRITE_INTERVAL).await;
            }
        })
    }

    /// Returns the age, at the time `at`, of data that ends with write `last`: the time since the acknowledgement of
    /// the first write that it lacks.
    fn age(&self, last: i64, at: Instant) -> Duration {
        let lacking = self.0.lock().unwrap().get(usize::try_from(last).expect("the number is positive")).copied();
        lacking.map_or(Duration::ZERO, |lacking| at.saturating_duration_since(lacking))
    }
}

/// Reads with one limit.
#[derive(Default)]
struct Reads {
    /// The time of each read, and the age of its data.
    ages: Mutex<Vec<(Instant, Duration)>>,
    /// True while a call waits for a connection.
    waiting: AtomicBool,
}

impl Reads {
    fn start(self: &Arc<Self>, pool: &Pool, writes: &Writes, limit: Duration) -> JoinHandle<()> {
        let (reads, pool, writes) = (self.clone(), pool.clone(), writes.clone());
        let checkout = Checkout::new(Target::Standby).max_lag(limit).deadline(Duration::from_secs(60));
        tokio::spawn(async move {
            loop {
                let began = Instant::now();
                reads.waiting.store(true, Ordering::Relaxed);
                let client = pool.get_for(checkout).await.expect("the standby catches up");
                reads.waiting.store(false, Ordering::Relaxed);
                let at = if began.elapsed() < WAITED { began } else { Instant::now() };
                let sql = "SELECT coalesce(max(n), 0) FROM written";
                let last = client.query_one(sql, &[]).await.expect("the query succeeds").get(0);
                assert_eq!(client.role(), Role::Standby);
                reads.ages.lock().unwrap().push((at, writes.age(last, at)));
                drop(client);
                sleep(Duration::from_millis(10)).await;
            }
        })
    }

    fn since(&self, since: Instant) -> usize {
        self.ages.lock().unwrap().iter().filter(|(at, _)| *at >= since).count()
    }

    fn is_waiting(&self) -> bool {
        self.waiting.load(Ordering::Relaxed)
    }
}

async fn set_replay(cluster: &Cluster, call: &str) {
    let standby = cluster.client(1).await.expect("the superuser connects");
    standby.batch_execute(&format!("SELECT {call}()")).await.expect("replay is paused or resumed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_is_older_than_its_own_limit_while_replay_is_paused() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    let pool = Pool::connect(&cluster.url()).await.expect("the pool is created");
    until(Duration::from_secs(20), "both Pods serve", || in_state(&pool, State::Healthy) == 2).await;
    let writes = Writes::default();
    let writing = writes.start(&cluster).await;
    cluster.wait_replicated().await.expect("the standby has the table");
    let reads = LIMITS.map(|_| Arc::new(Reads::default()));
    let readers: Vec<_> = reads.iter().zip(LIMITS).map(|(reads, limit)| reads.start(&pool, &writes, limit)).collect();
    let long = Duration::from_secs(60);
    for _ in 0..2 {
        let since = Instant::now();
        until(long, "reads with both limits succeed", || reads.iter().all(|reads| reads.since(since) > 20)).await;
        set_replay(&cluster, "pg_wal_replay_pause").await;
        let paused = Instant::now();
        until(long, "reads with both limits wait", || {
            paused.elapsed() > LIMITS[1] + Duration::from_millis(500) && reads.iter().all(|reads| reads.is_waiting())
        })
        .await;
        let stopped = Instant::now();
        // Other reads go on: without a limit on the standby, and with a limit on the primary.
        let client = pool.get_for(Target::Standby).await.expect("the standby serves");
        assert_eq!(client.role(), Role::Standby);
        drop(client);
        let fallback = Checkout::new(Target::PreferStandby).max_lag(LIMITS[0]);
        let client = pool.get_for(fallback).await.expect("the primary serves");
        assert_eq!(client.role(), Role::Primary);
        drop(client);
        sleep(Duration::from_millis(500)).await;
        assert!(reads.iter().all(|reads| reads.since(stopped) == 0), "a read was served while replay was paused");
        set_replay(&cluster, "pg_wal_replay_resume").await;
    }
    let resumed = Instant::now();
    until(long, "reads with both limits succeed", || reads.iter().all(|reads| reads.since(resumed) > 20)).await;
    for task in readers {
        assert!(!task.is_finished(), "a read has failed");
        task.abort();
        let _ = task.await;
    }
    writing.abort();
    for (reads, limit) in reads.iter().zip(LIMITS) {
        let ages = reads.ages.lock().unwrap();
        let oldest = ages.iter().map(|(_, age)| *age).max().expect("there are reads");
        println!("limit {limit:?}: {} reads, oldest data {oldest:?}", ages.len());
        assert!(oldest <= limit, "a read was older than its limit");
    }
    until(Duration::from_secs(10), "every connection is idle", || at_rest(&pool)).await;
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_no_standby_fulfills_fails_with_the_ages() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    let pool = Pool::connect(&cluster.url()).await.expect("the pool is created");
    until(Duration::from_secs(20), "both Pods serve", || in_state(&pool, State::Healthy) == 2).await;
    let checkout = Checkout::new(Target::Standby).max_lag(Duration::ZERO);
    let error = pool.get_within(checkout, Duration::from_millis(300)).await.expect_err("only a primary is current");
    assert_eq!(error.kind(), Kind::NoEndpoints, "{error:?}");
    assert!(error.to_string().contains("no Pod can serve `standby` with data at most 0ns old: "), "{error}");
    for target in [Target::Any, Target::PreferStandby, Target::PreferPrimary, Target::Primary] {
        let client = pool.get_for(Checkout::new(target).max_lag(Duration::ZERO)).await.expect("the primary serves");
        assert_eq!(client.role(), Role::Primary, "{target}");
    }
    until(Duration::from_secs(10), "every connection is idle", || at_rest(&pool)).await;
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// A client that uses only a standby searches the primary to measure the age of the standby's data.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_a_call_finds_the_primary_outside_the_subset() {
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let primary = Some(cluster.pod(0).address());
    for id in 0.. {
        let pool = Pool::connect(&format!("{}&subset_size=1&client_id=web-{id}", cluster.url())).await;
        let pool = pool.expect("the pool connects");
        if pool.get().await.expect("checkout succeeds").endpoint().address().tcp() == primary {
            continue; // the primary is this client's subset
        }
        let limited = Checkout::new(Target::Standby).max_lag(Duration::from_secs(2));
        let client = pool.get_for(limited).await.expect("the age of the standby's data is known");
        assert_eq!(client.role(), Role::Standby);
        drop(client);
        let used = pool.status().endpoints;
        assert!(used.iter().any(|pod| pod.endpoint.address().tcp() == primary && pod.is_usable()), "{used:?}");
        break;
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}
