//! Repeated trials of a fault: their number, and the comparison of their times with a limit.

use std::{env, ops::RangeInclusive, time::Duration};

use super::paced::Spread;

/// Returns the number of trials: `PODPOOL_TRIALS`, or the argument if the variable is not set.
pub fn count(default: usize) -> usize {
    env::var("PODPOOL_TRIALS").map_or(default, |trials| trials.parse().expect("PODPOOL_TRIALS is a number"))
}

/// Returns the number of pools that observe each fault: up to five. Each is a trial, because it has its own lookups.
pub fn observers() -> usize {
    count(1).clamp(1, 5)
}

/// Returns the number of faults for the number of trials.
pub fn faults() -> usize {
    count(1).div_ceil(observers())
}

/// Prints the times of a scenario, and asserts that they are within the limit: the 95th percentile of at least twenty
/// trials within `limit`, fewer trials within twice `limit`.
pub fn assert_within(limit: Duration, scenario: &str, times: Vec<Duration>) {
    let times = Spread::new(times);
    println!("{scenario}: {times} in {} trials (p95 {:.1?}, limit {limit:?})", times.len(), times.at(0.95));
    let limit = if times.len() < 20 { limit * 2 } else { limit };
    assert!(times.at(0.95) <= limit, "{scenario}: {times}, limit {limit:?}");
}

/// Prints the shares of a scenario, and asserts that they are within the range: at least 95 % of twenty or more trials,
/// all of fewer trials.
pub fn assert_shares(range: RangeInclusive<f64>, scenario: &str, shares: &[f64]) {
    let outside = shares.iter().filter(|share| !range.contains(share)).count();
    println!("{scenario}: {shares:.3?} in {} trials, {outside} outside {range:?}", shares.len());
    let allowed = if shares.len() < 20 { 0 } else { shares.len() / 20 };
    assert!(outside <= allowed, "{scenario}: {shares:.3?}, range {range:?}");
}
