//! The state that all Pods of one pool have in common. Holds no Pod, so that a Pod can hold it without a cycle.

use std::sync::{
    Arc,
    atomic::{AtomicU8, AtomicU64, Ordering},
};

use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, mpsc},
};

use super::{
    conn::Reason, connection_limit::ConnectionLimit, counters::LabelledCounter, message::Message, metrics::PoolMetrics,
    prober::ProbeFactory, resolved::Resolved, urgent_probing::UrgentProbing, wait_queue::Waiters,
};
use crate::{
    config::{Limits, Target},
    error::Phase,
    event::Emitter,
    sync::Mutex,
    time::Duration,
    wire::dial::Dialer,
};

/// The shared state of one pool's Pods and tasks.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) probe_factory: ProbeFactory,
    /// The runtime of every socket, driver and task of the pool.
    pub(crate) runtime: Handle,
    pub(crate) waiters: Waiters,
    pub(crate) urgent_probing: UrgentProbing,
    pub(crate) clock: Clock,
    /// Idle time in milliseconds after which a connection is pinged at check-out.
    pub(crate) ping_after: u64,
    pub(crate) events: Arc<Emitter>,
    pub(crate) counters: Counters,
    /// Limits concurrent handshakes with all Pods together.
    pub(crate) handshakes: Semaphore,
    pub(crate) metrics: PoolMetrics,
    pub(crate) resolved: Mutex<Resolved>,
    pub(crate) connection_limit: ConnectionLimit,
    /// The [roles](crate::Target::roles) that callers have requested and the directory has been notified of. All bits
    /// are set if the directory does not need them.
    pub(crate) requested_roles: AtomicU8,
    /// The sending half of the directory's inbox.
    pub(crate) inbox: mpsc::UnboundedSender<Message>,
    /// Makes the refresher look the name up earlier than scheduled, because a Pod has failed.
    pub(crate) lookup_wanted: Notify,
    /// Notified each time a connection has been closed.
    pub(crate) connection_closed: Notify,
}

impl Shared {
    /// Sends a message to the directory. Does nothing after the directory has ended.
    pub(crate) fn send(&self, message: Message) {
        drop(self.inbox.send(message));
    }

    /// Notifies the directory of the target's roles at their first use.
    #[inline]
    pub(crate) fn request_roles(&self, target: Target) {
        let roles = target.roles();
        // Relaxed: a duplicate message is harmless.
        if self.requested_roles.load(Ordering::Relaxed) & roles != roles {
            self.request_new_roles(roles);
        }
    }

    #[cold]
    fn request_new_roles(&self, roles: u8) {
        let all = self.requested_roles.fetch_or(roles, Ordering::Relaxed) | roles;
        self.send(Message::RolesRequested { roles: all });
    }
}

impl Drop for Shared {
    /// Exports the counters a last time. A connection can outlive the pool; the last one has been counted by now.
    fn drop(&mut self) {
        self.metrics.counters(self);
    }
}

/// Milliseconds since the pool was built, as of the last tick. A checkout reads this instead of the system's clock.
#[derive(Debug, Default)]
pub(crate) struct Clock(AtomicU64);

/// Interval at which the clock is set. No time that is measured with the clock needs a finer resolution.
pub(crate) const TICK: Duration = Duration::from_millis(100);

// Relaxed: the time guards no other data.
impl Clock {
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, since_start: Duration) {
        self.0.store(u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// Counters since the pool was built.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) waits: AtomicU64,
    pub(crate) opened: AtomicU64,
    pub(crate) recycled: AtomicU64,
    pub(crate) discarded: AtomicU64,
    pub(crate) reset: AtomicU64,
    pub(crate) cache_cleared: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) resolve_ok: AtomicU64,
    pub(crate) resolve_failed: AtomicU64,
    /// Timeouts, by phase.
    pub(crate) timed_out: LabelledCounter<Phase>,
    /// Connections that could not be opened, by phase.
    pub(crate) failed_in: LabelledCounter<Phase>,
    /// Ejections, by the phase that failed.
    pub(crate) ejected: LabelledCounter<Phase>,
    /// Closed connections, by reason.
    pub(crate) closed_for: LabelledCounter<Reason>,
}

/// Increments a counter.
pub(crate) fn count(counter: &AtomicU64) {
    // Relaxed: a plain counter.
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Reads a counter.
pub(crate) fn read(counter: &AtomicU64) -> u64 {
    // Relaxed: a plain counter.
    counter.load(Ordering::Relaxed)
}
