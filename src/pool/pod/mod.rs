//! One Pod: its idle connections, its limits and counts, and the check-out and check-in paths.
//!
//! A [`Pod`] keeps its idle connections ([`conn`]) in its own deadpool. [`connect`] opens connections in
//! background tasks. [`client`] is the guard that a caller holds. [`recycle`] and [`reset`] prepare a returned
//! connection for reuse. Callers that find no idle connection wait in the pool-wide [`wait_queue`]. The [`prober`]
//! sends its results to the directory as [`message`]s, and the directory publishes a [`view`] of all Pods. [`shared`]
//! holds the state that all Pods of one pool have in common.
//!
//! # Orderings
//!
//! `open` counts permits. Compare-and-exchange keeps it at or below `size`, and a permit is released after its
//! connection has been closed. `open` and `pending_pings` guard no other data, so they are relaxed: a stale value costs
//! a detour.
//!
//! Only the directory increments `generation`, which invalidates every open connection. A caller that checks out a
//! connection on a stale `generation` may use it; the connection is closed when it is returned.

pub(crate) mod client;
pub(crate) mod conn;
pub(crate) mod connect;
pub(crate) mod connection_limit;
pub(crate) mod counters;
pub(crate) mod last_failure;
pub(crate) mod message;
#[cfg(feature = "metrics")]
pub(crate) mod metrics;
#[cfg(not(feature = "metrics"))]
#[path = "metrics_noop.rs"]
pub(crate) mod metrics;
pub(crate) mod open_connections;
pub(crate) mod prober;
pub(crate) mod recycle;
pub(crate) mod reset;
pub(crate) mod resolved;
pub(crate) mod shared;
pub(crate) mod urgent_probing;
pub(crate) mod view;
pub(crate) mod wait_queue;

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use deadpool::unmanaged;
use tokio::sync::{Notify, Semaphore};

use self::{
    client::Client,
    conn::Conn,
    last_failure::LastFailure,
    metrics::UseTimes,
    open_connections::OpenConnections,
    shared::{Shared, count},
};
use crate::{
    endpoint::{
        Endpoint,
        slot::{Flags, SlotHandle},
    },
    sync::Mutex,
    time::Duration,
};

/// Age in milliseconds after which a dial counts as slow.
const SLOW_DIAL_MILLIS: u64 = 250;

/// One Pod.
#[derive(Debug)]
pub(crate) struct Pod {
    /// A number that is unique within the pool and never reused.
    pub(crate) serial: u64,
    pub(crate) endpoint: Endpoint,
    pub(crate) slot: SlotHandle,
    idle: unmanaged::Pool<Box<Conn>>,
    /// Permits taken: connections that are open or being opened.
    open: AtomicUsize,
    /// The maximum of `open`.
    size: AtomicUsize,
    /// Connections being opened.
    opening: AtomicUsize,
    /// The pool's clock at the start of the last dial, in milliseconds.
    last_dial: AtomicU64,
    /// The last passed probe: the number of passed probes in the upper 32 bits, the duration in microseconds in the
    /// lower.
    last_probe: AtomicU64,
    /// Pings without a response that background tasks wait for.
    pending_pings: AtomicUsize,
    /// Limits concurrent handshakes with this Pod.
    pub(crate) handshakes: Semaphore,
    generation: AtomicU64,
    pub(crate) last_failure: Mutex<LastFailure>,
    /// Makes the prober probe immediately.
    pub(crate) probe_wanted: Notify,
    pub(crate) connections: OpenConnections,
    /// Use times of this Pod's connections since the last export.
    pub(crate) use_times: UseTimes,
    shared: Arc<Shared>,
}

