//! One Pod: its idle connections, limits and counters, and the code that checks connections out and in.
//!
//! A [`Pod`] keeps its idle connections ([`conn`]) in its own deadpool. [`connect`] opens connections in background
//! tasks. [`client`] is the guard that a caller holds. [`recycle`] and [`reset`] prepare a returned connection for
//! reuse. Callers that find no idle connection wait in the pool-wide [`wait_queue`]; [`alarms`] end the wait at the
//! deadline. The [`prober`] and the [`test_dials`] of a Pod that is absent from DNS send their results as [`message`]s
//! to the directory, the task that maintains the set of Pods. The directory publishes the Pods and their health as a
//! [`view`]. [`shared`] holds the state that all Pods of one pool have in common.
//!
//! Several pools can share the health of their Pods: [`group`] holds the state that they have in common, and [`server`]
//! that of one Pod. [`session_check`] finds out whether a Pod accepts the sessions of one of these pools.
//!
//! # Orderings
//!
//! `open` counts permits. `fetch_update` keeps it at or below `size`, and a permit is released only after its
//! connection has been closed. Accesses are relaxed: after a stale value, the opener's next plan serves the caller.
//!
//! Only the directory increments `generation`, and each increment invalidates every open connection. A caller that
//! reads a stale value may still use an invalid connection, but that connection is closed when it is returned.

pub(crate) mod alarms;
pub(crate) mod borrowed;
pub(crate) mod client;
pub(crate) mod clock;
pub(crate) mod conn;
pub(crate) mod connect;
pub(crate) mod connection_limit;
mod connection_probe;
pub(crate) mod counters;
pub(crate) mod deposit;
pub(crate) mod fleet;
pub(crate) mod group;
mod interrupt;
pub(crate) mod jitter;
pub(crate) mod lag_demand;
pub(crate) mod lag_gauge;
pub(crate) mod last_failure;
mod login_history;
pub(crate) mod message;
#[cfg(feature = "_metrics")]
pub(crate) mod metrics;
#[cfg(not(feature = "_metrics"))]
#[path = "metrics_noop.rs"]
pub(crate) mod metrics;
mod named_as;
pub(crate) mod open_connections;
pub(crate) mod pending_pings;
pub(crate) mod prober;
pub(crate) mod recycle;
pub(crate) mod requirement;
pub(crate) mod reset;
pub(crate) mod resolved;
pub(crate) mod server;
pub(crate) mod session_check;
pub(crate) mod setup;
pub(crate) mod shared;
pub(crate) mod test_dials;
pub(crate) mod urgent_probing;
pub(crate) mod view;
pub(crate) mod wait_queue;
pub(crate) mod waiting_spans;

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
};

use deadpool::unmanaged;

use self::{
    borrowed::BorrowedSince,
    client::Client,
    conn::Conn,
    last_failure::LastFailure,
    login_history::LoginHistory,
    metrics::UseTimes,
    open_connections::OpenConnections,
    pending_pings::PendingPings,
    server::Server,
    session_check::Access,
    shared::{Shared, count},
};
use crate::{
    endpoint::{
        Endpoint,
        slot::{Flags, SlotHandle},
    },
    pool::pipeline::SharedConnections,
    sync::{Mutex, lock},
    time::Instant,
    trace::pod_line,
};

/// One Pod, as one pool sees it.
#[derive(Debug)]
pub(crate) struct Pod {
    /// The state that all pools of a group share.
    pub(crate) server: Arc<Server>,
    /// A number that is unique within the group and never reused.
    pub(crate) serial: u64,
    pub(crate) endpoint: Endpoint,
    pub(crate) slot: SlotHandle,
    idle: unmanaged::Pool<Box<Conn>>,
    /// The idle connection that the prober uses.
    borrowed: BorrowedSince,
    /// Number of permits taken, one for each connection that is open or being opened.
    open: AtomicUsize,
    /// The maximum of `open`.
    size: AtomicUsize,
    /// Start times of the connections being opened.
    openings: Mutex<Vec<Instant>>,
    /// True if a checkout has chosen this Pod and found no idle connection since the opener's last plan.
    missed: AtomicBool,
    pub(crate) pending_pings: PendingPings,
    generation: AtomicU64,
    pub(crate) last_failure: Mutex<LastFailure>,
    logins: LoginHistory,
    pub(crate) access: Access,
    pub(crate) connections: OpenConnections,
    pub(crate) shared_connections: SharedConnections,
    /// Use times of this Pod's connections since the last export of metrics.
    pub(crate) use_times: UseTimes,
    shared: Arc<Shared>,
}

