//! What every Pod of one pool shares. Holds no Pod, so that a Pod may hold it.

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

/// The shared part.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) limits: Limits,
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) probe_factory: ProbeFactory,
    /// Where every socket, driver and task of the pool runs.
    pub(crate) runtime: Handle,
    pub(crate) waiters: Waiters,
    pub(crate) urgent_probing: UrgentProbing,
    pub(crate) clock: Clock,
    /// Milliseconds of idleness after which a connection is pinged at checkout.
    pub(crate) ping_after: u64,
    pub(crate) events: Arc<Emitter>,
    pub(crate) counters: Counters,
    /// Handshakes at once, with all Pods together.
    pub(crate) handshakes: Semaphore,
    pub(crate) metrics: PoolMetrics,
    pub(crate) resolved: Mutex<Resolved>,
    pub(crate) connection_limit: ConnectionLimit,
    /// The [roles](crate::Target::roles) that the directory knows are asked for. All, where it need not know.
    pub(crate) wanted: AtomicU8,
    /// To the directory.
    pub(crate) inbox: mpsc::UnboundedSender<Message>,
    /// To the refresher: something is wrong, ask again.
    pub(crate) last_failure: Notify,
    /// Whenever a connection has gone for good.
    pub(crate) gone: Notify,
}

impl Shared {
    /// Tells the directory. After the pool's end there is nobody to tell, and nothing left to say.
    pub(crate) fn tell(&self, message: Message) {
        drop(self.inbox.send(message));
    }

    /// Tells the directory of a target that is asked for, the first time.
    #[inline]
    pub(crate) fn ask_for(&self, target: Target) {
        let roles = target.roles();
        // Relaxed: a hint; told twice does no harm.
        if self.wanted.load(Ordering::Relaxed) & roles != roles {
            self.want(roles);
        }
    }

    #[cold]
    fn want(&self, roles: u8) {
        let all = self.wanted.fetch_or(roles, Ordering::Relaxed) | roles;
        self.tell(Message::Wanted { roles: all });
    }
}

impl Drop for Shared {
    /// The last connection has gone: what was lent out beyond the pool's end has been counted by now.
    fn drop(&mut self) {
        self.metrics.counters(self);
    }
}

/// Milliseconds since the pool was made, as of the last tick: what a checkout reads instead of a clock.
#[derive(Debug, Default)]
pub(crate) struct Clock(AtomicU64);

/// How often the clock is set; nothing that is timed with it needs to be more exact.
pub(crate) const TICK: Duration = Duration::from_millis(100);

// Relaxed: a hint of the time guards nothing.
impl Clock {
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, since_start: Duration) {
        self.0.store(u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

/// What has been counted since the pool was made.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) waits: AtomicU64,
    pub(crate) timeouts: AtomicU64,
    pub(crate) opened: AtomicU64,
    pub(crate) open_failed: AtomicU64,
    pub(crate) closed: AtomicU64,
    pub(crate) recycled: AtomicU64,
    pub(crate) discarded: AtomicU64,
    pub(crate) reset: AtomicU64,
    pub(crate) cache_cleared: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) resolve_ok: AtomicU64,
    pub(crate) resolve_failed: AtomicU64,
    /// What was given up when its time was up, by where.
    pub(crate) timed_out: LabelledCounter<Phase>,
    /// Connections that could not be opened, by where.
    pub(crate) failed_in: LabelledCounter<Phase>,
    /// Pods that were ejected, by what failed.
    pub(crate) ejected: LabelledCounter<Phase>,
    /// Connections closed, by why.
    pub(crate) closed_for: LabelledCounter<Reason>,
}

/// Counts one more.
pub(crate) fn count(counter: &AtomicU64) {
    // Relaxed: a plain counter.
    counter.fetch_add(1, Ordering::Relaxed);
}

/// Reads a count.
pub(crate) fn read(counter: &AtomicU64) -> u64 {
    // Relaxed: a plain counter.
    counter.load(Ordering::Relaxed)
}
