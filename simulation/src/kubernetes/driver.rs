//! The task that runs a cluster in simulated time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{cluster::Cluster, event::Event, runtime::ContainerRuntime};

/// A cluster that tasks share. All of them run on one thread: the lock is never contended.
pub struct SharedCluster<R> {
    cluster: Arc<Mutex<Cluster<R>>>,
    changed: Arc<Notify>,
}

impl<R> Clone for SharedCluster<R> {
    fn clone(&self) -> Self {
        Self { cluster: Arc::clone(&self.cluster), changed: Arc::clone(&self.changed) }
    }
}

impl<R: ContainerRuntime> SharedCluster<R> {
    /// Shares a cluster, and returns the driver that runs its timers.
    pub fn new(cluster: Cluster<R>) -> (Self, Driver<R>) {
        let shared = Self { cluster: Arc::new(Mutex::new(cluster)), changed: Arc::new(Notify::new()) };
        (shared.clone(), Driver(shared))
    }

    /// Reads or changes the cluster. The driver then runs what is due.
    pub fn with<T>(&self, operation: impl FnOnce(&mut Cluster<R>, Instant) -> T) -> T {
        let result = operation(&mut self.lock(), Instant::now());
        self.changed.notify_one();
        result
    }

    fn lock(&self) -> MutexGuard<'_, Cluster<R>> {
        self.cluster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that runs the timers of a cluster.
pub struct Driver<R>(SharedCluster<R>);

impl<R: ContainerRuntime> Driver<R> {
    /// Runs the timers when they are due, for as long as it is polled. `handle` takes each event; it may not call the
    /// cluster.
    pub async fn run(self, mut handle: impl FnMut(Instant, Event)) {
        loop {
            let now = Instant::now();
            let (events, next) = {
                let mut cluster = self.0.lock();
                (cluster.step(now), cluster.next())
            };
            for event in events {
                handle(now, event);
            }
            match next {
                Some(next) => tokio::select! {
                    biased;
                    () = self.0.changed.notified() => {}
                    () = sleep_until(next) => {}
                },
                None => self.0.changed.notified().await,
            }
        }
    }
}
