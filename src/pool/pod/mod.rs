//! One Pod: its deadpool, and what is known and counted of it.
//!
//! # Orderings
//!
//! `open` is a count of places: taken by compare-and-exchange so that it never passes the size, given back when a
//! connection has gone. It guards no data, and neither does `pending_pings`: a stale reading of it costs a detour. `generation` is raised by the directory alone when everything that is open
//! is to go; a connection that slips through on an old reading is refused when it comes back.

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
    conn::{Conn, ConnHandle},
    last_failure::LastFailure,
    shared::{Shared, count},
};
use crate::{
    endpoint::{
        Endpoint,
        slot::{Flags, SlotHandle},
    },
    health::latency::Work,
    sync::{Mutex, lock},
    time::Duration,
    wire::CancelToken,
};

/// Milliseconds after which a dial is slow.
const SLOW_DIAL: u64 = 250;

/// The connections that are open, to be watched and to be cut, and what those that have gone had counted.
#[derive(Debug, Default)]
struct ConnHandles {
    live: Vec<ConnHandle>,
    gone: Totals,
}

/// What connections have counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    /// Requests answered; of those, the ones of callers who would have taken any Pod.
    pub(crate) work: Work,
    pub(crate) any: Work,
    /// Of those, the ones that failed through the server's own fault.
    pub(crate) failed: u64,
    /// Reads that brought something.
    pub(crate) reads: u64,
}

impl Totals {
    fn add(&mut self, handle: &ConnHandle) {
        self.work.add(handle.record.answered());
        self.any.add(handle.record.answered_any());
        self.failed += handle.record.failed().0;
        self.reads += handle.record.reads();
    }
}

