//! Watches what the wire tells between two probes: Pods that have fallen silent, and Pods whose statements fail through
//! their own fault.

use std::collections::HashMap;

use crate::{
    config::Limits,
    health::outlier::{Outlier, Rule},
    pool::{
        inner::Inner,
        pod::{Pod, message::Message},
    },
    time::{Duration, Instant},
};

/// A Pod that was asked something and has sent no byte for this long is probed at once. A slow statement is answered to
/// by a passing probe; a hung server is not.
pub(crate) const SUSPICION: Duration = Duration::from_millis(250);

/// How long a Pod has owed an answer and sent nothing at all.
#[derive(Debug)]
pub(crate) struct Unresponsive {
    /// Reads that had brought something, and since when there has been no other.
    reads: u64,
    since: Instant,
}

impl Unresponsive {
    pub(crate) fn new(now: Instant) -> Self {
        Self { reads: 0, since: now }
    }

    /// Looks at a Pod, of whom so many reads had brought something by now. Whether its silence is suspicious.
    pub(crate) fn look(&mut self, outstanding: bool, reads: u64, now: Instant) -> bool {
        if !outstanding || reads != self.reads {
            *self = Self { reads, since: now };
        }
        now.saturating_duration_since(self.since) >= SUSPICION
    }
}

/// What is remembered of each Pod from one look to the next.
#[derive(Debug, Default)]
pub(crate) struct Watch(HashMap<u64, PodWatch>);

#[derive(Debug)]
struct PodWatch {
    silence: Unresponsive,
    suspected: bool,
    answered: u64,
    failed: u64,
    outlier: Outlier,
}

impl Watch {
    /// Looks at every Pod.
    pub(crate) fn tick(&mut self, inner: &Inner, now: Instant) {
        let view = inner.published.load();
        if self.0.len() > view.health.len() {
            self.0.retain(|serial, _| view.pods().any(|(pod, _)| pod.serial == *serial));
        }
        for (pod, _) in view.pods() {
            let watched = self.0.entry(pod.serial).or_insert_with(|| PodWatch::new(now));
            watched.look(pod, &inner.shared.limits, now);
        }
    }
}

impl PodWatch {
    fn new(now: Instant) -> Self {
        Self { silence: Unresponsive::new(now), suspected: false, answered: 0, failed: 0, outlier: Outlier::default() }
    }

    fn look(&mut self, pod: &Pod, limits: &Limits, now: Instant) {
        let (outstanding, run) = pod.under_way();
        let totals = pod.totals();
        let before = std::mem::replace(&mut self.suspected, self.silence.look(outstanding, totals.reads, now));
        if self.suspected && !before {
            pod.suspect.notify_one();
        }

        let more = (totals.work.statements.saturating_sub(self.answered), totals.failed.saturating_sub(self.failed));
        (self.answered, self.failed) = (totals.work.statements, totals.failed);
        if more == (0, 0) {
            return;
        }
        let rule = Rule {
            consecutive: limits.outlier_consecutive,
            success_rate: limits.outlier_success_rate,
            window: limits.outlier_window,
        };
        if self.outlier.count(&rule, more.0, more.1, run, now) {
            self.outlier.clear();
            let cause = format!("statements fail through the server's own fault, {run} in a row just now");
            pod.shared().tell(Message::Outlier { pod: pod.serial, cause });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_owes_an_answer_and_sends_nothing_is_suspicious() {
        let start = Instant::now();
        let mut silence = Unresponsive::new(start);
        assert!(!silence.look(true, 7, start), "it has just said something");
        assert!(!silence.look(true, 7, start + SUSPICION / 2));
        assert!(silence.look(true, 7, start + SUSPICION));
        assert!(!silence.look(true, 8, start + SUSPICION), "a byte of anything");
        assert!(!silence.look(false, 8, start + SUSPICION * 9), "nothing is asked");
        assert!(!silence.look(true, 8, start + SUSPICION * 9), "just asked");
        assert!(silence.look(true, 8, start + SUSPICION * 10));
    }
}
