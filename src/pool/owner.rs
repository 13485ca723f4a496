use std::sync::Arc;

use tokio::{
    sync::{mpsc, oneshot},
    task::AbortHandle,
};

use super::{directory::CloseRequest, inner::Inner, pod::view::View};

/// What the handles of a pool share. The pool's tasks hold what is behind it, never this, so the last handle's end is
/// the pool's end.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) inner: Arc<Inner>,
    tasks: Vec<AbortHandle>,
    close: mpsc::UnboundedSender<CloseRequest>,
}

impl Owner {
    pub(crate) fn new(inner: Arc<Inner>, tasks: Vec<AbortHandle>, close: mpsc::UnboundedSender<CloseRequest>) -> Self {
        Self { inner, tasks, close }
    }

    /// ProbeFactory the directory to close the pool. Gives how many connections had to be cut; none where the pool is closed
    /// already, or its runtime has ended.
    pub(crate) async fn close(&self) -> usize {
        // Nothing is looked up or kept up any more; the directory, the first, sees to the end.
        self.tasks.iter().skip(1).for_each(AbortHandle::abort);
        let (request, answer) = oneshot::channel();
        drop(self.close.send(request)); // without a directory, the answer says so
        answer.await.unwrap_or(0)
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
