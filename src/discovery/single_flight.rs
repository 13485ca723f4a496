//! Single-flight execution: concurrent callers share one run of an asynchronous operation and its result.
//!
//! A DNS lookup requires three properties:
//!
//! - Cancelling one caller does not affect the others.
//! - A run is stopped when its last caller is gone.
//! - A run starts only after the previous run has ended completely, because both use the same state.
//!
//! Crates considered:
//!
//! - [`async_singleflight`](https://docs.rs/async_singleflight) and [`moka`](https://docs.rs/moka) (`Cache::get_with`)
//!   poll the operation inside the first caller's future. If that caller is cancelled, a waiting caller starts its own
//!   operation from the beginning: all queries are sent again, with a new deadline. moka also caches the result, but
//!   later calls must not use it.
//! - `futures_util::future::Shared` keeps one operation running for all callers. However, a panic in the operation
//!   propagates to every caller, and a new run can start while another thread is still dropping the previous one.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Weak},
};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinHandle},
};

use crate::{
    sync::{Mutex, lock},
    system::spawn,
};

/// An operation that runs at most once at a time. Callers that arrive during a run receive the result of that run.
///
/// Each run is a tokio task. The task is aborted when the last caller of the run is dropped.
pub(super) struct SingleFlight<T> {
    current: Mutex<Current<T>>,
}

/// The latest run.
struct Current<T> {
    /// The run itself, which is owned by the callers that are waiting for its result.
    running: Weak<Running<T>>,
    task: Option<JoinHandle<()>>,
}

/// A run with at least one caller. Aborts its task on drop.
struct Running<T> {
    result: watch::Receiver<Option<T>>,
    task: AbortHandle,
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl<T: Clone + Send + Sync + 'static> SingleFlight<T> {
    pub(super) fn new() -> Self {
        Self { current: Mutex::new(Current { running: Weak::new(), task: None }) }
    }

    /// Joins the run in progress, or starts `work`, and returns the result. Returns `None` if the task panicked or was
    /// aborted.
    ///
    /// Must be called within a tokio runtime. Cancel safe.
    pub(super) async fn join<F>(&self, work: impl FnOnce() -> F + Send + 'static) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let running = {
            let mut current = lock(&self.current);
            match current.running.upgrade().filter(|running| running.is_in_progress()) {
                Some(running) => running,
                None => {
                    let (sender, result) = watch::channel(None);
                    let previous = current.task.take();
                    let task = spawn(async move {
                        if let Some(previous) = previous {
                            // Wait only until the previous task has ended. The result of that task is not used here.
                            let _ = previous.await;
                        }
                        let done = work().await;
                        sender.send_replace(Some(done));
                    });
                    let running = Arc::new(Running { result, task: task.abort_handle() });
                    *current = Current { running: Arc::downgrade(&running), task: Some(task) };
                    running
                }
            }
        };
        let mut result = running.result.clone();
        // An error means that the task panicked or was aborted.
        result.wait_for(Option::is_some).await.ok()?.clone()
    }
}

impl<T> Running<T> {
    fn is_in_progress(&self) -> bool {
        self.result.has_changed().is_ok() && self.result.borrow().is_none()
    }
}

impl<T> fmt::Debug for SingleFlight<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleFlight").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::time::sleep;

    use super::*;
    use crate::time::Duration;

    async fn count(runs: Arc<AtomicU32>) -> u32 {
        sleep(Duration::from_secs(1)).await;
        runs.fetch_add(1, Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn concurrent_callers_share_a_run_and_later_callers_do_not() {
        let (flight, runs) = (Arc::new(SingleFlight::new()), Arc::new(AtomicU32::new(0)));
        let callers: Vec<_> = (0..100)
            .map(|_| {
                let (flight, runs) = (flight.clone(), runs.clone());
                tokio::spawn(async move { flight.join(|| count(runs)).await })
            })
            .collect();
        for caller in callers {
            assert_eq!(caller.await.unwrap(), Some(0));
        }
        assert_eq!(flight.join(|| count(runs)).await, Some(1));
    }

    #[tokio::test(start_paused = true)]
    async fn run_stops_only_when_its_last_caller_is_cancelled() {
        let (flight, runs) = (Arc::new(SingleFlight::new()), Arc::new(AtomicU32::new(0)));
        let first = tokio::spawn({
            let (flight, runs) = (flight.clone(), runs.clone());
            async move { flight.join(|| count(runs)).await }
        });
        tokio::task::yield_now().await;
        let second = tokio::spawn({
            let (flight, runs) = (flight.clone(), runs.clone());
            async move { flight.join(|| count(runs)).await }
        });
        tokio::task::yield_now().await;
        first.abort();
        assert_eq!(second.await.unwrap(), Some(0));
        let alone = flight.join({
            let runs = runs.clone();
            || count(runs)
        });
        assert!(tokio::time::timeout(Duration::from_millis(10), alone).await.is_err());
        sleep(Duration::from_secs(5)).await;
        assert_eq!(runs.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn returns_none_after_a_panic_and_the_next_call_runs_again() {
        let flight = SingleFlight::<u32>::new();
        async fn fail() -> u32 {
            panic!("on purpose")
        }
        assert_eq!(flight.join(fail).await, None);
        assert_eq!(flight.join(|| async { 3 }).await, Some(3));
    }
}
