//! Writes that can be counted afterwards: what was acknowledged, what was said not to be applied, what is there.

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

/// A load of writes, each with a number of its own, through `retry_unapplied`.
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

/// What came of the writes.
#[derive(Debug, Default)]
pub struct Written {
    /// When each write was acknowledged, by its number.
    pub acknowledged: BTreeMap<i64, Instant>,
    /// Those that failed and were said not to be applied, with the error.
    pub no: BTreeMap<i64, String>,
    /// Those that failed and may have been applied, with the error.
    pub unknown: BTreeMap<i64, String>,
}

/// How long writes may take to go on.
const LIMIT: Duration = Duration::from_secs(10);

/// The table. No key: what is written twice is there twice.
pub const TABLE: &str = "CREATE TABLE ledger (id bigint NOT NULL)";

impl Ledger {
    /// Starts this many tasks, each with one write after the other. Numbers begin at `first`.
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
                            written.no.insert(id, format!("{error:?}"));
                        }
                        Err(error) => drop(written.unknown.insert(id, format!("{error:?}"))),
                    }
                }
            });
        }
        Self { shared, tasks: set }
    }

    /// How many writes have been acknowledged.
    pub fn acknowledged(&self) -> usize {
        self.shared.written.lock().unwrap().acknowledged.len()
    }

    /// Waits until so many have been acknowledged.
    pub async fn acknowledges(&self, count: usize) {
        let deadline = Instant::now() + LIMIT;
        while self.acknowledged() < count {
            let seen = || format!("{:?}", self.shared.written.lock().unwrap());
            assert!(Instant::now() < deadline, "not {count} writes within {LIMIT:?}: {:.2000}", seen());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// The first acknowledgement after this moment, if there is one yet.
    pub fn first_after(&self, moment: Instant) -> Option<Instant> {
        let written = self.shared.written.lock().unwrap();
        written.acknowledged.values().copied().filter(|at| *at > moment).min()
    }

    /// Stops it, when every write has been answered.
    pub async fn stop(mut self) -> Written {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(done) = self.tasks.join_next().await {
            done.expect("the load does not panic");
        }
        std::mem::take(&mut *self.shared.written.lock().unwrap())
    }
}

impl Written {
    /// Compares with what the server has: nothing acknowledged is lost, nothing is there twice, nothing is there that
    /// was said not to be.
    pub async fn check(&self, server: &podpool::tokio_postgres::Client) {
        let rows = server.query("SELECT id, count(*) FROM ledger GROUP BY id", &[]).await.expect("the ledger");
        let there: BTreeMap<i64, i64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        let lost: BTreeSet<_> = self.acknowledged.keys().filter(|id| !there.contains_key(id)).collect();
        let twice: BTreeSet<_> = there.iter().filter(|(_, count)| **count > 1).map(|(id, _)| id).collect();
        let denied: BTreeMap<_, _> = self.no.iter().filter(|(id, _)| there.contains_key(id)).collect();
        assert!(lost.is_empty(), "acknowledged and lost: {lost:?}");
        assert!(twice.is_empty(), "applied twice: {twice:?}");
        assert!(denied.is_empty(), "said not to be applied, and applied: {denied:?}");
    }
}
