//! A load of numbered writes, which compares the result of each write with the rows on the server.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use podpool::{Applied, Client, Pool, Target};
use tokio::task::JoinSet;

/// A running load of writes with unique numbers, through `retry_unapplied`.
pub struct Ledger {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    next: AtomicI64,
    written: Mutex<Written>,
}

/// Results of the writes, keyed by number.
#[derive(Debug, Default)]
pub struct Written {
    /// Acknowledged writes, and the time of each acknowledgement.
    pub acknowledged: BTreeMap<i64, Instant>,
    /// Writes that failed with [`Applied::No`], and their errors.
    pub not_applied: BTreeMap<i64, String>,
    /// Failed writes that may have been applied, and their errors.
    pub unknown: BTreeMap<i64, String>,
}

/// Time after which [`Ledger::wait_for_acknowledged`] panics.
const LIMIT: Duration = Duration::from_secs(10);

/// Definition of the table. It has no unique key, so that a write that is applied twice adds a second row.
pub const TABLE: &str = "CREATE TABLE ledger (id bigint NOT NULL)";

impl Ledger {
    /// Starts `tasks` writers. Each makes one write after another. The numbers of the writes begin at `first`.
    pub fn start(pool: &Pool, tasks: usize, first: i64) -> Self {
        let shared = Arc::new(Shared { next: AtomicI64::new(first), ..Shared::default() });
        let mut set = JoinSet::new();
        for _ in 0..tasks {
            let (pool, shared) = (pool.clone(), shared.clone());
            set.spawn(async move {
                while !shared.stop.load(Ordering::Relaxed) {
                    let id = shared.next.fetch_add(1, Ordering::Relaxed);
                    let sql = format!("INSERT INTO ledger VALUES ({id})");
                    let work = |client: Client| {
                        let sql = sql.clone();
                        async move { client.simple_query(&sql).await }
                    };
                    let result = pool.retry_unapplied(Target::Primary, work).await;
                    let mut written = shared.written.lock().unwrap();
                    match result {
                        Ok(_) => drop(written.acknowledged.insert(id, Instant::now())),
                        Err(error) if error.applied() == Applied::No => {
                            written.not_applied.insert(id, format!("{error:?}"));
                        }
                        Err(error) => drop(written.unknown.insert(id, format!("{error:?}"))),
                    }
                }
            });
        }
        Self { shared, tasks: set }
    }

    /// Returns the number of acknowledged writes.
    pub fn acknowledged(&self) -> usize {
        self.shared.written.lock().unwrap().acknowledged.len()
    }

    /// Waits until `count` writes are acknowledged.
    pub async fn wait_for_acknowledged(&self, count: usize) {
        let deadline = Instant::now() + LIMIT;
        while self.acknowledged() < count {
            let written = || format!("{:?}", self.shared.written.lock().unwrap());
            assert!(
                Instant::now() < deadline,
                "fewer than {count} writes were acknowledged within {LIMIT:?}: {:.2000}",
                written()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Returns the time of the first acknowledgement after `moment`.
    pub fn first_after(&self, moment: Instant) -> Option<Instant> {
        let written = self.shared.written.lock().unwrap();
        written.acknowledged.values().copied().filter(|at| *at > moment).min()
    }

    /// Stops the load, waits for the writes in flight, and returns the results.
    pub async fn stop(mut self) -> Written {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(done) = self.tasks.join_next().await {
            done.expect("the load task does not panic");
        }
        std::mem::take(&mut *self.shared.written.lock().unwrap())
    }
}

impl Written {
    /// Asserts that the server has every acknowledged write, no write twice, and no write that was reported as not
    /// applied.
    pub async fn assert_consistent(&self, server: &podpool::tokio_postgres::Client) {
        let rows = server.query("SELECT id, count(*) FROM ledger GROUP BY id", &[]).await.expect("the ledger is read");
        let counts: BTreeMap<i64, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let lost: BTreeSet<_> = self.acknowledged.keys().filter(|id| !counts.contains_key(id)).collect();
        let repeated: BTreeSet<_> = counts.iter().filter(|(_, count)| **count > 1).map(|(id, _)| id).collect();
        let denied: BTreeMap<_, _> = self.not_applied.iter().filter(|(id, _)| counts.contains_key(id)).collect();
        assert!(lost.is_empty(), "acknowledged writes are lost: {lost:?}");
        assert!(repeated.is_empty(), "writes were applied twice: {repeated:?}");
        assert!(denied.is_empty(), "writes were reported as not applied, but are applied: {denied:?}");
    }
}
