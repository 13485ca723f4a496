//! Writes and reads on shared connections under faults. The reported outcome of each write must be true, and each read
//! must return its own rows.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use podpool::{
    Applied, Pool, Target,
    testkit::{Cluster, Shutdown},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{cluster, cutting_proxy::CuttingProxy, superuser};

/// Number of writes under faults.
const WRITES: usize = 2_000;
const WRITERS: i64 = 24;
/// Maximum time for all writes.
pub const LIMIT: Duration = Duration::from_secs(240);
/// A table without a unique key, so that a write that is applied twice adds a second row.
pub const TABLE: &str = "CREATE TABLE written (id bigint NOT NULL); GRANT ALL ON written TO PUBLIC";

#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Reported {
    Acknowledged,
    NotApplied(String),
    Unknown,
}

/// A running load of single statements.
struct Load {
    stop: Arc<AtomicBool>,
    reported: Arc<Mutex<BTreeMap<i64, Reported>>>,
    reads: Arc<AtomicI64>,
    tasks: JoinSet<()>,
}

impl Load {
    fn start(pool: &Pool) -> Self {
        let (stop, reads) = (Arc::<AtomicBool>::default(), Arc::<AtomicI64>::default());
        let mut load = Self { stop, reported: Arc::default(), reads, tasks: JoinSet::new() };
        for writer in 0..WRITERS {
            let (pool, stop, all, reads) = (pool.clone(), load.stop.clone(), load.reported.clone(), load.reads.clone());
            load.tasks.spawn(async move {
                for round in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let id = round * WRITERS + writer;
                    let shared = pool.shared(Target::Primary);
                    let reported = match id % 5 {
                        // A read returns its own rows or fails.
                        0 => {
                            let read = shared.repeatable();
                            let text = "SELECT $1::int8 FROM generate_series(1, $2::int4)";
                            if let Ok(rows) = read.query(text, &[&id, &3i32]).await {
                                let numbers: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
                                assert_eq!(numbers, [id; 3]);
                                reads.fetch_add(1, Ordering::Relaxed);
                            }
                            continue;
                        }
                        // A statement that fails has no effect.
                        1 => {
                            let failed = shared.execute("INSERT INTO written VALUES ($1 / 0)", &[&id]).await;
                            let error = failed.expect_err("the statement fails");
                            match error.applied() {
                                Applied::No => Reported::NotApplied(format!("{error:?}")),
                                Applied::Unknown => Reported::Unknown,
                            }
                        }
                        kind => {
                            let limit = if kind == 2 { Duration::from_micros(id as u64 % 5_000) } else { LIMIT };
                            match timeout(limit, shared.execute("INSERT INTO written VALUES ($1)", &[&id])).await {
                                Ok(Ok(1)) => Reported::Acknowledged,
                                Ok(Ok(rows)) => panic!("{rows} rows were inserted"),
                                Ok(Err(error)) if error.applied() == Applied::No => {
                                    Reported::NotApplied(format!("{error:?}"))
                                }
                                Ok(Err(_)) | Err(_) => Reported::Unknown,
                            }
                        }
                    };
                    let failed = matches!(&reported, Reported::NotApplied(_)) && id % 5 != 1;
                    all.lock().unwrap().insert(id, reported);
                    if failed {
                        // Calls fail immediately while no Pod has been healthy for some time.
                        sleep(Duration::from_millis(10)).await;
                    }
                }
            });
        }
        load
    }

    fn count(&self) -> usize {
        self.reported.lock().unwrap().len()
    }

    async fn stop(mut self) -> BTreeMap<i64, Reported> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(done) = self.tasks.join_next().await {
            done.expect("the writer does not panic");
        }
        assert!(self.reads.load(Ordering::Relaxed) > 0);
        std::mem::take(&mut *self.reported.lock().unwrap())
    }
}

