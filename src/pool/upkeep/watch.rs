//! Watches the traffic of the pooled connections between probes: triggers a probe if a Pod stops responding, and
//! reports Pods whose statements fail because of the server.

use std::collections::HashMap;

use crate::{
    config::Limits,
    endpoint::Role,
    health::outlier::{Outlier, Rule},
    pool::{
        inner::Inner,
        pod::{
            Pod,
            message::Message,
            open_connections::{Activity, Totals},
        },
    },
    time::{Duration, Instant},
};

/// A Pod that owes a response and sends nothing for this long is probed. The probe distinguishes a slow statement from
/// an unresponsive server, because a server that executes a slow statement still responds to probes.
pub(crate) const UNRESPONSIVE_AFTER: Duration = Duration::from_millis(250);

/// Detects that a Pod owes a response but sends nothing.
#[derive(Debug)]
pub(crate) struct UnresponsiveDetector {
    /// Number of socket reads when the Pod last made progress. Progress means that data was received or no response was
    /// outstanding.
    reads: u64,
    /// Time at which the Pod last made progress.
    since: Instant,
}

impl UnresponsiveDetector {
    pub(crate) fn new(now: Instant) -> Self {
        Self { reads: 0, since: now }
    }

    /// Returns true if the Pod has made no progress for [`UNRESPONSIVE_AFTER`]. `outstanding` is true if the Pod owes a
    /// response, and `reads` is the number of socket reads on its connections so far.
    pub(crate) fn observe(&mut self, outstanding: bool, reads: u64, now: Instant) -> bool {
        if !outstanding || reads != self.reads {
            *self = Self { reads, since: now };
        }
        now.saturating_duration_since(self.since) >= UNRESPONSIVE_AFTER
    }
}

/// The traffic state of each watched Pod, by the Pod's serial number.
#[derive(Debug, Default)]
pub(crate) struct Watch(HashMap<u64, PodWatch>);

#[derive(Debug)]
struct PodWatch {
    detector: UnresponsiveDetector,
    /// True if the detector reported the Pod as unresponsive at the last tick.
    unresponsive: bool,
    /// Number of statements up to the last tick.
    statements: u64,
    /// Number of statements up to the last tick that failed because of the server.
    failed: u64,
    outlier: Outlier,
}

impl Watch {
    /// Observes the traffic that every Pod had since the last tick.
    pub(crate) fn tick(&mut self, inner: &Inner, now: Instant) {
        let view = inner.published.load();
        if self.0.len() > view.health.len() {
            self.0.retain(|serial, _| view.pods().any(|(pod, _)| pod.serial == *serial));
        }
        for (pod, health) in view.pods() {
            let watched = self.0.entry(pod.serial).or_insert_with(|| PodWatch::new(now));
            let statements = watched.statements;
            watched.observe(pod, &inner.shared.limits, now);
            if health.role == Role::Primary && watched.statements != statements {
                inner.shared.wrote();
            }
        }
    }
}

impl PodWatch {
    fn new(now: Instant) -> Self {
        Self {
            detector: UnresponsiveDetector::new(now),
            unresponsive: false,
            statements: 0,
            failed: 0,
            outlier: Outlier::default(),
        }
    }

    fn observe(&mut self, pod: &Pod, limits: &Limits, now: Instant) {
        let Activity { outstanding, failure_run } = pod.connections.activity();
        let Totals { answered, failed, reads, .. } = pod.connections.totals();
        let before = std::mem::replace(&mut self.unresponsive, self.detector.observe(outstanding, reads, now));
        if self.unresponsive && !before {
            pod.server.probe_wanted.notify_one();
        }

        let new_statements = answered.saturating_sub(self.statements);
        let new_failed = failed.saturating_sub(self.failed);
        (self.statements, self.failed) = (answered, failed);
        if (new_statements, new_failed) == (0, 0) {
            return;
        }
        let rule = Rule {
            consecutive: limits.outlier_consecutive,
            success_rate: limits.outlier_success_rate,
            window: limits.outlier_window,
        };
        if self.outlier.record(&rule, new_statements, new_failed, failure_run, now) {
            self.outlier.clear();
            let cause =
                format!("too many statements fail because of the server (current run of failures: {failure_run})");
            pod.shared().send(Message::Outlier { pod: pod.serial, cause });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_unresponsive_only_if_a_response_is_owed_and_nothing_is_read() {
        let start = Instant::now();
        let mut detector = UnresponsiveDetector::new(start);
        assert!(!detector.observe(true, 7, start), "the read count has just changed");
        assert!(!detector.observe(true, 7, start + UNRESPONSIVE_AFTER / 2));
        assert!(detector.observe(true, 7, start + UNRESPONSIVE_AFTER));
        assert!(!detector.observe(true, 8, start + UNRESPONSIVE_AFTER), "a single read is progress");
        assert!(!detector.observe(false, 8, start + UNRESPONSIVE_AFTER * 9), "an idle Pod is not unresponsive");
        assert!(!detector.observe(true, 8, start + UNRESPONSIVE_AFTER * 9), "the timeout starts with the request");
        assert!(detector.observe(true, 8, start + UNRESPONSIVE_AFTER * 10));
    }
}
