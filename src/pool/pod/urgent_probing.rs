//! Urgent probing: short probe intervals for all Pods while a caller waits and no Pod can serve the role that the
//! caller requested.

use tokio::sync::{Notify, futures::Notified};

use super::jitter::jittered;
use crate::{
    sync::{Mutex, lock},
    time::{Duration, Instant},
};

/// Probe interval of each Pod during the first [`FAST_FOR`] of urgent probing.
pub(crate) const FAST: Duration = Duration::from_millis(50);
/// Probe interval of each Pod after [`FAST_FOR`].
pub(crate) const SLOWER: Duration = Duration::from_millis(250);
/// Time after which the probe interval grows from [`FAST`] to [`SLOWER`].
pub(crate) const FAST_FOR: Duration = Duration::from_secs(5);

/// Jitter of a probe interval, as a fraction in either direction.
const JITTER: f64 = 0.2;

/// The state of urgent probing, shared by the opener and all probers.
#[derive(Debug, Default)]
pub(crate) struct UrgentProbing {
    /// Start of the current period of urgent probing.
    since: Mutex<Option<Instant>>,
    began: Notify,
}

impl UrgentProbing {
    /// Starts or ends urgent probing. `needed` is true while a caller waits and no Pod can serve the role that it
    /// requested.
    pub(crate) fn set(&self, needed: bool, now: Instant) {
        let begins = {
            let mut since = lock(&self.since);
            let begins = needed && since.is_none();
            *since = if needed { since.or(Some(now)) } else { None };
            begins
        };
        if begins {
            self.began.notify_waiters();
        }
    }

    /// Returns the current probe interval, or `None` if urgent probing is off. `unit` is a random number from 0 to 1
    /// for the jitter, which spreads the probes of many clients over time.
    pub(crate) fn interval(&self, now: Instant, unit: f64) -> Option<Duration> {
        let since = (*lock(&self.since))?;
        let interval = if now < since + FAST_FOR { FAST } else { SLOWER };
        Some(jittered(interval, JITTER, unit))
    }

    /// Waits for the next start of urgent probing. Cancel-safe.
    pub(crate) fn began(&self) -> Notified<'_> {
        self.began.notified()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_fast_then_slower_until_no_longer_needed() {
        let urgent_probing = UrgentProbing::default();
        let now = Instant::now();
        assert_eq!(urgent_probing.interval(now, 0.5), None);
        urgent_probing.set(true, now);
        urgent_probing.set(true, now + FAST_FOR);
        assert_eq!(urgent_probing.interval(now, 0.5), Some(FAST));
        assert_eq!(urgent_probing.interval(now, 0.0), Some(FAST.mul_f64(0.8)));
        assert_eq!(urgent_probing.interval(now + FAST_FOR, 0.5), Some(SLOWER));
        urgent_probing.set(false, now);
        assert_eq!(urgent_probing.interval(now, 0.5), None);
    }
}
