//! A bounded load of small statements through `retry`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use podpool::{Pool, Target};
use tokio::task::JoinSet;

/// A load that runs until it is stopped, for a minute at most.
pub struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    answers: Mutex<Vec<(Instant, String)>>,
    failures: Mutex<Vec<String>>,
}

/// What a load has done.
#[derive(Debug)]
pub struct Report {
    /// When each answer came, and from which address.
    pub answers: Vec<(Instant, String)>,
    /// The text of each failure.
    pub failures: Vec<String>,
}

impl Load {
    /// Starts this many tasks, each with a statement of a millisecond after the other.
    pub fn start(pool: &Pool, target: Target, tasks: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let mut set = JoinSet::new();
        for _ in 0..tasks {
            let (pool, shared) = (pool.clone(), shared.clone());
            set.spawn(async move {
                let end = Instant::now() + Duration::from_secs(60);
                while !shared.stop.load(Ordering::Relaxed) && Instant::now() < end {
                    let work = |client: podpool::Client| async move {
                        let sql = "SELECT host(inet_server_addr()) FROM pg_sleep(0.001)";
                        client.query_one(sql, &[]).await.map(|row| row.get::<_, String>(0))
                    };
                    match pool.retry(target, work).await {
                        Ok(address) => shared.answers.lock().unwrap().push((Instant::now(), address)),
                        Err(error) => shared.failures.lock().unwrap().push(format!("{error:?}")),
                    }
                }
            });
        }
        Self { shared, tasks: set }
    }

    /// Whether an answer has come from this address since then.
    pub fn answered_since(&self, address: &str, since: Instant) -> bool {
        self.shared.answers.lock().unwrap().iter().rev().take_while(|(at, _)| *at > since).any(|(_, a)| a == address)
    }

    /// How many answers have come.
    pub fn answered(&self) -> usize {
        self.shared.answers.lock().unwrap().len()
    }

    /// Stops it.
    pub async fn stop(mut self) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(done) = self.tasks.join_next().await {
            done.expect("the load does not panic");
        }
        let answers = std::mem::take(&mut *self.shared.answers.lock().unwrap());
        let failures = std::mem::take(&mut *self.shared.failures.lock().unwrap());
        Report { answers, failures }
    }
}

impl Report {
    /// Answers by address, of those that came between two moments.
    pub fn shares(&self, from: Instant, to: Instant) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for (_, address) in self.answers.iter().filter(|(at, _)| (from..to).contains(at)) {
            *shares.entry(address.clone()).or_default() += 1;
        }
        shares
    }
}
