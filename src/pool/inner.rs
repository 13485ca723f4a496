//! What the handles of one pool, and its tasks, hold together.

use std::sync::Arc;

use super::pod::{metrics::Exporter, shared::Shared, view::View};
use crate::{
    balance::Chooser,
    config::Config,
    discovery::Resolve,
    endpoint::publish::Published,
    sync::{Mutex, lock},
};

/// The pool behind its handles.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) shared: Arc<Shared>,
    pub(crate) chooser: Chooser,
    pub(crate) resolver: Arc<dyn Resolve>,
    pub(crate) published: Published<View>,
    /// Whether the pool has ended; nothing is published after that.
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

    /// Publishes a view, and wakes whoever may find a Pod in it.
    pub(crate) fn publish(&self, view: View) {
        {
            let ended = lock(&self.ended);
            if *ended {
                return;
            }
            self.published.publish(Arc::new(view));
        }
        self.shared.waiters.look_again();
    }

    /// Ends the pool: what is idle is closed now, what is borrowed when it comes back, and whoever waits hears of it.
    pub(crate) fn end(&self, last: View) {
        self.export(); // a Pod that it has not met yet would never be told of
        {
            let mut ended = lock(&self.ended);
            *ended = true;
            for (_, pod) in self.published.load().snapshot.pods() {
                pod.close();
            }
            self.published.publish(Arc::new(last));
        }
        self.shared.waiters.look_again();
        self.export();
    }

    /// Gives the pool's numbers to the recorder of metrics.
    pub(crate) fn export(&self) {
        // The view is read under the lock: no later export gives an earlier one.
        let mut exporter = lock(&self.exporter);
        exporter.export(&self.shared, &self.published.load());
    }
}
