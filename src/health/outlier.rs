//! Statements that fail through the server's own fault: in a row, or too many of those lately. Pure.
//!
//! Only what the server says of itself counts (no resources, a system or an internal error: SQLSTATE classes 53, 58, F0,
//! XX): a statement's own error is an answer, and a connection that breaks is evidence by itself. Counted in buckets of
//! time, not in a moving average, because a burst between two quiet times would weigh next to nothing in one.

use std::{collections::VecDeque, time::Duration};

use crate::time::Instant;

/// Buckets in a window.
const BUCKETS: u32 = 10;
/// Fewer answers than this in a window say nothing.
const ENOUGH: u64 = 20;

/// The limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    pub(crate) consecutive: u32,
    pub(crate) success_rate: f64,
    pub(crate) window: Duration,
}

/// One Pod's statements lately.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outlier {
    /// When a bucket began, its answers, and how many of them were failures.
    buckets: VecDeque<(Instant, u64, u64)>,
}

impl Outlier {
    /// Takes in answers and failures since the last time, and the present run of failures. Whether the Pod is an
    /// outlier now.
    pub(crate) fn count(&mut self, rule: &Rule, answers: u64, failures: u64, run: u32, now: Instant) -> bool {
        let bucket = rule.window / BUCKETS;
        while self.buckets.front().is_some_and(|(began, ..)| now.saturating_duration_since(*began) > rule.window) {
            self.buckets.pop_front();
        }
        match self.buckets.back_mut() {
            Some((began, all, failed)) if now.saturating_duration_since(*began) < bucket => {
                *all += answers;
                *failed += failures;
            }
            _ => self.buckets.push_back((now, answers, failures)),
        }
        let (all, failed) = self.buckets.iter().fold((0, 0), |(a, f), (_, all, failed)| (a + all, f + failed));
        let rate = 1.0 - failed as f64 / all.max(1) as f64;
        run >= rule.consecutive || all >= ENOUGH && rate < rule.success_rate
    }

    /// Forgets everything: the Pod is out, and begins anew when it returns.
    pub(crate) fn clear(&mut self) {
        self.buckets.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { consecutive: 5, success_rate: 0.8, window: Duration::from_secs(30) };

    #[test]
    fn five_in_a_row_are_enough() {
        let mut outlier = Outlier::default();
        let now = Instant::now();
        assert!(!outlier.count(&RULE, 4, 4, 4, now));
        assert!(outlier.count(&RULE, 1, 1, 5, now));
    }

    #[test]
    fn more_than_a_fifth_of_enough_answers_is_too_many() {
        let mut outlier = Outlier::default();
        let now = Instant::now();
        assert!(!outlier.count(&RULE, 10, 3, 1, now), "too few to tell");
        assert!(!outlier.count(&RULE, 90, 17, 1, now), "20 of 100");
        assert!(outlier.count(&RULE, 1, 1, 1, now));
    }

    #[test]
    fn what_is_older_than_the_window_counts_no_more() {
        let mut outlier = Outlier::default();
        let now = Instant::now();
        assert!(outlier.count(&RULE, 100, 50, 1, now));
        assert!(!outlier.count(&RULE, 100, 0, 0, now + Duration::from_secs(31)));
    }
}
