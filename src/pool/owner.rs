//! The state that is held only by the handles of a pool. Dropping the last handle ends the pool.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

use super::{directory::CloseRequest, inner::Inner, pod::view::View};

/// The owner of a pool, shared by its handles. The pool's tasks hold [`Inner`] but never the owner, so they do not keep
/// the pool alive.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) inner: Arc<Inner>,
    tasks: Tasks,
    close: mpsc::UnboundedSender<CloseRequest>,
}

/// Abort handles for the pool's tasks.
#[derive(Debug)]
pub(crate) struct Tasks {
    pub(crate) alarms: AbortHandle,
    pub(crate) directory: AbortHandle,
    pub(crate) opener: AbortHandle,
    /// One for each configured host.
    pub(crate) refreshers: Vec<AbortHandle>,
    pub(crate) upkeep: AbortHandle,
}

impl Owner {
    pub(crate) fn new(inner: Arc<Inner>, tasks: Tasks, close: mpsc::UnboundedSender<CloseRequest>) -> Self {
        Self { inner, tasks, close }
    }

    /// Sends a close request to the directory task. Returns the number of connections that were closed forcibly, or 0
    /// if the pool is already closed or its runtime has ended.
    pub(crate) async fn close(&self) -> usize {
        // The directory task keeps running to drain the Pods. The alarms task keeps running because callers may still
        // wait for alarms.
        let Tasks { alarms: _, directory: _, opener, refreshers, upkeep } = &self.tasks;
        [opener, upkeep].into_iter().chain(refreshers).for_each(AbortHandle::abort);
        let (request, response) = oneshot::channel();
        drop(self.close.send(request)); // if the directory has ended, the response below fails
        response.await.unwrap_or(0)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let Tasks { alarms, directory, opener, refreshers, upkeep } = &self.tasks;
        [alarms, directory, opener, upkeep].into_iter().chain(refreshers).for_each(AbortHandle::abort);
        let view = self.inner.published.load();
        self.inner.end(View { closed: true, ..View::empty() });
        view.pods().for_each(|(pod, _)| pod.connections.clear());
        self.inner.release();
        self.inner.forget();
    }
}
