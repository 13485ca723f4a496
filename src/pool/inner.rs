//! The state that is shared by the handles and the tasks of one pool.

use std::sync::Arc;

use super::pod::{metrics::Exporter, shared::Shared, view::View};
use crate::{
    balance::Chooser,
    config::Config,
    discovery::Resolve,
    endpoint::publish::Published,
    sync::{Mutex, lock},
    unwind::{PanicSource, catch},
};

/// The state of one pool.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) shared: Arc<Shared>,
    pub(crate) chooser: Chooser,
    /// One for each configured host.
    resolvers: Arc<[Arc<dyn Resolve>]>,
    pub(crate) published: Published<View>,
    /// True once the pool has ended. No further views are published.
    ended: Mutex<bool>,
    exporter: Mutex<Exporter>,
}

impl Inner {
    pub(crate) fn new(
        config: Config,
        shared: Arc<Shared>,
        chooser: Chooser,
        resolvers: Arc<[Arc<dyn Resolve>]>,
        view: View,
    ) -> Self {
        let (published, ended, exporter) = (Published::new(view), Mutex::new(false), Mutex::default());
        Self { config, shared, chooser, resolvers, published, ended, exporter }
    }

    /// Returns the number of configured hosts, each of which has its own lookups.
    pub(crate) fn hosts(&self) -> usize {
        self.resolvers.len()
    }

    /// Returns a description of the sources of the Pods.
    pub(crate) fn source(&self) -> String {
        let sources: Vec<_> = self.resolvers.iter().map(|resolver| resolver.source()).collect();
        sources.join("; ")
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
        self.export();
    }

    /// Releases the views that threads have cached, and the dialer. Called when the last handle is dropped.
    pub(crate) fn release(&self) {
        self.published.retire();
        self.shared.dialer.clear();
    }

    /// Exports the pool's metrics.
    pub(crate) fn export(&self) {
        // The view is loaded under the lock, so that of two concurrent exports, the last one cannot export an older
        // view.
        let mut exporter = lock(&self.exporter);
        let exported = catch(|| exporter.export(&self.shared, &self.published.load()));
        if let Err(panic) = exported {
            self.shared.events.panicked(PanicSource::MetricsRecorder, &panic);
        }
    }
}
