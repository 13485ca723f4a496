//! Urgent probing: short intervals between the checks of all Pods while a caller waits and no Pod can serve the role
//! that the caller requested.

use tokio::sync::{Notify, futures::Notified};

use super::fleet::{Fleet, lengthened};
use crate::{
    sync::{Mutex, lock},
    time::{Duration, Instant},
};

/// Interval between two checks of each Pod during the first [`FAST_FOR`] of urgent probing.
pub(crate) const FAST: Duration = Duration::from_millis(50);
/// Interval after [`FAST_FOR`]. With the jitter, at most 100 ms.
pub(crate) const SLOWER: Duration = Duration::from_millis(80);
/// Time after which the interval grows from [`FAST`] to [`SLOWER`].
pub(crate) const FAST_FOR: Duration = Duration::from_secs(5);

/// The next check of a Pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Check {
    /// A Sync or a probe on an open connection.
    OnConnection,
    /// A probe that opens a connection.
    Dial,
    /// A probe that opens a connection after a failed one.
    Redial,
}

/// The state of urgent probing, shared by the openers and all probers.
#[derive(Debug)]
pub(crate) struct UrgentProbing {
    fleet: Fleet,
    state: Mutex<State>,
    began: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Start of the current period of urgent probing.
    since: Option<Instant>,
    /// The numbers of the pools that need it.
    pools: Vec<u64>,
}

impl UrgentProbing {
    pub(crate) fn new(fleet: Fleet) -> Self {
        Self { fleet, state: Mutex::default(), began: Notify::new() }
    }

    /// Starts or ends the need of one pool for urgent probing. `needed` is true while a caller of the pool waits and no
    /// Pod can serve the role that it requested.
    pub(crate) fn set(&self, pool: u64, needed: bool, now: Instant) {
        let begins = {
            let State { since, pools } = &mut *lock(&self.state);
            pools.retain(|other| *other != pool);
            if needed {
                pools.push(pool);
            }
            let begins = needed && since.is_none();
            *since = if pools.is_empty() { None } else { since.or(Some(now)) };
            begins
        };
        if begins {
            self.began.notify_waiters();
        }
    }

    /// Returns the time of the next check of a Pod whose last check was at `last`, or `None` if urgent probing is off.
    /// `unit` is a random number from 0 to 1.
    ///
    /// The first check of a period comes after a random part of the interval, because other clients may have lost the
    /// same Pod at the same moment. A Pod that was dialed in vain is not dialed earlier because of that.
    pub(crate) fn next_check(&self, last: Instant, now: Instant, check: Check, unit: f64) -> Option<Instant> {
        let since = lock(&self.state).since?;
        let interval = if now < since + FAST_FOR { FAST } else { SLOWER };
        let interval = interval.max(match check {
            Check::OnConnection => self.fleet.sync_interval(),
            Check::Dial | Check::Redial => self.fleet.dial_interval(),
        });
        let is_first = last < since && check != Check::Redial;
        Some(if is_first { since + interval.mul_f64(unit) } else { last + lengthened(interval, unit) })
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
    fn checks_fast_then_slower_until_no_longer_needed() {
        let urgent_probing = UrgentProbing::new(Fleet::new(None));
        let now = Instant::now();
        let next = |last: Instant, now, unit| urgent_probing.next_check(last, now, Check::OnConnection, unit);
        assert_eq!(next(now, now, 0.5), None);
        urgent_probing.set(1, true, now);
        urgent_probing.set(1, true, now + FAST_FOR);
        assert_eq!(next(now, now, 0.0), Some(now + FAST));
        assert_eq!(next(now, now, 1.0), Some(now + FAST.mul_f64(1.25)));
        let later = now + FAST_FOR;
        assert_eq!(next(later, later, 0.0), Some(later + SLOWER));
        assert!(next(later, later, 1.0) <= Some(later + Duration::from_millis(100)));
        urgent_probing.set(2, true, later);
        urgent_probing.set(1, false, later);
        assert_eq!(next(later, later, 0.0), Some(later + SLOWER), "another pool needs it");
        urgent_probing.set(2, false, later);
        assert_eq!(next(later, later, 0.5), None);
    }

    #[test]
    fn the_first_check_comes_after_a_random_part_of_the_interval() {
        let urgent_probing = UrgentProbing::new(Fleet::new(Some(480)));
        let now = Instant::now() + Duration::from_secs(10);
        urgent_probing.set(1, true, now);
        let last = now - Duration::from_secs(3);
        for unit in [0.0, 0.3, 1.0] {
            let next = urgent_probing.next_check(last, now, Check::OnConnection, unit);
            assert_eq!(next, Some(now + Duration::from_secs(1).mul_f64(unit)));
        }
        let redial = urgent_probing.next_check(now - Duration::from_millis(10), now, Check::Redial, 0.0);
        assert!(redial > Some(now + Duration::from_secs(2)), "the dial interval has not passed");
    }
}