/// Asserts that the rows on the server match the reported outcomes. The pool is closed.
pub async fn assert_consistent(cluster: &Cluster, ordinal: usize, reported: &BTreeMap<i64, Reported>) {
    let server = cluster.client(ordinal).await.expect("the superuser connects");
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND backend_type = 'client backend'";
    let deadline = Instant::now() + LIMIT;
    while server.query_one(busy, &[&cluster.user()]).await.expect("the query succeeds").get::<_, i64>(0) > 0 {
        assert!(Instant::now() < deadline, "sessions of the pool are still open");
        sleep(Duration::from_millis(20)).await;
    }
    let rows = server.query("SELECT id, count(*) FROM written GROUP BY id", &[]).await.expect("the rows are read");
    let mut counts: BTreeMap<i64, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    let mut totals = [0; 4];
    for (id, reported) in reported {
        let count = counts.remove(id).unwrap_or_default();
        match reported {
            Reported::Acknowledged => assert_eq!(count, 1, "acknowledged write {id}"),
            Reported::NotApplied(error) => assert_eq!(count, 0, "write {id} was reported as not applied: {error}"),
            Reported::Unknown => assert!(count <= 1, "write {id} was applied {count} times"),
        }
        totals[match reported {
            Reported::Acknowledged => 0,
            Reported::NotApplied(_) => 1,
            Reported::Unknown if count == 0 => 2,
            Reported::Unknown => 3,
        }] += 1;
    }
    assert!(counts.is_empty(), "rows of no known write: {counts:?}");
    let [acknowledged, not_applied, absent, present] = totals;
    println!("{acknowledged} acknowledged, {not_applied} not applied, {absent} unknown and absent, {present} present");
    assert!(acknowledged > 0 && not_applied > 0 && present + absent > 0);
}

/// The connections end after every possible number of messages, in both directions, and sessions are terminated.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reported_outcomes_are_true_if_connections_break_at_every_message() {
    let cluster = cluster(1).await;
    superuser(&cluster).await.batch_execute(TABLE).await.expect("the table is created");
    let pod = cluster.pod(0).address();
    let proxy = CuttingProxy::start(pod).await;
    let url = cluster.pod_url(0).replace(&pod.to_string(), &proxy.address().to_string());
    let url = format!("{url}?pool_size=6&min_idle=0&sslmode=disable");
    let pool = Pool::builder(url.parse().expect("the URL parses")).build().expect("the pool is created");
    let began = Instant::now();
    let load = Load::start(&pool);
    let terminate = "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity \
                     WHERE usename = $1 ORDER BY random() LIMIT 1) AS sessions";
    let (mut terminated, mut kills) = (0, 0);
    while load.count() < WRITES {
        let admin = superuser(&cluster).await;
        for _ in 0..10 {
            let row = admin.query_one(terminate, &[&cluster.user()]).await.expect("the query succeeds");
            terminated += row.get::<_, i64>(0);
            sleep(Duration::from_millis(100)).await;
        }
        if load.count() * 4 / WRITES > kills {
            kills += 1;
            cluster.kill(0).await.expect("SIGKILL is sent");
            cluster.start_pod(0).await.expect("the Pod starts");
        }
        assert!(began.elapsed() < LIMIT, "only {} of {WRITES} writes", load.count());
    }
    let reported = load.stop().await;
    let cuts = proxy.cuts.load(Ordering::Relaxed);
    println!(
        "{} writes in {:?}; {terminated} sessions terminated, {kills} kills, {cuts} cuts",
        reported.len(),
        began.elapsed()
    );
    assert!(terminated > 0 && kills > 0 && cuts > 0, "every fault has occurred");
    pool.close().await;
    assert_consistent(&cluster, 0, &reported).await;
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// The primary shuts down and a standby is promoted, several times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reported_outcomes_are_true_during_switchovers() {
    let cluster = cluster(2).await;
    superuser(&cluster).await.batch_execute(TABLE).await.expect("the table is created");
    cluster.wait_replicated().await.expect("the standby follows");
    let url = format!("{}&pool_size=4&min_idle=0", cluster.url());
    let pool = Pool::builder(url.parse().expect("the URL parses")).build().expect("the pool is created");
    let began = Instant::now();
    let load = Load::start(&pool);
    for round in 0..3 {
        let wait_for = async |count: usize| {
            while load.count() < count {
                assert!(began.elapsed() < LIMIT, "only {} of {count} writes", load.count());
                sleep(Duration::from_millis(5)).await;
            }
        };
        wait_for(load.count() + 300).await;
        let old = cluster.primary().expect("the cluster has a primary");
        // A fast shutdown sends all of the log to the standby, so no acknowledged write is lost.
        cluster.stop(old, Shutdown::Fast).await.expect("the primary stops");
        cluster.promote(1 - old).await.expect("the standby is promoted");
        wait_for(load.count() + 100).await;
        cluster.reattach(old).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        cluster.wait_replicated().await.expect("the standby follows");
    }
    let reported = load.stop().await;
    println!("{} writes during 3 switchovers", reported.len());
    pool.close().await;
    let primary = cluster.primary().expect("the cluster has a primary");
    assert_consistent(&cluster, primary, &reported).await;
    cluster.shutdown().await.expect("the cluster shuts down");
}
