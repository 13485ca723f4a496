//! Determines whether a standby is too far behind its primary.
//!
//! * **Lag in bytes**: the WAL position that the standby has replayed is compared with a WAL position of the primary.
//!   The primary's position was received before the standby was queried. Therefore WAL that the primary writes during
//!   the standby's query does not count as lag.
//! * **Lag in time**: the age of the last commit that the standby has replayed. The age counts only if the standby
//!   lacks WAL that is at least [`GRACE`] old. Without this condition, every standby would exceed the limit while the
//!   primary is idle, because the last commit keeps aging. The same would happen at the first commit after an idle
//!   hour.
//! * A standby without a WAL receiver is disconnected from its primary and does not receive further writes. While a
//!   primary serves, a disconnected standby is late (it exceeds the limit) if any limit is set.
//! * Without a serving primary, each standby keeps its last result, so that standbys stay in service when their primary
//!   fails. In addition, a standby becomes late if its lag in bytes behind the most advanced standby exceeds the limit.

use std::time::Duration;

use crate::time::Instant;

/// Minimum age of the missing WAL. If a standby lacks only WAL that is newer, its lag in time is ignored.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// The maximum lag of a standby.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Limit {
    pub(crate) bytes: Option<u64>,
    pub(crate) time: Option<Duration>,
}

impl Limit {
    /// Returns true if there is a limit in bytes or in time.
    pub(crate) fn is_set(&self) -> bool {
        self.bytes.is_some() || self.time.is_some()
    }

    /// Returns true if a standby may exceed the limit, according to the standby's last WAL position and a newer
    /// position of the primary. Because the primary's position is newer, the standby may have caught up since. A result
    /// of true is therefore only a reason to query the standby again.
    pub(crate) fn may_be_exceeded(&self, standby: &Standby, primary: &Reading) -> bool {
        let lacks = primary.position.saturating_sub(standby.reading.position);
        let old = standby.replayed_ago.unwrap_or_default();
        lacks > 0 && (self.bytes.is_some_and(|limit| lacks > limit) || self.time.is_some_and(|limit| old > limit))
    }
}

/// A WAL position that a server reported, with the times at which the query was sent and the response was received.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Reading {
    pub(crate) position: u64,
    /// Time at which the query was sent.
    pub(crate) sent: Instant,
    /// Time at which the response was received.
    pub(crate) received: Instant,
}

/// The replication state that a standby reported.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Standby {
    /// The last WAL position that the standby has replayed.
    pub(crate) reading: Reading,
    /// True if the standby receives WAL from another server.
    pub(crate) receiving: bool,
    /// The age of the last commit that the standby has replayed. `None` if it has replayed none.
    pub(crate) replayed_ago: Option<Duration>,
}

/// The lag of a standby.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Lag {
    /// The lag in bytes behind the primary. `None` before the first comparison with a primary.
    pub(crate) bytes: Option<u64>,
    /// True if the standby receives no WAL.
    pub(crate) disconnected: bool,
    /// True if the lag exceeds the limit.
    pub(crate) late: bool,
}

