use std::{
    collections::BTreeMap,
    env,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use podpool::{
    Applied, Client, Pool, Target,
    testkit::{Cluster, Shutdown},
    tokio_postgres,
};
use tokio::{task::JoinSet, time::sleep};

use crate::{
    cutting_proxy::CuttingProxy,
    forms::{Form, TABLE},
};

/// Environment variable with the number of writes.
const WRITES: &str = "PODPOOL_WRITES";
/// The default number of writes: a fraction of the 20,000 that `make outcomes` runs.
const DEFAULT_WRITES: i64 = 2_000;
/// Number of concurrent writers.
const WRITERS: usize = 12;
/// Maximum time for a tenth of the default number of writes.
const LIMIT: Duration = Duration::from_secs(60);

/// The reported outcome of a write.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Reported {
    Acknowledged,
    NotApplied(String),
    Unknown,
}

/// A running load of writes in every form.
struct Load {
    stop: Arc<AtomicBool>,
    next: Arc<AtomicI64>,
    reported: Arc<Mutex<BTreeMap<i64, Reported>>>,
    tasks: JoinSet<()>,
}

fn form(id: i64) -> Form {
    Form::ALL[usize::try_from(id).expect("the number is positive") % Form::ALL.len()]
}

impl Load {
    fn start(pool: &Pool, first: i64) -> Self {
        let mut load =
            Self { stop: Arc::default(), next: Arc::default(), reported: Arc::default(), tasks: JoinSet::new() };
        load.next.store(first, Ordering::Relaxed);
        for _ in 0..WRITERS {
            let (pool, stop, next, all) = (pool.clone(), load.stop.clone(), load.next.clone(), load.reported.clone());
            load.tasks.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let id = next.fetch_add(1, Ordering::Relaxed);
                    let work = |client: Client| form(id).write(client, id);
                    let reported = match pool.retry_unapplied(Target::Primary, work).await {
                        Ok(()) => Reported::Acknowledged,
                        Err(error) if error.applied() == Applied::No => Reported::NotApplied(format!("{error:?}")),
                        Err(_) => Reported::Unknown,
                    };
                    let failed = reported != Reported::Acknowledged;
                    all.lock().unwrap().insert(id, reported);
                    if failed {
                        // Checkouts fail immediately while no Pod has been healthy for some time.
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

    /// Waits for this number of reported outcomes.
    async fn wait_for(&self, count: usize) {
        let deadline = Instant::now() + LIMIT * u32::try_from(1 + count / 200).expect("the number is small");
        while self.count() < count {
            assert!(Instant::now() < deadline, "only {} of {count} writes", self.count());
            sleep(Duration::from_millis(5)).await;
        }
    }

    async fn stop(mut self) -> BTreeMap<i64, Reported> {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(done) = self.tasks.join_next().await {
            done.expect("the writer does not panic");
        }
        std::mem::take(&mut *self.reported.lock().unwrap())
    }
}

/// Asserts that the rows on the server match the reported outcomes.
async fn assert_consistent(server: &tokio_postgres::Client, user: &str, reported: &BTreeMap<i64, Reported>) {
    let busy = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND backend_type = 'client backend'";
    let deadline = Instant::now() + LIMIT;
    while server.query_one(busy, &[&user]).await.expect("the query succeeds").get::<_, i64>(0) > 0 {
        assert!(Instant::now() < deadline, "sessions of the pool are still open");
        sleep(Duration::from_millis(20)).await;
    }
    let sql = "SELECT id, part, count(*) FROM written GROUP BY id, part";
    let mut rows: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for row in server.query(sql, &[]).await.expect("the rows are read") {
        rows.entry(row.get(0)).or_default().push(row.get(2));
    }
    let mut counts: BTreeMap<(Form, &str), (usize, usize)> = BTreeMap::new();
    for (id, reported) in reported {
        let form = form(*id);
        let found = rows.remove(id).unwrap_or_default();
        assert!(
            found.iter().all(|count| *count == 1),
            "write {id} ({form:?}, {reported:?}) was applied twice: {found:?}"
        );
        let label = match reported {
            Reported::Acknowledged => {
                assert_eq!(found.len(), form.rows(), "acknowledged write {id} ({form:?}) is incomplete");
                "acknowledged"
            }
            Reported::NotApplied(error) => {
                assert!(found.is_empty(), "write {id} ({form:?}) was reported as not applied: {error}");
                if !counts.contains_key(&(form, "not applied")) {
                    println!("{form:?}, not applied: {error:.500}");
                }
                "not applied"
            }
            Reported::Unknown => "unknown",
        };
        let (writes, present) = counts.entry((form, label)).or_default();
        *writes += 1;
        *present += usize::from(!found.is_empty());
    }
    assert!(rows.is_empty(), "rows of no write: {rows:?}");
    for ((form, label), (writes, present)) in counts {
        println!("{form:?}: {writes} {label}, {present} of them with rows");
    }
}

async fn superuser(cluster: &Cluster, ordinal: usize) -> tokio_postgres::Client {
    let superuser = cluster.client(ordinal).await.expect("the superuser connects");
    superuser.batch_execute("SET default_transaction_read_only = off").await.expect("the setting is changed");
    superuser
}

async fn set_read_only(superuser: &tokio_postgres::Client, on: bool) {
    let alter = format!("ALTER SYSTEM SET default_transaction_read_only = {}", if on { "on" } else { "off" });
    superuser.batch_execute(&alter).await.expect("the setting is changed");
    superuser.batch_execute("SELECT pg_reload_conf()").await.expect("the configuration is reloaded");
}

/// Writes through a proxy that ends connections after every possible message, while sessions are terminated, the server
/// becomes read-only for moments, and its processes are killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reported_outcomes_are_true_under_faults() {
    let writes = env::var(WRITES).ok().and_then(|writes| writes.parse().ok()).unwrap_or(DEFAULT_WRITES);
    let target = usize::try_from(writes).expect("the number is positive");
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    superuser(&cluster, 0).await.batch_execute(TABLE).await.expect("the table is created");
    let pod = cluster.pod(0).address();
    let proxy = CuttingProxy::start(pod).await;
    let url = cluster.pod_url(0).replace(&pod.to_string(), &proxy.address().to_string());
    let pool = Pool::connect(&format!("{url}?pool_size=12&sslmode=disable")).await.expect("the pool is created");
    let began = Instant::now();
    let load = Load::start(&pool, 1);
    let terminate = "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity \
                     WHERE usename = $1 ORDER BY random() LIMIT 2) AS sessions";
    let (mut terminated, mut flips, mut kills) = (0, 0, 0);
    while load.count() < target {
        let admin = superuser(&cluster, 0).await;
        for _ in 0..10 {
            let row = admin.query_one(terminate, &[&cluster.user()]).await.expect("the query succeeds");
            terminated += row.get::<_, i64>(0);
            sleep(Duration::from_millis(30)).await;
            if flips % 3 == 0 {
                set_read_only(&admin, true).await;
                sleep(Duration::from_millis(20)).await;
                set_read_only(&admin, false).await;
            }
            flips += 1;
        }
        if load.count() * 4 / target > kills {
            kills += 1;
            cluster.kill(0).await.expect("SIGKILL is sent");
            cluster.start_pod(0).await.expect("the Pod starts");
        }
        assert!(began.elapsed() < LIMIT * u32::try_from(1 + target / 200).expect("the number is small"));
    }
    let reported = load.stop().await;
    let cuts = proxy.cuts.load(Ordering::Relaxed);
    println!(
        "{} writes in {:?}; {terminated} sessions terminated, {} read-only periods, {kills} kills, {cuts} cuts",
        reported.len(),
        began.elapsed(),
        flips / 3
    );
    assert!(terminated > 0 && flips > 0 && kills > 0 && cuts > 0, "every fault has occurred");
    pool.close().await;
    assert_consistent(&superuser(&cluster, 0).await, cluster.user(), &reported).await;
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Writes while the primary shuts down and a standby is promoted, several times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reported_outcomes_are_true_during_switchovers() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    superuser(&cluster, 0).await.batch_execute(TABLE).await.expect("the table is created");
    cluster.wait_replicated().await.expect("the standby follows");
    let pool = Pool::connect(&format!("{}&pool_size=12", cluster.url())).await.expect("the pool is created");
    let load = Load::start(&pool, 1);
    for round in 0..4 {
        load.wait_for(load.count() + 300).await;
        let old = cluster.primary().expect("the cluster has a primary");
        // A fast shutdown sends all of the log to the standby, so no acknowledged write is lost.
        cluster.stop(old, Shutdown::Fast).await.expect("the primary stops");
        cluster.promote(1 - old).await.expect("the standby is promoted");
        load.wait_for(load.count() + 100).await;
        cluster.reattach(old).await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        cluster.wait_replicated().await.expect("the standby follows");
    }
    let reported = load.stop().await;
    println!("{} writes during 4 switchovers", reported.len());
    pool.close().await;
    let primary = cluster.primary().expect("the cluster has a primary");
    assert_consistent(&superuser(&cluster, primary).await, cluster.user(), &reported).await;
    cluster.shutdown().await.expect("the cluster shuts down");
}