impl Pod {
    /// Creates the part of one pool. `generation` is that of the other pools' parts.
    pub(crate) fn new(server: &Arc<Server>, slot: SlotHandle, generation: u64, shared: Arc<Shared>) -> Arc<Self> {
        let pod = Arc::new(Self {
            server: server.clone(),
            serial: server.serial,
            endpoint: server.endpoint.clone(),
            slot,
            idle: unmanaged::Pool::new(shared.limits.pool_size),
            borrowed: BorrowedSince::default(),
            open: AtomicUsize::new(0),
            size: AtomicUsize::new(shared.limits.pool_size),
            openings: Mutex::default(),
            missed: AtomicBool::new(false),
            pending_pings: PendingPings::default(),
            generation: AtomicU64::new(generation),
            last_failure: Mutex::default(),
            logins: LoginHistory::default(),
            access: Access::default(),
            connections: OpenConnections::default(),
            shared_connections: SharedConnections::default(),
            use_times: UseTimes::new(shared.limits.pool_size),
            shared,
        });
        server.add(&pod);
        pod
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    // === checkout and check-in ===

    /// Checks out an idle connection. Closes idle connections that can no longer be used.
    #[inline]
    pub(crate) fn try_take(&self) -> Option<Client> {
        loop {
            // The most recently used connection, because its server process has warm caches. Unneeded connections stay
            // idle and reach `idle_timeout`.
            let object = self.idle.try_get().ok()?;
            if object.is_current() {
                self.slot.checkout();
                return Some(Client::new(object));
            }
            self.discard(object);
        }
    }

    /// Checks in a clean connection: hands it to the oldest matching waiter, or adds it to the idle connections.
    #[inline]
    pub(crate) fn check_in(mut object: unmanaged::Object<Box<Conn>>) {
        let pod = object.pod().clone();
        let waiting = pod.shared.waiters.waiting();
        if waiting != 0 && requirement::serves(&pod.slot, waiting) {
            // The waiter gets the connection directly, so that no new caller can take it first.
            match pod.shared.waiters.hand_over(&pod.slot, Client::new(object)) {
                None => return pod.slot.handed_over(),
                Some(client) => object = client.into_object(),
            }
        }
        drop(object); // adds it to the idle connections
        let flags = pod.slot.checkin();
        pod.on_check_in(flags);
    }

    /// Closes a connection that is checked out.
    pub(crate) fn close_checked_out(object: unmanaged::Object<Box<Conn>>) {
        let pod = object.pod().clone();
        pod.discard(object);
        let flags = pod.slot.checkin();
        pod.on_check_in(flags);
    }

    /// Adds a connection that is not checked out to the idle ones: a new connection, or one that `reap` has kept.
    pub(crate) fn park(self: &Arc<Self>, conn: Box<Conn>) {
        // Never fails: the deadpool has a place for every permit, each connection has one, and it is never closed.
        if let Err((conn, error)) = self.idle.try_add(conn) {
            pod_line!(error, self, %error, "connection closed: the idle pool has no place for it");
            drop(conn);
        }
        self.on_check_in(self.slot.flags());
    }

    fn discard(&self, object: unmanaged::Object<Box<Conn>>) {
        count(&self.shared.counters.discarded);
        drop(unmanaged::Object::take(object));
    }

    /// Runs after a connection became idle or was closed: closes idle ones of a drained Pod, else serves the waiters.
    #[inline]
    fn on_check_in(&self, flags: Flags) {
        if flags.any() {
            self.act_on(flags);
        }
    }

    #[cold]
    fn act_on(&self, flags: Flags) {
        if flags.closed() {
            self.close_idle();
        } else if flags.has_waiters() {
            self.shared.waiters.serve(&self.slot, || self.try_take());
        }
    }

    // === closing ===

    /// Drains the Pod: closes idle connections now, and all others as soon as they are opened or returned.
    pub(crate) fn close(&self) {
        self.slot.close();
        self.connections.drain_owned();
        self.close_idle();
    }

    /// Invalidates the connections that are open now: closes idle and owned ones immediately, others on return.
    pub(crate) fn purge(&self) {
        // Release pairs with the acquire in `generation()`.
        self.generation.fetch_add(1, Ordering::Release);
        self.connections.abort_owned();
        self.close_idle();
    }

    fn close_idle(&self) {
        while let Ok(conn) = self.idle.try_remove() {
            drop(conn);
        }
    }

    // === counts ===

    /// Returns the generation of a connection whose dial starts now.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        // Acquire pairs with `purge`.
        self.generation.load(Ordering::Acquire)
    }

