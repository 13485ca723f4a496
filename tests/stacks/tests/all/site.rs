//! A cluster with a pool, and faults of its primary.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use podpool::{Pool, State, testkit::Cluster};
use podpool_stacks::schema::migrate;
use tokio::{task::JoinHandle, time::sleep};

/// Time limit for a condition that normally holds after a fraction of it.
pub const SOON: Duration = Duration::from_secs(30);

/// Polls `condition` every 5 ms until it returns true. Panics with `description` after [`SOON`].
pub async fn until(description: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition() {
        assert!(Instant::now() < deadline, "condition not met within {SOON:?}: {description}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// Starts a cluster and a pool whose Pods all serve.
pub async fn start(pods: usize) -> (Cluster, Pool) {
    let cluster = Cluster::start(pods).await.expect("the cluster starts");
    let pool = connect(&cluster).await;
    (cluster, pool)
}

/// Creates a pool, and waits until all Pods serve.
pub async fn connect(cluster: &Cluster) -> Pool {
    let url = format!("{}&connect_timeout=20s", cluster.url());
    let pool = Pool::connect(&url).await.expect("the pool is created");
    let healthy = || pool.status().endpoints.iter().filter(|pod| pod.state == State::Healthy).count();
    until("all Pods serve", || healthy() == cluster.len()).await;
    pool
}

/// Applies the migrations, and waits until all standbys have the tables.
pub async fn migrated(cluster: &Cluster, pool: &Pool) {
    migrate(pool).await.expect("the migrations succeed");
    cluster.wait_replicated().await.expect("the standbys have the tables");
}

/// A fault of the primary, Pod 0, after which Pod 1 is promoted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// SIGKILL.
    Kill,
    /// SIGSTOP: connections stay open, but nothing is answered.
    Freeze,
}

impl Fault {
    pub async fn inject(self, cluster: &Cluster) {
        match self {
            Self::Kill => cluster.kill(0).await.expect("SIGKILL is sent"),
            Self::Freeze => cluster.pause(0).await.expect("SIGSTOP is sent"),
        }
        cluster.promote(1).await.expect("the standby is promoted");
    }
}

/// Watches a pool until a Pod is not used any more. The result is the time at which this was noticed.
pub fn watch(pool: &Pool, pod: SocketAddr) -> JoinHandle<Instant> {
    let pool = pool.clone();
    tokio::spawn(async move {
        until("the pool leaves the old primary", || {
            let endpoints = pool.status().endpoints;
            !endpoints.iter().any(|other| other.endpoint.address().tcp() == Some(pod) && other.is_usable())
        })
        .await;
        Instant::now()
    })
}

/// The names of the writes that were acknowledged, with the times.
#[derive(Clone, Default)]
pub struct Acknowledged(Arc<Mutex<Vec<(Instant, String)>>>);

impl Acknowledged {
    pub fn add(&self, name: String) {
        self.0.lock().expect("no thread has panicked").push((Instant::now(), name));
    }

    pub fn since(&self, since: Instant) -> Vec<(Instant, String)> {
        let all = self.0.lock().expect("no thread has panicked");
        all.iter().filter(|(at, _)| *at >= since).cloned().collect()
    }

    /// Checks that each of the writes since then has exactly one row on the new primary.
    pub async fn check(&self, cluster: &Cluster, since: Instant) {
        let names: Vec<_> = self.since(since).into_iter().map(|(_, name)| name).collect();
        let primary = cluster.client(1).await.expect("the superuser connects");
        let sql = "SELECT count(*), count(DISTINCT item) FROM orders WHERE item = ANY($1)";
        let row = primary.query_one(sql, &[&names]).await.expect("the query succeeds");
        let expected = names.len() as i64;
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (expected, expected), "an acknowledged write is lost");
    }
}

/// Waits until a session of a Pod runs a statement that begins with this text and waits for a lock.
pub async fn until_locked(cluster: &Cluster, pod: usize, statement: &str) {
    let admin = cluster.client(pod).await.expect("the superuser connects");
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE $1 AND wait_event_type = 'Lock'";
    let deadline = Instant::now() + SOON;
    let pattern = format!("{statement}%");
    while admin.query_one(sql, &[&pattern]).await.expect("the query succeeds").get::<_, i64>(0) == 0 {
        assert!(Instant::now() < deadline, "no session waits for a lock in {statement:?}");
        sleep(Duration::from_millis(5)).await;
    }
}
