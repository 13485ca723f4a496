//! The state that is shared by the handles and the tasks of one pool.

use std::sync::Arc;

use tokio::task::AbortHandle;

#[cfg(feature = "otel")]
use super::pod::metrics::{Observable, Observed};
use super::{
    directory::CloseRequests,
    pipeline::{Place, Queue},
    pod::{metrics::Collector, shared::Shared, view::View},
};
use crate::{
    balance::Chooser,
    config::Config,
    endpoint::publish::Published,
    sync::{Mutex, lock},
};

/// The state of one pool.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) shared: Arc<Shared>,
    pub(crate) chooser: Chooser,
    pub(crate) published: Published<View>,
    /// The statements that wait for a shared connection.
    pub(crate) queue: Queue<Place>,
    /// True once the pool has ended. No further views are published.
    ended: Mutex<bool>,
    collector: Mutex<Collector>,
    /// The callers that wait until the pool is closed.
    pub(crate) close_requests: CloseRequests,
    /// The task that closes the pool.
    closing: Mutex<Option<AbortHandle>>,
}

impl Inner {
    pub(crate) fn new(config: Config, shared: Arc<Shared>, chooser: Chooser, view: View) -> Self {
        let (published, queue) = (Published::new(view), Queue::default());
        let (ended, collector) = (Mutex::new(false), Mutex::default());
        let (close_requests, closing) = (CloseRequests::new(), Mutex::default());
        Self { config, shared, chooser, published, queue, ended, collector, close_requests, closing }
    }

    /// Stores the task that closes the pool.
    pub(crate) fn set_closing(&self, task: AbortHandle) {
        *lock(&self.closing) = Some(task);
    }

    /// Publishes a view of the Pods, and hands idle connections to waiters that the Pods of this view can serve.
    pub(crate) fn publish(&self, view: View) {
        let view = Arc::new(view);
        {
            let ended = lock(&self.ended);
            if *ended {
                return;
            }
            self.published.publish(view.clone());
        }
        view.review_all_owned();
        self.serve_waiters(&view);
        self.shared.waiters.wake_opener();
        self.reevaluate_shared();
    }

    /// Ends the pool and publishes its last view. Closes idle connections immediately. Connections in use are closed
    /// when they are returned, and all waiters fail.
    pub(crate) fn end(&self, last: View) {
        self.export(); // registers Pods that were not exported yet, so that the export below includes them
        {
            let mut ended = lock(&self.ended);
            *ended = true;
            for (_, pod) in self.published.load().snapshot.pods() {
                pod.close();
            }
            self.published.publish(Arc::new(last));
        }
        self.shared.waiters.close();
        self.reevaluate_shared();
        self.export();
    }

    /// Releases the views that threads have cached, and the dialer. Called when the last handle is dropped.
    pub(crate) fn release(&self) {
        lock(&self.closing).take().inspect(AbortHandle::abort);
        self.published.retire();
        self.shared.dialer.clear();
    }

    /// Exports the pool's metrics.
    pub(crate) fn export(&self) {
        let metrics = &self.shared.metrics;
        let used = {
            // The view is loaded under the lock, so that of two concurrent exports, the last one cannot export an older
            // view.
            let mut collector = lock(&self.collector);
            metrics.export(&mut collector, &self.shared, &self.published.load())
        };
        metrics.used(&used);
    }
}

#[cfg(feature = "otel")]
impl Observable for Inner {
    fn observe(&self, observed: &mut Observed) {
        let mut collector = lock(&self.collector);
        let view = self.published.load();
        observed.of_pool(self.shared.name());
        collector.update(&self.shared, &view);
        collector.pass(&self.shared, &view, observed);
    }
}