/// One Pod.
#[derive(Debug)]
pub(crate) struct Pod {
    /// Never used twice in a pool.
    pub(crate) serial: u64,
    pub(crate) endpoint: Endpoint,
    pub(crate) slot: SlotHandle,
    idle: unmanaged::Pool<Box<Conn>>,
    /// Connections open, and being opened.
    open: AtomicUsize,
    /// How many there may be.
    size: AtomicUsize,
    /// Connections being opened.
    opening: AtomicUsize,
    /// The pool's clock when the last dial began.
    dialled: AtomicU64,
    /// How many probes were answered, and below that the microseconds that the last one took.
    probed: AtomicU64,
    /// Pings that callers no longer wait for.
    pending_pings: AtomicUsize,
    /// Handshakes at once.
    pub(crate) handshakes: Semaphore,
    generation: AtomicU64,
    pub(crate) last_failure: Mutex<LastFailure>,
    /// To the prober: probe now.
    pub(crate) suspect: Notify,
    handles: Mutex<ConnHandles>,
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
            dialled: AtomicU64::new(0),
            probed: AtomicU64::new(0),
            pending_pings: AtomicUsize::new(0),
            handshakes: Semaphore::new(shared.limits.handshakes_per_pod),
            generation: AtomicU64::new(0),
            last_failure: Mutex::default(),
            suspect: Notify::new(),
            handles: Mutex::default(),
            shared,
        })
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    // === taking and giving back ===

    /// An idle connection, counted out. Those that may not be lent out again are closed on the way.
    #[inline]
    pub(crate) fn try_take(&self) -> Option<Client> {
        loop {
            // The most recently used one: its server process is warm, and the others can grow old enough to go.
            let object = self.idle.try_get().ok()?;
            if object.is_current() {
                self.slot.checkout();
                return Some(Client::new(object));
            }
            self.discard(object);
        }
    }

    /// A borrowed connection comes back, clean.
    pub(crate) fn check_in(mut object: unmanaged::Object<Box<Conn>>) {
        object.parked = object.pod().shared.clock.now();
        let pod = object.pod().clone();
        if !pod.shared.waiters.is_empty() {
            // Straight to the first in the queue, before a newcomer can take it.
            match pod.shared.waiters.hand_over(&pod.slot, Client::new(object)) {
                None => return pod.slot.handed_over(),
                Some(client) => object = client.into_object(),
            }
        }
        drop(object); // back among the idle
        let flags = pod.slot.checkin();
        pod.on_check_in(flags);
    }

    /// A borrowed connection goes for good.
    pub(crate) fn check_out_for_good(object: unmanaged::Object<Box<Conn>>) {
        let pod = object.pod().clone();
        pod.discard(object);
        let flags = pod.slot.checkin();
        pod.on_check_in(flags);
    }

    /// A new connection, or one that the reaper looked at, joins the idle ones.
    pub(crate) fn park(self: &Arc<Self>, conn: Box<Conn>) {
        // Every connection holds a permit and there are as many permits as places, so only a pool that is closed
        // refuses; nobody closes it.
        if let Err((conn, error)) = self.idle.try_add(conn) {
            tracing::error!(endpoint = %self.endpoint, %error, "no place for a connection that had one");
            drop(conn);
        }
        self.on_check_in(self.slot.touch());
    }

    fn discard(&self, object: unmanaged::Object<Box<Conn>>) {
        count(&self.shared.counters.discarded);
        drop(unmanaged::Object::take(object));
    }

    /// Does what the flags ask for, after a connection has come in.
    fn on_check_in(&self, flags: Flags) {
        if flags.closed() {
            self.sweep();
        } else if flags.waited() {
            self.shared.waiters.serve(&self.slot, || self.try_take());
        }
    }

    // === the end ===

    /// Keeps nothing from here on: idle connections are closed now, borrowed ones when they come back.
    pub(crate) fn close(&self) {
        self.slot.close();
        self.sweep();
    }

    /// Closes what is open now: idle connections at once, borrowed ones when they come back.
    pub(crate) fn purge(&self) {
        // Release pairs with the acquire in `generation`.
        self.generation.fetch_add(1, Ordering::Release);
        self.sweep();
    }

    fn sweep(&self) {
        while let Ok(conn) = self.idle.try_remove() {
            drop(conn);
        }
    }

    /// What cancels the statements that are under way.
    pub(crate) fn at_work(&self) -> Vec<CancelToken> {
        lock(&self.handles).live.iter().filter_map(ConnHandle::at_work).collect()
    }

    /// Cuts every connection, whoever holds it. Gives how many somebody held; the others were saying goodbye.
    pub(crate) fn cut(&self) -> usize {
        let handles = lock(&self.handles);
        let live = handles.live.iter().filter(|handle| !handle.record.has_ended());
        live.inspect(|handle| handle.cut()).filter(|handle| !handle.record.is_released()).count()
    }

    // === counts ===

    /// The generation that connections opened now belong to.
    #[inline]
    pub(crate) fn generation(&self) -> u64 {
        // Acquire pairs with `purge`.
        self.generation.load(Ordering::Acquire)
    }

    // Relaxed: see the module's text.
    pub(crate) fn take_permit(&self) -> bool {
        let size = self.size();
        let more = |open| (open < size).then_some(open + 1);
        if self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
            return false;
        }
        let taken = self.shared.connection_limit.take();
        if !taken {
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
        taken
    }

    /// How many connections there may be: `pool_size`, or less where the pool as a whole is bounded.
    pub(crate) fn size(&self) -> usize {
        self.size.load(Ordering::Relaxed)
    }

    /// Sets how many there may be. More than that are closed when they are idle, or come back.
    pub(crate) fn set_size(&self, size: usize) {
        self.size.store(size, Ordering::Relaxed);
    }

    /// Whether there are more than there may be.
    #[inline]
    pub(crate) fn is_over(&self) -> bool {
        self.shared.limits.max_connections.is_some() && self.open.load(Ordering::Relaxed) > self.size()
    }

    pub(crate) fn release_permit(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
        self.shared.gone.notify_waiters();
        if self.shared.connection_limit.free() {
            // It may be another Pod's turn.
            self.shared.waiters.look_again();
        }
        self.shared.waiters.permit_released(&self.slot);
    }

    pub(crate) fn has_permit(&self) -> bool {
        self.open.load(Ordering::Relaxed) < self.size() && self.shared.connection_limit.has_room()
    }

    /// Connections that are open, without those being opened.
    pub(crate) fn open(&self) -> usize {
        let open = self.open.load(Ordering::Relaxed);
        open.saturating_sub(self.opening())
    }

    pub(crate) fn opening(&self) -> usize {
        self.opening.load(Ordering::Relaxed)
    }

    /// Connections being opened, unless even the youngest dial has taken longer than a dial does: nobody should wait for
    /// one into a black hole while another Pod has room.
    pub(crate) fn opening_lately(&self) -> usize {
        let age = self.shared.clock.now().saturating_sub(self.dialled.load(Ordering::Relaxed));
        if age > SLOW_DIAL { 0 } else { self.opening() }
    }

    pub(crate) fn begin_opening(&self) {
        self.dialled.store(self.shared.clock.now(), Ordering::Relaxed);
        self.opening.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn end_opening(&self) {
        self.opening.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether there is no connection at all, open or being opened.
    pub(crate) fn is_deserted(&self) -> bool {
        self.open.load(Ordering::Relaxed) == 0
    }

    /// Whether a ping takes longer here than a ping does: whoever has a choice goes elsewhere.
    #[inline]
    pub(crate) fn has_pending_ping(&self) -> bool {
        self.pending_pings.load(Ordering::Relaxed) > 0
    }

    /// A ping was not answered at once.
    pub(crate) fn begin_pending_ping(&self) {
        self.pending_pings.fetch_add(1, Ordering::Relaxed);
    }

    /// It was answered, or given up.
    pub(crate) fn end_pending_ping(&self) {
        self.pending_pings.fetch_sub(1, Ordering::Relaxed);
        // Whoever waited although something was idle here. The slot's word orders this against who begins to wait.
        self.on_check_in(self.slot.touch());
    }

    /// Whether somebody could [take](Self::try_take) one. Never wrong about what was there before the slot's word said so:
    /// deadpool counts one in before it can be taken, and out after.
    pub(crate) fn has_idle(&self) -> bool {
        self.idle() > 0
    }

    /// Connections that nobody has borrowed.
    pub(crate) fn idle(&self) -> usize {
        self.idle.status().available
    }

    // === upkeep ===

    /// Remembers a new connection.
    pub(crate) fn track(&self, handle: ConnHandle) {
        let ConnHandles { live, gone } = &mut *lock(&self.handles);
        live.retain(|handle| {
            let ended = handle.record.has_ended();
            if ended {
                gone.add(handle);
            }
            !ended
        });
        live.push(handle);
    }

    /// What all connections have counted, those that have gone too.
    pub(crate) fn totals(&self) -> Totals {
        let handles = lock(&self.handles);
        let mut totals = handles.gone;
        handles.live.iter().for_each(|handle| totals.add(handle));
        totals
    }

    /// A probe was answered. Only the directory says so.
    pub(crate) fn probe_took(&self, took: Duration) {
        let (probes, _) = self.probes_took();
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        // Relaxed: count and time are one word.
        self.probed.store((u64::from(probes.wrapping_add(1)) << 32) | u64::from(micros), Ordering::Relaxed);
    }

    /// How many probes were answered, and how long the last one took.
    pub(crate) fn probes_took(&self) -> (u32, Duration) {
        let probed = self.probed.load(Ordering::Relaxed);
        ((probed >> 32) as u32, Duration::from_micros(probed & u64::from(u32::MAX)))
    }

    /// Whether something was sent that has not been answered, and the longest run of failures through the server's own
    /// fault just now on one connection.
    pub(crate) fn under_way(&self) -> (bool, u32) {
        lock(&self.handles)
            .live
            .iter()
            .filter(|handle| !handle.record.has_ended())
            .fold((false, 0), |(some, run), handle| {
                (some || handle.record.outstanding() > 0, run.max(handle.record.failed().1))
            })
    }

    /// Looks at every idle connection and closes those that `keep` refuses. `keep` must not block.
    pub(crate) fn reap(self: &Arc<Self>, mut keep: impl FnMut(&Conn) -> bool) {
        let mut kept = Vec::new();
        while let Ok(conn) = self.idle.try_remove() {
            if keep(&conn) {
                kept.push(conn);
            }
        }
        // Oldest first, as they were.
        for conn in kept.into_iter().rev() {
            self.park(conn);
        }
    }
}
