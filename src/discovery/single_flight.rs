use std::{
    fmt,
    future::Future,
    sync::{Arc, Weak},
};

use tokio::{
    sync::watch,
    task::{AbortHandle, JoinHandle},
};

use crate::sync::{Mutex, lock};

/// Work that many callers wait for and that runs once: whoever comes while it runs gets the same result.
///
/// It runs in a task of its own, so a caller that goes away takes nothing from the others; when the last one goes, the
/// work is stopped. One run never begins before the one before it has ended.
pub(super) struct SingleFlight<T> {
    current: Mutex<Current<T>>,
}

struct Current<T> {
    running: Weak<Running<T>>,
    task: Option<JoinHandle<()>>,
}

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

    /// The result of the work that runs, or else of `work`. `None` if it was stopped or panicked.
    ///
    /// Must be called within a tokio runtime. Cancel safe.
    pub(super) async fn join<F>(&self, work: impl FnOnce() -> F + Send + 'static) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let running = {
            let mut current = lock(&self.current);
            match current.running.upgrade().filter(|running| running.is_going()) {
                Some(running) => running,
                None => {
                    let (tell, result) = watch::channel(None);
                    let before = current.task.take();
                    let task = tokio::spawn(async move {
                        if let Some(before) = before {
                            // How it ended was told to whoever waited for it; here it only has to be over.
                            let _ = before.await;
                        }
                        let done = work().await;
                        tell.send_replace(Some(done));
                    });
                    let running = Arc::new(Running { result, task: task.abort_handle() });
                    *current = Current { running: Arc::downgrade(&running), task: Some(task) };
                    running
                }
            }
        };
        let mut result = running.result.clone();
        // An error says that the task ended without a result.
        result.wait_for(Option::is_some).await.ok()?.clone()
    }
}

impl<T> Running<T> {
    fn is_going(&self) -> bool {
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
    async fn many_callers_share_one_run_and_the_next_run_is_another() {
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
    async fn a_caller_that_goes_away_leaves_the_others_and_the_last_one_stops_the_work() {
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
    async fn work_that_panics_is_told_and_the_next_call_works() {
        let flight = SingleFlight::<u32>::new();
        async fn fail() -> u32 {
            panic!("on purpose")
        }
        assert_eq!(flight.join(fail).await, None);
        assert_eq!(flight.join(|| async { 3 }).await, Some(3));
    }
}
