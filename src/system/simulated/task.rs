use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    runtime::Handle,
    task::{JoinError, JoinHandle},
};

use crate::system::simulation::{Task, world};

/// A future that belongs to a host.
struct OnHost<F> {
    task: Box<dyn Task>,
    /// `None` only while the future is being dropped.
    future: Option<Pin<Box<F>>>,
}

impl<F: Future> Future for OnHost<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let Self { task, future } = &mut *self;
        let mut result = Poll::Pending;
        task.poll(cx, &mut |cx| {
            if let Some(future) = future {
                result = future.as_mut().poll(cx);
            }
        });
        result
    }
}

impl<F> Drop for OnHost<F> {
    fn drop(&mut self) {
        let Self { task, future } = self;
        task.release(&mut || *future = None);
    }
}

/// Wraps a future for the current host, and passes it to `start`, which spawns it.
fn start<F: Future, H>(
    future: F,
    start: impl FnOnce(OnHost<F>) -> H,
    abort: impl FnOnce(&H) -> tokio::task::AbortHandle,
) -> H {
    let world = world();
    let task = world.task();
    let id = task.id();
    let handle = start(OnHost { task, future: Some(Box::pin(future)) });
    world.spawned(id, abort(&handle));
    handle
}

/// Spawns a task of the current host.
pub(crate) fn spawn<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    start(future, tokio::spawn, JoinHandle::abort_handle)
}

/// Spawns a task of the current host on a runtime.
pub(crate) fn spawn_on<F>(runtime: &Handle, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    start(future, |future| runtime.spawn(future), JoinHandle::abort_handle)
}

/// Runs a function that would block in a task of the current host.
pub(crate) fn spawn_blocking<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
    spawn(async move { run() })
}

/// A set of tasks of the current host.
#[derive(Debug)]
pub(crate) struct JoinSet<T>(tokio::task::JoinSet<T>);

impl<T> Default for JoinSet<T> {
    fn default() -> Self {
        Self(tokio::task::JoinSet::new())
    }
}

impl<T: Send + 'static> JoinSet<T> {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Spawns a task, which is aborted when the set is dropped.
    pub(crate) fn spawn(&mut self, future: impl Future<Output = T> + Send + 'static) {
        start(future, |future| self.0.spawn(future), Clone::clone);
    }

    /// Waits for the next task that ends. Returns `None` if the set is empty.
    pub(crate) async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        self.0.join_next().await
    }

    /// Returns the result of a task that has ended.
    pub(crate) fn try_join_next(&mut self) -> Option<Result<T, JoinError>> {
        self.0.try_join_next()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
