//! A place for one statement on a shared connection, and the shared connections of one Pod.

use std::sync::Arc;

use super::connection::{Reserved, SharedConnection};
use crate::{
    config::Limits,
    pool::{inner::Inner, pod::Pod},
    sync::{Mutex, lock},
    time::{Duration, Instant},
};

/// The shared connections of one Pod.
#[derive(Debug, Default)]
pub(crate) struct SharedConnections(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    connections: Vec<Arc<SharedConnection>>,
    /// Number of connections that are being opened.
    opening: usize,
}

impl State {
    /// Returns the number of connections that serve or are being opened.
    fn counted(&self) -> usize {
        self.connections.iter().filter(|connection| connection.counts()).count() + self.opening
    }

    /// Returns true if there are fewer connections than wanted, or if all are full and the server answers so fast that
    /// the round trip limits the rate. At most half of `pool_size` is used for this, since others call `get`.
    fn needs_another(&self, limits: &Limits, now: Instant) -> bool {
        let counted = self.counted();
        let mut others = self.connections.iter().filter(|connection| connection.counts());
        counted < limits.shared_connections
            || counted < limits.pool_size / 2 && self.opening == 0 && others.all(|other| other.limits_server(now))
    }
}

impl SharedConnections {
    /// Takes a place on the connection with the fewest statements in flight, of those that `fits` accepts. Uses more
    /// than `wanted` connections only if those are full, so that the others become unused and are closed.
    pub(super) fn reserve(
        &self,
        wanted: usize,
        now: Instant,
        fits: impl Fn(&SharedConnection) -> bool,
    ) -> Option<(Arc<SharedConnection>, Reserved)> {
        let state = lock(&self.0);
        // The usual case, with fewer locks.
        if let [only] = &*state.connections
            && fits(only)
        {
            return Some((only.clone(), only.reserve(now)?));
        }
        let mut serving = state.connections.iter().filter(|connection| {
            let serves = connection.is_serving(now);
            let fits = fits(connection);
            if serves && !fits {
                connection.set_misfit();
            }
            serves && fits
        });
        let least = |connections: &mut dyn Iterator<Item = &Arc<SharedConnection>>| {
            let best = connections.min_by_key(|connection| connection.in_flight())?;
            Some((best.clone(), best.reserve(now)?))
        };
        least(&mut serving.by_ref().take(wanted)).or_else(|| least(&mut serving))
    }

    /// Returns true if the Pod needs another connection.
    pub(super) fn needs_another(&self, limits: &Limits, now: Instant) -> bool {
        lock(&self.0).needs_another(limits, now)
    }

    /// Returns true if the Pod has a connection that serves, or one is being opened.
    pub(super) fn is_served(&self) -> bool {
        lock(&self.0).counted() > 0
    }

    /// Returns the shortest time of a statement on the connections.
    pub(super) fn round_trip(&self) -> Option<Duration> {
        lock(&self.0).connections.iter().filter_map(|connection| connection.round_trip()).min()
    }

    pub(super) fn add(&self, connection: Arc<SharedConnection>) {
        lock(&self.0).connections.push(connection);
    }

    pub(super) fn remove(&self, connection: &Arc<SharedConnection>) {
        lock(&self.0).connections.retain(|other| !Arc::ptr_eq(other, connection));
    }

    /// Decides whether a connection that is unused is superfluous, because more than `wanted` serve. If it is, calls
    /// `close` before another connection can be found superfluous.
    pub(super) fn close_superfluous(&self, wanted: usize, now: Instant, close: impl FnOnce()) {
        let state = lock(&self.0);
        if state.connections.iter().filter(|connection| connection.is_serving(now)).count() > wanted {
            close();
        }
    }

    /// Returns the number of connections, and that of the statements in flight on them.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = lock(&self.0);
        (state.connections.len(), state.connections.iter().map(|connection| connection.in_flight()).sum())
    }
}

/// A connection that is being opened. Counted until it is dropped.
#[derive(Debug)]
pub(super) struct Opening(Arc<Pod>);

impl Opening {
    /// Begins to open a connection if the Pod needs another one.
    pub(super) fn begin(pod: &Arc<Pod>) -> Option<Self> {
        let mut state = lock(&pod.shared_connections.0);
        if !state.needs_another(&pod.shared().limits, Instant::now()) {
            return None;
        }
        state.opening += 1;
        Some(Self(pod.clone()))
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        lock(&self.0.shared_connections.0).opening -= 1;
    }
}

/// A reserved place for one statement on a shared connection. Dropping it gives the place up, unless it was used.
pub(crate) struct Place {
    pub(super) pool: Arc<Inner>,
    pub(super) pod: Arc<Pod>,
    pub(super) connection: Arc<SharedConnection>,
    /// True if the connection was unused for so long that it must be pinged before the statement is sent.
    pub(super) needs_ping: bool,
    /// True once a statement was sent.
    pub(super) used: bool,
    /// True if the place counts as load of the Pod.
    counts: bool,
}

impl Place {
    /// Creates the place that was taken on a connection.
    pub(super) fn new(
        pool: Arc<Inner>,
        pod: Arc<Pod>,
        connection: Arc<SharedConnection>,
        Reserved { needs_ping }: Reserved,
    ) -> Self {
        let counts = pod.slot.begin_statement();
        Self { pool, pod, connection, needs_ping, used: false, counts }
    }

    /// Returns the place of one more statement that was sent on the connection, in addition to `shared_depth`. The
    /// first one of a batch counts for all.
    pub(super) fn of_another(&self) -> Self {
        let Self { pool, pod, connection, .. } = self;
        let (pool, pod, connection) = (pool.clone(), pod.clone(), connection.clone());
        Self { pool, pod, connection, needs_ping: false, used: true, counts: false }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.counts {
            self.pod.slot.end_statement();
        }
        if !self.used {
            self.connection.release();
            self.pool.serve_shared();
        }
    }
}

impl std::fmt::Debug for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Place").field("pod", &self.pod.endpoint).field("used", &self.used).finish_non_exhaustive()
    }
}
