//! Detects outliers: Pods on which too many statements fail through a fault of the server. A Pod is an outlier if too
//! many statements fail in a row, or if the success rate within a time window is too low.
//!
//! Only errors that the server reports about itself count: insufficient resources, system errors and internal errors
//! (SQLSTATE classes 53, 58, F0 and XX). All other SQL errors, such as constraint violations, count as successful
//! responses. A broken connection ejects its Pod immediately; [`state`](super::state) handles this case.
//!
//! The success rate is computed from time buckets. An exponential moving average is unsuitable, because a burst of
//! failures between two quiet periods would have almost no weight in it.

use std::{collections::VecDeque, time::Duration};

use crate::time::Instant;

/// Number of buckets into which the window is divided.
const BUCKETS: u32 = 10;
/// Minimum number of statements in the window. If there are fewer statements, the success rate is ignored.
const MIN_STATEMENTS: u64 = 20;

/// The limits beyond which a Pod is an outlier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// Number of consecutive failures that make a Pod an outlier.
    pub(crate) consecutive: u32,
    /// Minimum share of the window's statements that must succeed, from 0.0 to 1.0.
    pub(crate) success_rate: f64,
    /// Length of the window over which the success rate is computed.
    pub(crate) window: Duration,
}

/// The recent statements of one Pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outlier {
    /// The buckets, oldest first: the start time, the number of statements, and the number of failed statements.
    buckets: VecDeque<(Instant, u64, u64)>,
}

impl Outlier {
    /// Records the number of statements and of failed statements since the last call. Returns true if the Pod is an
    /// outlier now. `consecutive` is the number of consecutive failures up to the last statement.
    pub(crate) fn record(
        &mut self,
        rule: &Rule,
        statements: u64,
        failures: u64,
        consecutive: u32,
        now: Instant,
    ) -> bool {
        let bucket = rule.window / BUCKETS;
        while self.buckets.front().is_some_and(|(began, ..)| now.saturating_duration_since(*began) > rule.window) {
            self.buckets.pop_front();
        }
        match self.buckets.back_mut() {
            Some((began, all, failed)) if now.saturating_duration_since(*began) < bucket => {
                *all += statements;
                *failed += failures;
            }
            _ => self.buckets.push_back((now, statements, failures)),
        }
        let (all, failed) = self.buckets.iter().fold((0, 0), |(a, f), (_, all, failed)| (a + all, f + failed));
        let rate = 1.0 - failed as f64 / all.max(1) as f64;
        consecutive >= rule.consecutive || all >= MIN_STATEMENTS && rate < rule.success_rate
    }

    /// Discards all records, so that an ejected Pod starts without a history when it returns.
    pub(crate) fn clear(&mut self) {
        self.buckets.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { consecutive: 5, success_rate: 0.8, window: Duration::from_secs(30) };

    #[test]
    fn consecutive_failures_make_a_pod_an_outlier() {
        let mut outlier = Outlier::default();
        let now = Instant::now();
        assert!(!outlier.record(&RULE, 4, 4, 4, now));
        assert!(outlier.record(&RULE, 1, 1, 5, now));
    }

    #[test]
    fn a_low_success_rate_counts_only_with_enough_statements() {
        let mut outlier = Outlier::default();
        let now = Instant::now();
        assert!(!outlier.record(&RULE, 10, 3, 1, now), "too few statements");
        assert!(!outlier.record(&RULE, 90, 17, 1, now), "20 failures among 100 statements are allowed");
        assert!(outlier.record(&RULE, 1, 1, 1, now));
    }

    #[test]
    fn failures_older_than_the_window_do_not_count() {
        let mut outlier = Outlier::default();
        let now = Instant::now();
        assert!(outlier.record(&RULE, 100, 50, 1, now));
        assert!(!outlier.record(&RULE, 100, 0, 0, now + Duration::from_secs(31)));
    }
}