/// Returns the lag of a standby.
///
/// * `primary`: the last readings of the serving primary's WAL position, oldest first. Empty if no primary serves.
/// * `advanced`: the WAL position of the most advanced standby. Used only if no primary serves.
/// * `before`: the previous result for this standby.
pub(crate) fn judge(limit: Limit, standby: &Standby, primary: &[Reading], advanced: Option<u64>, before: Lag) -> Lag {
    let position = standby.reading.position;
    let over = |bytes: u64| limit.bytes.is_some_and(|limit| bytes > limit);
    if primary.is_empty() {
        let gap = advanced.map_or(0, |advanced| advanced.saturating_sub(position));
        return Lag { late: before.late || over(gap), ..before };
    }
    // Returns the newest reading of the primary that was received at least `age` before the standby was queried.
    let known = |age: Duration| primary.iter().rev().find(|primary| primary.received + age <= standby.reading.sent);
    let Some(newest) = known(Duration::ZERO) else { return before };
    let bytes = newest.position.saturating_sub(position);
    let old = standby.replayed_ago.unwrap_or(Duration::ZERO);
    let lacks_old = match known(GRACE) {
        Some(earlier) => position < earlier.position,
        // No reading of the primary is old enough yet to apply the grace period. A late standby stays late until it has
        // caught up with the primary's newest reading.
        None => before.late && position < newest.position,
    };
    let late_in_time = lacks_old && limit.time.is_some_and(|limit| old > limit);
    let disconnected = !standby.receiving;
    let late = limit.is_set() && (disconnected || over(bytes) || late_in_time);
    Lag { bytes: Some(bytes), disconnected, late }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LIMIT: Limit = Limit { bytes: Some(1000), time: Some(Duration::from_secs(10)) };

    fn standby(position: u64, sent: Instant, ago: u64) -> Standby {
        let reading = Reading { position, sent, received: sent };
        Standby { reading, receiving: true, replayed_ago: Some(Duration::from_secs(ago)) }
    }

    fn primary(position: u64, at: Instant) -> [Reading; 1] {
        [Reading { position, sent: at, received: at }]
    }

    #[test]
    fn exceeding_either_limit_makes_a_standby_late() {
        let read = Instant::now();
        let now = read + GRACE;
        let judge =
            |position, ago| judge(LIMIT, &standby(position, now, ago), &primary(5000, read), None, Lag::default());
        assert_eq!(judge(4500, 1), Lag { bytes: Some(500), disconnected: false, late: false });
        assert!(judge(3999, 1).late);
        assert!(judge(4999, 11).late);
    }

    #[test]
    fn standbys_of_an_idle_primary_are_not_late() {
        let now = Instant::now();
        let lag = judge(LIMIT, &standby(5000, now, 86_400), &primary(5000, now), None, Lag::default());
        assert_eq!(lag, Lag { bytes: Some(0), disconnected: false, late: false });
        // The first commit after an idle day is on its way to the standby.
        let lag = judge(LIMIT, &standby(5000, now, 86_400), &primary(5100, now), None, Lag::default());
        assert_eq!(lag, Lag { bytes: Some(100), disconnected: false, late: false });
    }

    #[test]
    fn ignores_primary_readings_newer_than_the_query() {
        let now = Instant::now();
        let before = Lag { bytes: Some(3), ..Lag::default() };
        let lag = judge(LIMIT, &standby(0, now, 0), &primary(1 << 40, now + SECOND), None, before);
        assert_eq!(lag, before);
    }

    #[test]
    fn a_disconnected_standby_is_late_while_a_primary_serves() {
        let now = Instant::now();
        let disconnected = Standby { receiving: false, ..standby(5000, now, 0) };
        assert!(judge(LIMIT, &disconnected, &primary(5000, now), None, Lag::default()).late);
        assert!(!judge(LIMIT, &disconnected, &[], Some(5000), Lag::default()).late);
        let unlimited = judge(Limit::default(), &disconnected, &primary(5000, now), None, Lag::default());
        assert!(unlimited.disconnected && !unlimited.late);
    }

    #[test]
    fn a_late_standby_stays_late_until_it_has_caught_up() {
        let now = Instant::now();
        let late = Lag { late: true, ..Lag::default() };
        assert!(judge(LIMIT, &standby(4900, now, 11), &primary(5000, now), None, late).late);
        assert!(!judge(LIMIT, &standby(5000, now, 11), &primary(5000, now), None, late).late);
    }

    #[test]
    fn only_a_standby_that_lacks_wal_may_exceed_the_limit() {
        let now = Instant::now();
        let exceeded = |position, ago| LIMIT.may_be_exceeded(&standby(position, now, ago), &primary(5000, now)[0]);
        assert!(!exceeded(5000, 86_400) && !exceeded(4500, 1));
        assert!(exceeded(4999, 11) && exceeded(3999, 1));
        assert!(!Limit::default().may_be_exceeded(&standby(0, now, 99), &primary(5000, now)[0]));
    }

    #[test]
    fn without_a_primary_lag_is_relative_to_the_newest_standby() {
        let now = Instant::now();
        let late = Lag { bytes: Some(9999), disconnected: false, late: true };
        assert_eq!(judge(LIMIT, &standby(4000, now, 99), &[], Some(4500), late), late);
        assert!(!judge(LIMIT, &standby(4000, now, 99), &[], Some(4500), Lag::default()).late);
        assert!(judge(LIMIT, &standby(4000, now, 99), &[], Some(5001), Lag::default()).late);
    }
}
