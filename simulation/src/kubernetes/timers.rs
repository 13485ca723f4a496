//! Timers of the cluster, in the order of their times; equal times in the order in which they were set.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{event::Event, pod::Uid, service::Family};

/// What a timer does.
#[derive(Clone, Debug)]
pub(super) enum Timer {
    /// The StatefulSet controller compares the Pods with the StatefulSet.
    Set,
    /// The EndpointSlice controller compares the slices with the Pods.
    Slices(Family),
    /// A write of the EndpointSlice controller arrives.
    Write(Event),
    /// A Pod gets its addresses, and its process starts.
    Start(Uid),
    /// The process starts again. The number is that of the ended run.
    Restart(Uid, u32),
    Probe(Uid, u32),
    /// The kubelet of a Pod receives its deletion.
    End(Uid),
    /// The preStop hook is over.
    Stop(Uid, u32),
    /// The grace period is over.
    Kill(Uid, u32),
    /// The API server removes a Pod.
    Remove(Uid),
    /// A node has not reported for the grace period. The number is that of the outage.
    NodeSilent(String, u32),
    /// The Pods of a silent node are deleted.
    Evict(String, u32),
}

/// Pending timers.
#[derive(Default)]
pub(super) struct Timers {
    queue: BTreeMap<(Instant, u64), Timer>,
    sequence: u64,
}

impl Timers {
    pub(super) fn set(&mut self, at: Instant, timer: Timer) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), timer);
    }

    /// Returns the time of the first timer.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queue.keys().next().map(|(at, _)| *at)
    }

    /// Takes the first timer that is due.
    pub(super) fn take(&mut self, now: Instant) -> Option<(Instant, Timer)> {
        let entry = self.queue.first_entry().filter(|entry| entry.key().0 <= now)?;
        let ((at, _), timer) = entry.remove_entry();
        Some((at, timer))
    }
}
