//! The state shared by all Pods of a pool. It holds no reference to a Pod, so Pods can hold references to it without a
//! reference cycle. The state that several pools share is in [`group`](super::group).

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use tokio::{runtime::Handle, sync::Semaphore};

use super::{
    alarms::Alarms, client::Client, clock::Clock, conn::Reason, connection_limit::ConnectionLimit,
    counters::LabelledCounter, group::Group, message::Message, metrics::PoolMetrics, wait_queue::WaitQueue,
    waiting_spans::WaitingSpans,
};
use crate::{
    config::{Limits, Target},
    error::Phase,
    event::Emitter,
    health::local::LocalHealth,
    pool::hook::Hooks,
    sync::{Mutex, lock},
    time::{Duration, Instant},
    wire::dial::Dialer,
};

/// The shared state of one pool's Pods and tasks.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The number of the pool, which is unique in the process.
    pub(crate) id: u64,
    pub(crate) group: Arc<Group>,
    pub(crate) limits: Limits,
    pub(crate) dialer: DialerSlot,
    /// The runtime that runs all sockets, drivers and tasks of the pool.
    pub(crate) runtime: Handle,
    pub(crate) waiters: WaitQueue<Client>,
    pub(crate) alarms: Arc<Alarms>,
    /// Updated by the upkeep. Read by the probers after a timeout.
    pub(crate) local_health: Mutex<LocalHealth>,
    pub(crate) clock: Clock,
    /// Idle time in milliseconds after which a checkout pings a connection first.
    pub(crate) ping_after: u64,
    /// Idle time in milliseconds from which a checkout cannot take a connection on the fast path: longer than
    /// `ping_after`, or 0 if the application's hook is called before each checkout.
    pub(crate) slow_from: u64,
    /// True if the pool has something to do after each use of a connection: `reset=discard`, or a hook.
    pub(crate) acts_after_use: bool,
    pub(crate) events: Arc<Emitter>,
    pub(crate) hooks: Hooks,
    pub(crate) counters: Counters,
    /// Limits the concurrent handshakes of connections that belong to the application.
    pub(crate) owned_handshakes: Arc<Semaphore>,
    pub(crate) waiting_spans: WaitingSpans,
    pub(crate) metrics: PoolMetrics,
    /// The name of the database.
    #[cfg(feature = "otel")]
    pub(crate) database: Arc<str>,
    pub(crate) connection_limit: ConnectionLimit,
    /// Bit set of the targets that callers have requested so far and that were reported to the directory, the task that
    /// maintains the set of Pods. Initially the configured target.
    pub(crate) requested_targets: AtomicU32,
}

impl Shared {
    /// Returns the name of the pool.
    pub(crate) fn name(&self) -> &Arc<str> {
        self.events.name()
    }

    /// Returns true if the directory task has ended, either because the pool is closed or because its runtime has shut
    /// down.
    pub(crate) fn has_lost_its_runtime(&self) -> bool {
        self.group.inbox.is_closed()
    }

    /// Returns true if this pool exports the metrics about the health of the Pods: the first one of its group.
    #[cfg(feature = "_metrics")]
    pub(crate) fn exports_health(&self) -> bool {
        self.group.events.is_first(&self.events)
    }

    /// Sends a message to the directory task. Does nothing after the directory has ended.
    pub(crate) fn send(&self, message: Message) {
        self.group.send(message);
    }

    /// Returns the maximum duration of a call of a hook.
    pub(crate) fn hook_timeout(&self) -> Duration {
        self.hooks.timeout.unwrap_or(self.limits.connect_timeout)
    }

    /// Returns true if this client was late since `began`, so that a timeout that has just fired proves nothing.
    pub(crate) fn was_late_since(&self, began: Instant) -> bool {
        let now = Instant::now();
        lock(&self.local_health).was_late(began, now, now)
    }

    /// Records that statements were executed on a primary.
    pub(crate) fn wrote(&self) {
        self.group.wrote(self.clock.now());
    }

    /// Reports a target to the directory when it is requested for the first time.
    #[inline]
    pub(crate) fn request_target(&self, target: Target) {
        // Relaxed: a stale value at worst causes a duplicate message, which is harmless.
        if self.requested_targets.load(Ordering::Relaxed) & target.bit() == 0 {
            self.request_new_target(target);
        }
    }

    #[cold]
    fn request_new_target(&self, target: Target) {
        let targets = self.requested_targets.fetch_or(target.bit(), Ordering::Relaxed) | target.bit();
        self.send(Message::TargetsRequested { targets });
    }
}

impl Drop for Shared {
    /// Exports the counters a last time. Connections can outlive the pool, so the counts are complete only now.
    fn drop(&mut self) {
        self.metrics.export_last(self);
    }
}

/// The pool's dialer. It is removed when the pool is dropped: threads can hold copies of the published view for longer,
/// and these copies must not keep credentials and TLS state alive.
#[derive(Debug)]
pub(crate) struct DialerSlot(Mutex<Option<Arc<Dialer>>>);

impl DialerSlot {
    pub(crate) fn new(dialer: Dialer) -> Self {
        Self(Mutex::new(Some(Arc::new(dialer))))
    }

    /// Returns the dialer, or `None` after the pool was dropped.
    pub(crate) fn get(&self) -> Option<Arc<Dialer>> {
        lock(&self.0).clone()
    }

    /// Removes the dialer. It is freed as soon as no connection uses it.
    pub(crate) fn clear(&self) {
        let dialer = lock(&self.0).take();
        drop(dialer);
    }
}

/// The period in which the Service name is looked up frequently. The directory sets it, and the refresher reads it.
#[derive(Debug, Default)]
pub(crate) struct FrequentLookups(Mutex<Option<Instant>>);

impl FrequentLookups {
    pub(crate) fn begin(&self, now: Instant) {
        *lock(&self.0) = Some(now);
    }

    pub(crate) fn end(&self) {
        *lock(&self.0) = None;
    }

    /// Returns the start of the period.
    pub(crate) fn since(&self) -> Option<Instant> {
        *lock(&self.0)
    }
}

/// Counters since the pool was built.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) waits: AtomicU64,
    pub(crate) opened: AtomicU64,
    pub(crate) recycled: AtomicU64,
    /// Connections that were closed at checkout or on return, for any [`Reason`]. Differs from [`Reason::Discarded`] in
    /// two ways: that reason applies only if no other reason does, and it includes surplus connections that the upkeep
    /// task closes.
    pub(crate) discarded: AtomicU64,
    pub(crate) reset: AtomicU64,
    pub(crate) cache_cleared: AtomicU64,
    pub(crate) retries: AtomicU64,
    /// Timeouts, by the phase that timed out.
    pub(crate) timed_out: LabelledCounter<Phase>,
    /// Dials that failed, by the phase that failed.
    pub(crate) failed_in: LabelledCounter<Phase>,
    /// Calls whose future was dropped before they ended, by what they were waiting for.
    pub(crate) abandoned: LabelledCounter<Phase>,
    /// Closed connections, by reason.
    pub(crate) closed_for: LabelledCounter<Reason>,
}

/// Increments a counter.
pub(crate) fn count(counter: &AtomicU64) {
    // Relaxed: counters guard no other data.
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Reads a counter.
pub(crate) fn read(counter: &AtomicU64) -> u64 {
    // Relaxed: counters guard no other data.
    counter.load(Ordering::Relaxed)
}
