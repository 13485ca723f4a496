//! A closed-loop load generator: each task runs one short statement after another through `Pool::retry`.

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

/// A running load. Its tasks end when [`stop`](Self::stop) is called, or after one minute.
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

/// Results of a [`Load`].
#[derive(Debug)]
pub struct Report {
    /// Time of each response, and the address of the server that sent it.
    pub answers: Vec<(Instant, String)>,
    /// Error text of each failed statement.
    pub failures: Vec<String>,
}

impl Load {
    /// Starts `tasks` tasks. Each repeatedly runs a statement that takes about one millisecond.
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

    /// Returns true if the server at `address` has responded after `since`.
    pub fn answered_since(&self, address: &str, since: Instant) -> bool {
        self.shared.answers.lock().unwrap().iter().rev().take_while(|(at, _)| *at > since).any(|(_, a)| a == address)
    }

    /// Returns the number of responses so far.
    pub fn answered(&self) -> usize {
        self.shared.answers.lock().unwrap().len()
    }

    /// Stops the load, waits for the statements in flight, and returns the results.
    pub async fn stop(mut self) -> Report {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(done) = self.tasks.join_next().await {
            done.expect("the load task does not panic");
        }
        let answers = std::mem::take(&mut *self.shared.answers.lock().unwrap());
        let failures = std::mem::take(&mut *self.shared.failures.lock().unwrap());
        Report { answers, failures }
    }
}

impl Report {
    /// Returns the number of responses from each address between `from` (inclusive) and `to` (exclusive).
    pub fn shares(&self, from: Instant, to: Instant) -> BTreeMap<String, usize> {
        let mut shares = BTreeMap::new();
        for (_, address) in self.answers.iter().filter(|(at, _)| (from..to).contains(at)) {
            *shares.entry(address.clone()).or_default() += 1;
        }
        shares
    }
}
