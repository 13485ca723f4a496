//! Detects a Pod whose statements fail because of the server: too many in a row, or too large a part of a window. Pure.
//!
//! Only errors that the server reports about itself count: insufficient resources, system errors and internal errors
//! (SQLSTATE classes 53, 58, F0 and XX). Other errors of a statement are ordinary responses, and a broken connection is
//! hard evidence, which [`state`](super::state) handles.
//!
//! The rate is counted in buckets of time. In a moving average, a burst between two quiet periods would have almost no
//! weight.

use std::{collections::VecDeque, time::Duration};

use crate::time::Instant;

/// Buckets in a window.
const BUCKETS: u32 = 10;
/// The minimum number of statements in a window for the success rate to count.
const MIN_STATEMENTS: u64 = 20;

/// The limits beyond which a Pod is an outlier.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// Failures in a row.
    pub(crate) consecutive: u32,
    /// The minimum part of statements that succeed, from 0.0 to 1.0.
    pub(crate) success_rate: f64,
    /// The period over which the success rate is computed.
    pub(crate) window: Duration,
}

/// The recent statements of one Pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outlier {
    /// The start of each bucket, its statements, and the failures among them. Oldest first.
    buckets: VecDeque<(Instant, u64, u64)>,
}

impl Outlier {
    /// Records the statements and failures since the last call. Returns true if the Pod is now an outlier.
    /// `consecutive` is the current number of failures in a row.
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
    fn five_failures_in_a_row_are_enough() {
        let mut outlier = Outlier::default();
        let now = Instant::now();
        assert!(!outlier.record(&RULE, 4, 4, 4, now));
        assert!(outlier.record(&RULE, 1, 1, 5, now));
    }

    #[test]
    fn more_than_a_fifth_of_at_least_twenty_statements_is_too_many() {
        let mut outlier = Outlier::default();
        let now = Instant::now();
        assert!(!outlier.record(&RULE, 10, 3, 1, now), "too few statements");
        assert!(!outlier.record(&RULE, 90, 17, 1, now), "20 failures of 100");
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
