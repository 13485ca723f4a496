//! The state that all pools of a group share: pools that use the same Pods, but have different users, databases or
//! settings (`Builder::share_with`). A pool that shares nothing is the only one of its group.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, mpsc},
    task::AbortHandle,
};

#[cfg(feature = "_metrics")]
use super::metrics::Exported;
use super::{
    counters::ejections::Ejections, fleet::Fleet, lag_demand::LagDemand, message::Message, prober::ProbeFactory,
    resolved::Resolved, shared::FrequentLookups, urgent_probing::UrgentProbing,
};
use crate::{
    config::{Config, Limits},
    discovery::Resolve,
    event::GroupEvents,
    sync::{Mutex, lock},
    time::Instant,
};

/// Time in milliseconds for which the application counts as writing after a statement on a primary.
const WRITING_FOR: u64 = 2_000;

/// The state that all pools of a group share.
#[derive(Debug)]
pub(crate) struct Group {
    /// The configuration of the pool that was built first. The shared settings of all others are equal.
    pub(crate) config: Config,
    pub(crate) limits: Limits,
    /// The runtime that runs the tasks of the group, and all sockets and tasks of its pools.
    pub(crate) runtime: Handle,
    /// One for each configured host.
    pub(crate) resolvers: Arc<[Arc<dyn Resolve>]>,
    pub(crate) probe_factory: ProbeFactory,
    pub(crate) urgent_probing: UrgentProbing,
    pub(crate) fleet: Fleet,
    pub(crate) lag_demand: LagDemand,
    /// Time of the pools' clocks, in milliseconds, until which the application counts as writing.
    writes_until: AtomicU64,
    /// Limits the concurrent handshakes of probe connections to all Pods. The openers limit the handshakes of pooled
    /// connections.
    pub(crate) probe_handshakes: Semaphore,
    pub(crate) resolved: Mutex<Resolved>,
    /// The sending half of the directory's channel of messages.
    pub(crate) inbox: mpsc::UnboundedSender<Message>,
    /// Makes the refresher tasks look up their hosts before the scheduled time. One for each configured host.
    pub(crate) lookup_wanted: Box<[Notify]>,
    /// The period of frequent lookups, while a Pod or a requested role is missing.
    pub(crate) lookups: FrequentLookups,
    /// Notified each time a connection has been closed.
    pub(crate) connection_closed: Notify,
    pub(crate) events: Arc<GroupEvents>,
    pub(crate) counters: GroupCounters,
    /// The last exported value of each of the group's counters.
    #[cfg(feature = "_metrics")]
    pub(crate) exported: Exported,
    /// Abort handles of the refreshers, one for each configured host. `None` before they are started.
    refreshers: Mutex<Option<Vec<AbortHandle>>>,
}

/// Counters since the first pool of the group was built.
#[derive(Debug, Default)]
pub(crate) struct GroupCounters {
    pub(crate) resolve_ok: AtomicU64,
    pub(crate) resolve_failed: AtomicU64,
    /// Ejections, by Pod and cause.
    pub(crate) ejected: Ejections,
}

impl Group {
    pub(crate) fn new(
        config: &Config,
        runtime: Handle,
        resolvers: Arc<[Arc<dyn Resolve>]>,
        probe_factory: ProbeFactory,
        inbox: mpsc::UnboundedSender<Message>,
        events: Arc<GroupEvents>,
    ) -> Self {
        let limits = *config.limits();
        Self {
            config: config.clone(),
            limits,
            runtime,
            probe_factory,
            urgent_probing: UrgentProbing::new(Fleet::new(limits.clients)),
            fleet: Fleet::new(limits.clients),
            lag_demand: LagDemand::default(),
            writes_until: AtomicU64::new(0),
            probe_handshakes: Semaphore::new(limits.handshakes),
            resolved: Mutex::new(Resolved::new(resolvers.len(), Instant::now())),
            inbox,
            lookup_wanted: resolvers.iter().map(|_| Notify::new()).collect(),
            resolvers,
            lookups: FrequentLookups::default(),
            connection_closed: Notify::new(),
            events,
            counters: GroupCounters::default(),
            #[cfg(feature = "_metrics")]
            exported: Exported::default(),
            refreshers: Mutex::default(),
        }
    }

    /// Returns the name of the pool that was built first, of those that still exist.
    pub(crate) fn name(&self) -> Arc<str> {
        self.events.name()
    }

    /// Returns a description of the source of the Pods of the host with this index.
    pub(crate) fn source_of(&self, host: usize) -> String {
        self.resolvers[host].source()
    }

    /// Returns a description of the sources of the Pods.
    pub(crate) fn source(&self) -> String {
        let sources: Vec<_> = self.resolvers.iter().map(|resolver| resolver.source()).collect();
        sources.join("; ")
    }

    /// Sends a message to the directory task. Does nothing after the directory has ended.
    pub(crate) fn send(&self, message: Message) {
        drop(self.inbox.send(message));
    }

    /// Makes all configured hosts be looked up now, because a Pod has failed or is missing.
    pub(crate) fn look_up_now(&self) {
        self.lookup_wanted.iter().for_each(Notify::notify_one);
    }

    /// Records that statements were executed on a primary. `now` is the time of a pool's clock.
    pub(crate) fn wrote(&self, now: u64) {
        // Relaxed: a stale value only delays or repeats a check for a promotion.
        self.writes_until.fetch_max(now + WRITING_FOR, Ordering::Relaxed);
    }

    /// Returns true if statements were recently executed on a primary, so that a promotion must be noticed soon.
    pub(crate) fn is_writing(&self, now: u64) -> bool {
        now < self.writes_until.load(Ordering::Relaxed)
    }

    /// Starts the refreshers with `start`, unless they were already started.
    pub(crate) fn set_refreshers(&self, start: impl FnOnce() -> Vec<AbortHandle>) {
        lock(&self.refreshers).get_or_insert_with(start);
    }

    /// Ends the refreshers. They cannot be started again.
    pub(crate) fn abort_refreshers(&self) {
        let refreshers = lock(&self.refreshers).replace(Vec::new());
        refreshers.into_iter().flatten().for_each(|refresher| refresher.abort());
    }
}
