//! Watches what the wire tells between two probes: Pods that have fallen silent, and Pods whose statements fail through
//! their own fault.

use std::collections::HashMap;

use super::{inner::Inner, message::Message, pod::Pod};
use crate::{
    config::Limits,
    health::outlier::{Outlier, Rule},
    time::{Duration, Instant},
};

/// A Pod that was asked something and has sent no byte for this long is probed at once. A slow statement is answered to
/// by a passing probe; a hung server is not.
pub(crate) const SUSPICION: Duration = Duration::from_millis(250);

/// What is remembered of each Pod from one look to the next.
#[derive(Debug, Default)]
pub(crate) struct Watch(HashMap<u64, Watched>);

#[derive(Debug)]
struct Watched {
    /// Reads that had brought something, and since when there has been no other.
    heard: u64,
    quiet_since: Instant,
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
            let watched = self.0.entry(pod.serial).or_insert_with(|| Watched::new(now));
            watched.look(pod, &inner.common.limits, now);
        }
    }
}

impl Watched {
    fn new(now: Instant) -> Self {
        Self { heard: 0, quiet_since: now, suspected: false, answered: 0, failed: 0, outlier: Outlier::default() }
    }

    fn look(&mut self, pod: &Pod, limits: &Limits, now: Instant) {
        let (outstanding, run) = pod.under_way();
        let totals = pod.totals();
        let heard = totals.heard;
        if !outstanding || heard != self.heard {
            (self.heard, self.quiet_since, self.suspected) = (heard, now, false);
        } else if !self.suspected && now.saturating_duration_since(self.quiet_since) >= SUSPICION {
            self.suspected = true;
            pod.suspect.notify_one();
        }

        let more = (totals.answered.saturating_sub(self.answered), totals.failed.saturating_sub(self.failed));
        (self.answered, self.failed) = (totals.answered, totals.failed);
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
            pod.common().tell(Message::Outlier { pod: pod.serial, cause });
        }
    }
}