impl Pod {
    pub(crate) fn new(serial: u64, endpoint: Endpoint, slot: SlotHandle, shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            serial,
            endpoint,
            slot,
            idle: unmanaged::Pool::new(shared.limits.pool_size),
            open: AtomicUsize::new(0),
            size: AtomicUsize::new(shared.limits.pool_size),
            opening: AtomicUsize::new(0),
            last_dial: AtomicU64::new(0),
            last_probe: AtomicU64::new(0),
            pending_pings: AtomicUsize::new(0),
            handshakes: Semaphore::new(shared.limits.handshakes_per_pod),
            generation: AtomicU64::new(0),
            last_failure: Mutex::default(),
            probe_wanted: Notify::new(),
            connections: OpenConnections::default(),
            use_times: UseTimes::new(shared.limits.pool_size),
            shared,
        })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    // === check-out and check-in ===

    /// Checks out an idle connection. Closes idle connections that can no longer be used.
    #[inline]
    pub(crate) fn try_take(&self) -> Option<Client> {
        loop {
            // The most recently used one: its server process is warm, and the others can reach their idle timeout.
            let object = self.idle.try_get().ok()?;
            if object.is_current() {
                self.slot.checkout();
                return Some(Client::new(object));
            }
            self.discard(object);
        }
    }

    /// Returns a clean connection: to the first matching waiter, or else to the idle connections.
    pub(crate) fn check_in(mut object: unmanaged::Object<Box<Conn>>) {
        object.idle_since = object.pod().shared.clock.now();
        let pod = object.pod().clone();
        if !pod.shared.waiters.is_empty() {
            // Directly to the head of the queue, before a newcomer can take the connection.
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

    /// Adds a connection that is not checked out to the idle ones: a new connection, or one that `reap` keeps.
    pub(crate) fn park(self: &Arc<Self>, conn: Box<Conn>) {
        // Every connection holds a permit, and there are at most as many permits as places. Only a closed deadpool
        // refuses a connection, and this one is never closed.
        if let Err((conn, error)) = self.idle.try_add(conn) {
            tracing::error!(endpoint = %self.endpoint, %error, "connection closed: the idle pool has no place for it");
            drop(conn);
        }
        self.on_check_in(self.slot.flags());
    }

    fn discard(&self, object: unmanaged::Object<Box<Conn>>) {
        count(&self.shared.counters.discarded);
        drop(unmanaged::Object::take(object));
    }

    /// Acts on the slot's flags after a connection has become idle or has been closed.
    fn on_check_in(&self, flags: Flags) {
        if flags.closed() {
            self.close_idle();
        } else if flags.has_waiters() {
            self.shared.waiters.serve(&self.slot, || self.try_take());
        }
    }

    // === closing ===

    /// Closes idle connections now and checked-out ones when they are returned, from now on.
    pub(crate) fn close(&self) {
        self.slot.close();
        self.close_idle();
    }

    /// Closes the connections that are open now: idle ones immediately, checked-out ones when they are returned.
    pub(crate) fn purge(&self) {
        // Release pairs with the acquire in `generation`.
        self.generation.fetch_add(1, Ordering::Release);
        self.close_idle();
    }

    fn close_idle(&self) {
        while let Ok(conn) = self.idle.try_remove() {
            drop(conn);
        }
    }

    // === counts ===

    /// Returns the generation that a connection opened now belongs to.
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

    /// Returns the maximum number of connections: `pool_size`, or the Pod's share of `max_connections` if that is less.
    pub(crate) fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    /// Sets the maximum number of connections. Surplus connections are closed when they are idle or returned.
    pub(crate) fn set_size(&self, size: usize) {
        self.size.store(size, Ordering::Relaxed);
    }

    /// Returns true if more connections are open than the maximum.
    #[inline]
    pub(crate) fn is_over_size(&self) -> bool {
        self.shared.limits.max_connections.is_some() && self.open.load(Ordering::Relaxed) > self.size()
    }

    pub(crate) fn release_permit(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.shared.connection_closed.notify_waiters();
        if self.shared.connection_limit.release() {
            // With a limit for the whole pool, any Pod may now open a connection.
            self.shared.waiters.recheck_all();
        }
        self.shared.waiters.permit_released(&self.slot);
    }

    pub(crate) fn has_permit(&self) -> bool {
        self.open.load(Ordering::Relaxed) < self.size() && self.shared.connection_limit.has_room()
    }

    /// Returns the number of open connections, without those being opened.
    pub(crate) fn open(&self) -> usize {
        let open = self.open.load(Ordering::Relaxed);
        open.saturating_sub(self.opening())
    }

    pub(crate) fn opening(&self) -> usize {
        self.opening.load(Ordering::Relaxed)
    }

    /// Returns the number of connections being opened, or 0 if the youngest dial is slow: a waiter does not rely on a
    /// dial that may never finish while another Pod has room.
    pub(crate) fn opening_unless_slow(&self) -> usize {
        let age = self.shared.clock.now().saturating_sub(self.last_dial.load(Ordering::Relaxed));
        if age > SLOW_DIAL_MILLIS { 0 } else { self.opening() }
    }

    pub(crate) fn begin_opening(&self) {
        self.last_dial.store(self.shared.clock.now(), Ordering::Relaxed);
        self.opening.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end_opening(&self) {
        self.opening.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns true if no connection is open or being opened.
    pub(crate) fn has_no_connections(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }

    /// Returns true if a ping to this Pod is overdue: a caller prefers other Pods.
    #[inline]
    pub(crate) fn has_pending_ping(&self) -> bool {
        self.pending_pings.load(Ordering::Relaxed) > 0
    }

    /// Counts a ping whose response is overdue.
    pub(crate) fn begin_pending_ping(&self) {
        self.pending_pings.fetch_add(1, Ordering::Relaxed);
    }

    /// Ends the count of an overdue ping that was answered or has timed out.
    pub(crate) fn end_pending_ping(&self) {
        self.pending_pings.fetch_sub(1, Ordering::Relaxed);
        // Callers may be waiting although this Pod has idle connections. The slot's word orders this against a caller
        // that begins to wait.
        self.on_check_in(self.slot.flags());
    }

    /// Returns true if a caller could [take](Self::try_take) a connection.
    ///
    /// Never misses a connection that became idle before a change of the slot's word that the caller has seen: deadpool
    /// increments its count before a connection can be taken, and decrements it after one was taken.
    pub(crate) fn has_idle(&self) -> bool {
        self.idle() > 0
    }

    /// Returns the number of idle connections.
    pub(crate) fn idle(&self) -> usize {
        self.idle.status().available
    }

    // === upkeep ===

    /// Records a passed probe and its duration. Called by the directory only.
    pub(crate) fn record_probe(&self, took: Duration) {
        let (probes, _) = self.last_probe();
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        // Relaxed: count and duration share one word, and there is one writer.
        self.last_probe.store((u64::from(probes.wrapping_add(1)) << 32) | u64::from(micros), Ordering::Relaxed);
    }

    /// Returns the number of passed probes and the duration of the last one.
    pub(crate) fn last_probe(&self) -> (u32, Duration) {
        let last = self.last_probe.load(Ordering::Relaxed);
        ((last >> 32) as u32, Duration::from_micros(last & u64::from(u32::MAX)))
    }

    /// Closes the idle connections for which `keep` returns false. `keep` must not block.
    pub(crate) fn reap(self: &Arc<Self>, mut keep: impl FnMut(&Conn) -> bool) {
        let mut kept = Vec::new();
        while let Ok(conn) = self.idle.try_remove() {
            if keep(&conn) {
                kept.push(conn);
            }
        }
        // Oldest first, which restores the order.
        for conn in kept.into_iter().rev() {
            self.park(conn);
        }
    }
}
