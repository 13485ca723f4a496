use std::future::Future;

use tokio::{runtime::Handle, task::JoinHandle};

/// Spawns a task on a runtime.
#[inline]
pub(crate) fn spawn_on<F>(runtime: &Handle, future: F) -> JoinHandle<F::Output>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    runtime.spawn(future)
}
