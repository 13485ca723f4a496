//! The servers that share a database: their registry, network, clock and history.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use tokio::time::Instant;

use super::{history::History, links::Links, server::Server};

/// Records an event of a host in the trace.
pub type Observer = dyn Fn(&str, &str) + Send + Sync;

/// Wall-clock time at the beginning of the simulation, in microseconds since 1970: 2026-01-01 00:00:00 UTC.
const EPOCH: i64 = 1_767_225_600_000_000;

/// A database cluster: servers with one system identifier.
pub struct Cluster {
    pub(super) system: u64,
    pub(super) links: Arc<dyn Links>,
    pub(super) history: History,
    begin: Instant,
    observer: Box<Observer>,
    /// The servers by name. Weak, because each server refers to the cluster.
    servers: Mutex<BTreeMap<String, Weak<Server>>>,
}

impl Cluster {
    /// Creates a cluster without servers. Events go to `observer`.
    pub fn new(system: u64, links: Arc<dyn Links>, observer: impl Fn(&str, &str) + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            system,
            links,
            history: History::default(),
            begin: Instant::now(),
            observer: Box::new(observer),
            servers: Mutex::default(),
        })
    }

    /// Returns the commits and reads of the cluster.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Returns the network between the servers.
    #[must_use]
    pub fn links(&self) -> &Arc<dyn Links> {
        &self.links
    }

    /// Returns the server of this name.
    #[must_use]
    pub fn server(&self, name: &str) -> Option<Arc<Server>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).get(name)?.upgrade()
    }

    pub(super) fn register(&self, server: &Arc<Server>) {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.insert(server.name().to_owned(), Arc::downgrade(server));
    }

    /// Records an event of a host in the trace.
    pub fn event(&self, host: &str, text: impl AsRef<str>) {
        (self.observer)(host, text.as_ref());
    }

    /// Returns the wall-clock time without skew, in microseconds since 1970.
    pub(super) fn wall_clock(&self) -> i64 {
        EPOCH + i64::try_from(self.begin.elapsed().as_micros()).unwrap_or(i64::MAX - EPOCH)
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("system", &self.system).finish_non_exhaustive()
    }
}
