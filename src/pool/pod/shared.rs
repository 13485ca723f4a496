//! The state shared by all Pods of a pool. It holds no reference to a Pod, so Pods can hold references to it without a
//! reference cycle.

use std::sync::{
    Arc,
    atomic::{AtomicU32, AtomicU64, Ordering},
};

use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, mpsc},
};

use super::{
    alarms::Alarms, client::Client, clock::Clock, conn::Reason, connection_limit::ConnectionLimit,
    counters::LabelledCounter, fleet::Fleet, lag_demand::LagDemand, message::Message, metrics::PoolMetrics,
    prober::ProbeFactory, resolved::Resolved, urgent_probing::UrgentProbing, wait_queue::WaitQueue,
};
use crate::{
    config::{Limits, Target},
    error::Phase,
    event::Emitter,
    health::local::LocalHealth,
    pool::hook::Hooks,
    sync::{Mutex, lock},
    time::{Duration, Instant},
    unwind::{PanicSource, catch},
    wire::dial::Dialer,
};

/// Time in milliseconds for which the application counts as writing after a statement on a primary.
const WRITING_FOR: u64 = 2_000;

/// The shared state of one pool's Pods and tasks.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) dialer: DialerSlot,
    pub(crate) probe_factory: ProbeFactory,
    /// The runtime that runs all sockets, drivers and tasks of the pool.
    pub(crate) runtime: Handle,
    pub(crate) waiters: WaitQueue<Client>,
    pub(crate) alarms: Arc<Alarms>,
    pub(crate) urgent_probing: UrgentProbing,
    pub(crate) fleet: Fleet,
    /// Updated by the upkeep. Read by the probers after a timeout.
    pub(crate) local_health: Mutex<LocalHealth>,
    pub(crate) clock: Clock,
    pub(crate) lag_demand: LagDemand,
    /// Time of the pool's clock, in milliseconds, until which the application counts as writing.
    pub(crate) writes_until: AtomicU64,
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
    /// Limits the concurrent handshakes of probe connections to all Pods. The opener limits the handshakes of pooled
    /// connections.
    pub(crate) probe_handshakes: Semaphore,
    /// Limits the concurrent handshakes of connections that belong to the application.
    pub(crate) owned_handshakes: Semaphore,
    pub(crate) metrics: PoolMetrics,
    pub(crate) resolved: Mutex<Resolved>,
    pub(crate) connection_limit: ConnectionLimit,
    /// Bit set of the targets that callers have requested so far and that were reported to the directory, the task that
    /// maintains the set of Pods. Initially the configured target.
    pub(crate) requested_targets: AtomicU32,
    /// The sending half of the directory's channel of messages.
    pub(crate) inbox: mpsc::UnboundedSender<Message>,
    /// Makes the refresher tasks look up their hosts before the scheduled time. One for each configured host.
    pub(crate) lookup_wanted: Box<[Notify]>,
    /// The period of frequent lookups, while a Pod or a requested role is missing.
    pub(crate) lookups: FrequentLookups,
    /// Notified each time a connection has been closed.
    pub(crate) connection_closed: Notify,
}

impl Shared {
    /// Records a metric. A panic of the application's metrics recorder is caught and reported as an event.
    pub(crate) fn record_metrics(&self, record: impl FnOnce(&PoolMetrics)) {
        if let Err(panic) = catch(|| record(&self.metrics)) {
            self.events.panicked(PanicSource::MetricsRecorder, &panic);
        }
    }

    /// Returns true if the directory task has ended, either because the pool is closed or because its runtime has shut
    /// down.
    pub(crate) fn has_lost_its_runtime(&self) -> bool {
        self.inbox.is_closed()
    }

    /// Sends a message to the directory task. Does nothing after the directory has ended.
    pub(crate) fn send(&self, message: Message) {
        drop(self.inbox.send(message));
    }

    /// Returns the maximum duration of a call of a hook.
    pub(crate) fn hook_timeout(&self) -> Duration {
        self.hooks.timeout.unwrap_or(self.limits.connect_timeout)
    }

    /// Makes all configured hosts be looked up now, because a Pod has failed or is missing.
    pub(crate) fn look_up_now(&self) {
        self.lookup_wanted.iter().for_each(Notify::notify_one);
    }

    /// Returns true if this client was late since `began`, so that a timeout that has just fired proves nothing.
    pub(crate) fn was_late_since(&self, began: Instant) -> bool {
        let now = Instant::now();
        lock(&self.local_health).was_late(began, now, now)
    }

    /// Records that statements were executed on a primary.
    pub(crate) fn wrote(&self) {
        // Relaxed: a stale value only delays or repeats a check for a promotion.
        self.writes_until.store(self.clock.now() + WRITING_FOR, Ordering::Relaxed);
    }

    /// Returns true if statements were recently executed on a primary, so that a promotion must be noticed soon.
    pub(crate) fn is_writing(&self) -> bool {
        self.clock.now() < self.writes_until.load(Ordering::Relaxed)
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
        // Panics are caught because unwinding out of `drop` could abort the process.
        let _ = catch(|| self.metrics.counters(self));
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
    pub(crate) resolve_ok: AtomicU64,
    pub(crate) resolve_failed: AtomicU64,
    /// Timeouts, by the phase that timed out.
    pub(crate) timed_out: LabelledCounter<Phase>,
    /// Dials that failed, by the phase that failed.
    pub(crate) failed_in: LabelledCounter<Phase>,
    /// Ejections, by the phase that failed.
    pub(crate) ejected: LabelledCounter<Phase>,
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
