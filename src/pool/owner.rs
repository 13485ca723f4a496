//! The owner of a pool, shared by its handles.

use std::sync::Arc;

use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

use super::{directory::CloseRequest, inner::Inner, pod::view::View};

/// The state that the handles of a pool share. Tasks hold the [`Inner`] but never the owner, so that the pool ends with
/// its last handle.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) inner: Arc<Inner>,
    /// The pool's tasks. The directory is the first.
    tasks: Vec<AbortHandle>,
    close: mpsc::UnboundedSender<CloseRequest>,
}

impl Owner {
    pub(crate) fn new(inner: Arc<Inner>, tasks: Vec<AbortHandle>, close: mpsc::UnboundedSender<CloseRequest>) -> Self {
        Self { inner, tasks, close }
    }

    /// Requests the directory to close the pool, and waits for it. Returns the number of forcibly closed connections,
    /// or 0 if the pool was already closed or its runtime has ended.
    pub(crate) async fn close(&self) -> usize {
        // Lookups and upkeep end now. The directory, which is the first task, closes the pool.
        self.tasks.iter().skip(1).for_each(AbortHandle::abort);
        let (request, reply) = oneshot::channel();
        drop(self.close.send(request)); // without a directory, the reply fails
        reply.await.unwrap_or(0)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.inner.end(View { closed: true, ..View::empty() });
        self.inner.forget();
    }
}
