//! The state that the handles and the tasks of one pool share.

use std::sync::Arc;

use super::pod::{metrics::Exporter, shared::Shared, view::View};
use crate::{
    balance::Chooser,
    config::Config,
    discovery::Resolve,
    endpoint::publish::Published,
    sync::{Mutex, lock},
};

/// The state of one pool.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) shared: Arc<Shared>,
    pub(crate) chooser: Chooser,
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) published: Published<View>,
    /// True once the pool has ended. No view is published after the last one.
    ended: Mutex<bool>,
    exporter: Mutex<Exporter>,
}

impl Inner {
    pub(crate) fn new(
        config: Config,
        shared: Arc<Shared>,
        chooser: Chooser,
        resolver: Arc<dyn Resolve>,
        view: View,
    ) -> Self {
        let (published, ended, exporter) = (Published::new(view), Mutex::new(false), Mutex::default());
        Self { config, shared, chooser, resolver, published, ended, exporter }
    }

    /// Publishes a view, and makes all waiters re-evaluate their candidates.
    pub(crate) fn publish(&self, view: View) {
        {
            let ended = lock(&self.ended);
            if *ended {
                return;
            }
            self.published.publish(Arc::new(view));
        }
        self.shared.waiters.recheck_all();
    }

    /// Ends the pool with a last view: closes idle connections now and checked-out ones when they are returned. All
    /// waiters fail.
    pub(crate) fn end(&self, last: View) {
        self.export(); // registers Pods that no export has seen yet, so that the export below includes them
        {
            let mut ended = lock(&self.ended);
            *ended = true;
            for (_, pod) in self.published.load().snapshot.pods() {
                pod.close();
            }
            self.published.publish(Arc::new(last));
        }
        self.shared.waiters.recheck_all();
        self.export();
    }

    /// Exports the pool's metrics.
    pub(crate) fn export(&self) {
        // The view is read under the lock, so that a later export never uses an older view.
        let mut exporter = lock(&self.exporter);
        exporter.export(&self.shared, &self.published.load());
    }
}
