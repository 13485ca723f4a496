//! Random variation of delays, so that many clients that wait for the same event do not act at the same moment.

use crate::{system::random, time::Duration};

/// Returns a random number from 0 to 1.
pub(crate) fn random() -> f64 {
    random::range(0.0..1.0)
}

/// Varies a duration by up to `fraction` of it in either direction. `unit` is a random number from 0 to 1.
pub(crate) fn jittered(duration: Duration, fraction: f64, unit: f64) -> Duration {
    duration.mul_f64(1.0 + fraction * (2.0 * unit - 1.0))
}
