//! Starts tasks that belong to a host, so that pausing or killing the host affects all of them.

use std::{future::Future, pin::Pin, sync::Arc};

/// A host on which tasks run.
pub trait Spawn {
    /// Starts a task on the host.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);
}

/// A host that is the current runtime: its tasks are never paused or killed.
#[derive(Clone, Copy, Debug, Default)]
pub struct TokioSpawn;

impl Spawn for TokioSpawn {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }
}

/// A future whose type is erased.
pub type Task<'a, T = ()> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A host whose type is erased.
#[derive(Clone)]
pub struct Spawner(Arc<dyn Fn(Task<'static>) + Send + Sync>);

impl Spawner {
    /// Creates a spawner that starts its tasks on `host`.
    pub fn new(host: impl Spawn + Send + Sync + 'static) -> Self {
        Self(Arc::new(move |task| host.spawn(task)))
    }
}

impl Spawn for Spawner {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        (self.0)(Box::pin(task));
    }
}

impl std::fmt::Debug for Spawner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Spawner")
    }
}
