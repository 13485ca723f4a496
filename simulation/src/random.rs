//! Random values that several parts of the world draw.

use std::{ops::RangeInclusive, time::Duration};

/// Returns a random duration in `range`, both ends included, in whole microseconds.
pub(crate) fn uniform(random: &mut fastrand::Rng, range: &RangeInclusive<Duration>) -> Duration {
    let micros = |duration: &Duration| duration.as_micros() as u64;
    Duration::from_micros(random.u64(micros(range.start())..=micros(range.end())))
}
