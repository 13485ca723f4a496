//! The state that is held only by the handles of a pool. Dropping the last handle ends the pool.

use std::sync::Arc;

use tokio::task::AbortHandle;

use super::{
    directory::Change,
    group::GroupHandle,
    inner::Inner,
    name::Name,
    pod::{metrics, view::View},
};

/// The owner of a pool, shared by its handles. The pool's tasks hold [`Inner`] but never the owner, so they do not keep
/// the pool alive.
#[derive(Debug)]
pub(crate) struct Owner {
    /// Dropped first: a provider that ends then reports the final counts.
    _metrics: metrics::Options,
    pub(crate) inner: Arc<Inner>,
    pub(crate) group: Arc<GroupHandle>,
    tasks: Tasks,
    /// Dropped with the last handle, which allows another pool to have the name.
    _name: Name,
}

/// Abort handles for the pool's tasks.
#[derive(Debug)]
pub(crate) struct Tasks {
    pub(crate) alarms: AbortHandle,
    pub(crate) opener: AbortHandle,
    pub(crate) upkeep: AbortHandle,
}

impl Owner {
    pub(crate) fn new(
        inner: Arc<Inner>,
        group: Arc<GroupHandle>,
        tasks: Tasks,
        name: Name,
        metrics: metrics::Options,
    ) -> Self {
        Self { inner, group, tasks, _name: name, _metrics: metrics }
    }

    /// Sends a close request to the directory task. Returns the number of connections that were closed forcibly, or 0
    /// if the pool is already closed or its runtime has ended.
    pub(crate) async fn close(&self) -> usize {
        // The alarms task keeps running because callers may still wait for alarms.
        let Tasks { alarms: _, opener, upkeep } = &self.tasks;
        [opener, upkeep].into_iter().for_each(AbortHandle::abort);
        let response = self.inner.close_requests.add(); // if the directory has ended, the response fails
        self.group.change(Change::Close(self.inner.shared.id));
        response.await.unwrap_or(0)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        let Tasks { alarms, opener, upkeep } = &self.tasks;
        [alarms, opener, upkeep].into_iter().for_each(AbortHandle::abort);
        let view = self.inner.published.load();
        self.inner.end(View { closed: true, ..View::empty() });
        view.pods().for_each(|(pod, _)| pod.connections.clear());
        let shared = &self.inner.shared;
        shared.events.close();
        shared.group.events.remove(&shared.events);
        self.inner.release();
        self.inner.forget();
        // Last: the directory may drop its own reference to the pool's state.
        self.group.change(Change::Dropped(shared.id));
    }
}
