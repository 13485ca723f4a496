//! Requests of one caller, with the time and the result of each.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use podpool::{Pool, Target};
use tokio::{task::JoinHandle, time::sleep};

/// The time at which each request ended, and its result.
type Log = Vec<(Instant, Result<(), String>)>;

/// One request after another, without retries.
pub(crate) struct Requests {
    stop: Arc<AtomicBool>,
    log: Arc<Mutex<Log>>,
    task: JoinHandle<()>,
}

impl Requests {
    /// Starts the requests.
    pub(crate) fn start(pool: &Pool, target: Target) -> Self {
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

    /// Returns the time of the first success after `since`.
    pub(crate) fn succeeded_since(&self, since: Instant) -> Option<Instant> {
        self.log.lock().unwrap().iter().find(|(at, result)| *at >= since && result.is_ok()).map(|(at, _)| *at)
    }

    /// Returns the time of the last success before `until`.
    pub(crate) fn last_success(&self, until: Instant) -> Option<Instant> {
        let log = self.log.lock().unwrap();
        log.iter().rev().find(|(at, result)| *at <= until && result.is_ok()).map(|(at, _)| *at)
    }

    /// Stops the requests. Returns the number of successes, the longest time between two of them, and the failures.
    pub(crate) async fn stop(self) -> (usize, Duration, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the task does not panic");
        let log = std::mem::take(&mut *self.log.lock().unwrap());
        let ok: Vec<_> = log.iter().filter(|(_, result)| result.is_ok()).map(|(at, _)| *at).collect();
        let gap = ok.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        (ok.len(), gap, log.into_iter().filter_map(|(_, result)| result.err()).collect())
    }
}

pub(crate) async fn request(pool: &Pool, target: Target) -> Result<(), String> {
    let client = pool.get_for(target).await.map_err(|error| format!("{error:?}"))?;
    let statement = match target {
        Target::ReadWrite => "INSERT INTO membership DEFAULT VALUES",
        _ => "SELECT 1",
    };
    client.batch_execute(statement).await.map_err(|error| format!("{error:?}"))
}
