//! The state of one Pod that all pools of a group share: its probes, and the list of the pools' own parts of it.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use tokio::sync::Notify;

use super::{Pod, borrowed::Borrowed, lag_gauge::LagGauge, named_as::NamedAs};
use crate::{
    endpoint::Endpoint,
    sync::{Mutex, lock},
    time::Duration,
};

/// One Pod, as all pools of a group see it. Each pool has a [`Pod`] of its own, with its connections.
#[derive(Debug)]
pub(crate) struct Server {
    /// A number that is unique within the group and never reused.
    pub(crate) serial: u64,
    pub(crate) endpoint: Endpoint,
    pub(super) named_as: NamedAs,
    /// Makes the prober probe immediately.
    pub(crate) probe_wanted: Notify,
    /// Makes the next probe open a new connection, because settings may have changed since the last one was opened.
    pub(crate) probe_afresh: AtomicBool,
    /// Upper 32 bits: number of passed probes. Lower 32 bits: duration of the last passed probe in microseconds.
    last_probe: AtomicU64,
    pub(crate) lag: LagGauge,
    /// The part of each pool, in the order in which the pools joined the group. Weak, because each part refers to this.
    pods: Mutex<Vec<Weak<Pod>>>,
}

impl Server {
    pub(crate) fn new(serial: u64, endpoint: Endpoint) -> Arc<Self> {
        Arc::new(Self {
            serial,
            named_as: NamedAs::new(&endpoint),
            endpoint,
            probe_wanted: Notify::new(),
            probe_afresh: AtomicBool::new(false),
            last_probe: AtomicU64::new(0),
            lag: LagGauge::default(),
            pods: Mutex::default(),
        })
    }

    /// Adds the part of a pool that has joined the group. Only the directory calls this.
    pub(super) fn add(&self, pod: &Arc<Pod>) {
        lock(&self.pods).push(Arc::downgrade(pod));
    }

    /// Removes the part of a pool that has left the group.
    pub(crate) fn remove(&self, pod: &Arc<Pod>) {
        lock(&self.pods).retain(|other| other.as_ptr() != Arc::as_ptr(pod));
    }

    /// Returns the part of each pool. Parts whose pool has its own [check](super::session_check) come last, because
    /// the state that the server reports in their sessions is particular to their user or database.
    pub(crate) fn pods(&self) -> Vec<Arc<Pod>> {
        let mut pods: Vec<_> = lock(&self.pods).iter().filter_map(Weak::upgrade).collect();
        pods.sort_by_key(|pod| pod.access.is_particular());
        pods
    }

    /// Returns true if a pool of the group has this part of the Pod.
    pub(crate) fn has(&self, pod: &Arc<Pod>) -> bool {
        lock(&self.pods).iter().any(|other| other.as_ptr() == Arc::as_ptr(pod))
    }

    /// Returns the number of socket reads on the pools' connections.
    pub(crate) fn reads(&self) -> u64 {
        self.pods().iter().map(|pod| pod.connections.totals().reads).sum()
    }

    /// Returns true if a pool has an open connection.
    pub(crate) fn is_connected(&self) -> bool {
        self.pods().iter().any(|pod| pod.open() > 0)
    }

    /// Returns true if a pool has a connection that has not ended.
    pub(crate) fn has_live(&self) -> bool {
        self.pods().iter().any(|pod| pod.connections.has_live())
    }

    /// Returns true if a pool has an idle connection.
    pub(crate) fn has_idle(&self) -> bool {
        self.pods().iter().any(|pod| pod.has_idle())
    }

    /// Returns true if a pool has put the Pod into a slow latency class.
    pub(crate) fn is_slow(&self) -> bool {
        self.pods().iter().any(|pod| pod.slot.load().class > 1)
    }

    /// Takes an idle connection of one of the pools for a probe. Returns `None` if there is none.
    pub(crate) fn borrow_idle(&self) -> Option<(Arc<Pod>, Borrowed)> {
        self.pods().into_iter().find_map(|pod| {
            let idle = pod.borrow_idle()?;
            Some((pod, idle))
        })
    }

    /// Closes idle connections that have ended.
    pub(crate) fn discard_ended(&self) {
        self.pods().iter().for_each(|pod| pod.discard_ended());
    }

    /// Records a passed probe and its duration. Only the directory calls this.
    pub(crate) fn record_probe(&self, took: Duration) {
        let (probes, _) = self.last_probe();
        let micros = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        // Relaxed: the count and the duration share one word, and only the directory writes it.
        self.last_probe.store((u64::from(probes.wrapping_add(1)) << 32) | u64::from(micros), Ordering::Relaxed);
    }

    /// Returns the number of passed probes and the duration of the last one.
    pub(crate) fn last_probe(&self) -> (u32, Duration) {
        let last = self.last_probe.load(Ordering::Relaxed);
        ((last >> 32) as u32, Duration::from_micros(last & u64::from(u32::MAX)))
    }
}
