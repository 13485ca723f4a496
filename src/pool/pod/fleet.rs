//! Limits on the load that all clients of a fleet together put on one server. The clients do not coordinate: each one
//! derives its intervals from the configured number of clients (`clients`), and jitter spreads the clients over time.

use super::jitter::jittered;
use crate::time::Duration;

/// Maximum number of clients that probe a Pod and redial a lost server without regard to each other.
const SMALL_FLEET: usize = 20;
/// Maximum average number of Syncs per second that all clients together send to one Pod during urgent probing. Low
/// enough that the peaks, which depend on chance, stay below 500.
const SYNCS_PER_SECOND: f64 = 480.0;
/// Maximum average number of times per second that all clients together dial a Pod that they have lost or are looking
/// for. Low enough that the peaks stay below 200.
const DIALS_PER_SECOND: f64 = 160.0;
/// Fraction by which jitter lengthens an interval of a fleet at most. An interval is never shortened, because two
/// events of one client within the interval would exceed the limit.
const SPREAD: f64 = 0.25;
/// Jitter of an interval that is longer than the fleet's, as a fraction in either direction.
const JITTER: f64 = 0.2;

/// The number of clients with the same configuration.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fleet {
    /// Zero if the number is unknown or small.
    clients: f64,
}

impl Fleet {
    pub(crate) fn new(clients: Option<usize>) -> Self {
        Self { clients: clients.filter(|clients| *clients > SMALL_FLEET).unwrap_or(0) as f64 }
    }

    /// Returns the minimum interval between two Syncs to one Pod during urgent probing.
    pub(crate) fn sync_interval(self) -> Duration {
        Duration::from_secs_f64(self.clients / SYNCS_PER_SECOND)
    }

    /// Returns the minimum interval between two dials of one Pod that does not serve.
    pub(crate) fn dial_interval(self) -> Duration {
        Duration::from_secs_f64(self.clients / DIALS_PER_SECOND)
    }

    /// Returns the delay before the first dial of a server that other clients may have lost, or found, at the same
    /// moment. `unit` is a random number from 0 to 1.
    pub(crate) fn first_dial_delay(self, unit: f64) -> Duration {
        self.dial_interval().mul_f64(unit)
    }

    /// Returns `interval`, or [`dial_interval`](Self::dial_interval) if that is longer, with jitter.
    pub(crate) fn until_next_dial(self, interval: Duration, unit: f64) -> Duration {
        jittered(interval, JITTER, unit).max(lengthened(self.dial_interval(), unit))
    }
}

/// Lengthens an interval by up to a quarter. `unit` is a random number from 0 to 1.
pub(crate) fn lengthened(interval: Duration, unit: f64) -> Duration {
    interval.mul_f64(1.0 + SPREAD * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_grow_with_the_number_of_clients() {
        for clients in [None, Some(1), Some(SMALL_FLEET)] {
            let fleet = Fleet::new(clients);
            assert_eq!(fleet.sync_interval(), Duration::ZERO, "{clients:?}");
            assert_eq!(fleet.first_dial_delay(1.0), Duration::ZERO, "{clients:?}");
            assert_eq!(fleet.until_next_dial(Duration::from_secs(1), 0.5), Duration::from_secs(1), "{clients:?}");
        }
        for clients in [21.0, 500.0, 10_000.0] {
            let fleet = Fleet::new(Some(clients as usize));
            assert!(clients / fleet.sync_interval().as_secs_f64() < 500.0, "{clients}");
            assert!(clients / fleet.dial_interval().as_secs_f64() < 200.0, "{clients}");
        }
        let fleet = Fleet::new(Some(500));
        assert!(lengthened(fleet.sync_interval(), 1.0) < Duration::from_millis(1500), "resume after a promotion");
        assert!(fleet.until_next_dial(Duration::ZERO, 1.0) < Duration::from_secs(4), "resume after a restart");
    }
}