    /// Takes a permit to open a connection. Returns false if the Pod or the pool is at its maximum.
    // Relaxed: see the module documentation.
    pub(crate) fn take_permit(&self) -> bool {
        let size = self.size();
        let more = |open| (open < size).then_some(open + 1);
        if self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            return false;
        }
        let taken = self.shared.connection_limit.try_acquire();
        if !taken {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        taken
    }

    /// Returns the maximum number of connections: the lower of `pool_size` and the Pod's share of `max_connections`.
    pub(crate) fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    /// Sets the maximum number of connections. Surplus connections are closed by the next `reap` or on return.
    pub(crate) fn set_size(&self, size: usize) {
        self.size.store(size, Ordering::Relaxed);
    }

    /// Returns true if the Pod has more connections than its maximum, which can happen only with `max_connections`.
    #[inline]
    pub(crate) fn is_over_size(&self) -> bool {
        self.shared.limits.max_connections.is_some() && self.open.load(Ordering::Relaxed) > self.size()
    }

    pub(crate) fn release_permit(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.shared.group.connection_closed.notify_waiters();
        self.shared.connection_limit.release();
        self.shared.waiters.wake_opener();
    }

    /// Returns the number of free permits of this Pod. The pool's limit may allow fewer.
    pub(crate) fn permits(&self) -> usize {
        self.size().saturating_sub(self.open.load(Ordering::Relaxed))
    }

    /// Returns the number of open connections, excluding those being opened.
    pub(crate) fn open(&self) -> usize {
        let open = self.open.load(Ordering::Relaxed);
        open.saturating_sub(self.opening())
    }

    /// Returns the number of connections being opened.
    pub(crate) fn opening(&self) -> usize {
        lock(&self.openings).len()
    }

    /// Returns the start times of the connections being opened.
    pub(crate) fn openings(&self) -> Vec<Instant> {
        lock(&self.openings).clone()
    }

    pub(crate) fn begin_opening(&self, start: Instant) {
        lock(&self.openings).push(start);
    }

    pub(crate) fn end_opening(&self, start: Instant) {
        let mut openings = lock(&self.openings);
        if let Some(position) = openings.iter().position(|other| *other == start) {
            openings.swap_remove(position);
        }
    }

    /// Records that a checkout found no idle connection to this Pod. The opener then opens one if a permit is free.
    #[cold]
    pub(crate) fn miss(&self) {
        // Relaxed: the opener's `Notify` makes the flag visible to the opener.
        if self.permits() > 0
            // The prober has just returned an idle connection, or will return it soon.
            && self.borrowed_since().is_none()
            && !self.has_idle()
            && self.opening() < self.shared.limits.handshakes_per_pod
            && !self.missed.swap(true, Ordering::Relaxed)
        {
            self.shared.waiters.wake_opener();
        }
    }

    /// Returns true if a checkout has [missed](Self::miss) this Pod since the last call.
    pub(crate) fn take_missed(&self) -> bool {
        self.missed.load(Ordering::Relaxed) && self.missed.swap(false, Ordering::Relaxed)
    }

    /// Returns true if no connection is open or being opened.
    pub(crate) fn has_no_connections(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }

    /// Returns true if a ping to this Pod is overdue. Callers then prefer other Pods.
    #[inline]
    pub(crate) fn has_pending_ping(&self) -> bool {
        self.pending_pings.is_any()
    }

    /// Counts one overdue ping less, after the ping's response or timeout.
    pub(crate) fn end_pending_ping(&self) {
        self.pending_pings.end();
        // Callers may be waiting although this Pod has idle connections, because they avoid Pods with overdue pings.
        self.on_check_in(self.slot.flags());
    }

    /// Returns true if the Pod has an idle connection. Never misses a connection that became idle before a change of
    /// the slot's word that the caller has read: deadpool increments its count before a connection can be taken.
    pub(crate) fn has_idle(&self) -> bool {
        self.idle.status().available > 0
    }

    // === upkeep ===

    /// Closes the idle connections for which `keep` returns false. `keep` is called for each and must not block.
    pub(crate) fn reap(self: &Arc<Self>, mut keep: impl FnMut(&Conn) -> bool) {
        let mut kept = Vec::new();
        while let Ok(conn) = self.idle.try_remove() {
            if keep(&conn) {
                kept.push(conn);
            }
        }
        // `try_remove` returned the newest connection first, so adding them back in reverse restores the order.
        for conn in kept.into_iter().rev() {
            self.park(conn);
        }
    }
}
