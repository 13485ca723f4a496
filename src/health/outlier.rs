//! Detects Pods whose statements fail because of the server: too many in a row, or too large a share in a time window.
//!
//! Only errors that the server reports about itself count: insufficient resources, system errors and internal errors
//! (SQLSTATE classes 53, 58, F0 and XX). Other SQL errors are ordinary responses. A broken connection is hard evidence,
//! which [`state`](super::state) handles.
//!
//! The success rate is computed from time buckets. In a moving average, a burst of failures between two quiet periods
//! would have almost no weight.

use std::{collections::VecDeque, time::Duration};

use crate::time::Instant;

/// Number of buckets into which the window is divided.
const BUCKETS: u32 = 10;
/// Minimum number of statements in the window. With fewer, the success rate is ignored.
const MIN_STATEMENTS: u64 = 20;

/// The limits beyond which a Pod is an outlier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// Number of consecutive failures.
    pub(crate) consecutive: u32,
    /// Minimum share of statements that must succeed, from 0.0 to 1.0.
    pub(crate) success_rate: f64,
    /// Length of the window over which the success rate is computed.
    pub(crate) window: Duration,
}

/// The recent statements of one Pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outlier {
    /// The start of each bucket, its number of statements, and the number of failures among them. Oldest first.
    buckets: VecDeque<(Instant, u64, u64)>,
}

impl Outlier {
    /// Records the statements and failures since the last call. Returns true if the Pod is now an outlier.
    /// `consecutive` is the current number of consecutive failures.
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
