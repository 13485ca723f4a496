//! Determines whether a standby is too far behind its primary.
//!
//! * **Lag in bytes**: the WAL position that the standby has replayed is compared with a WAL position of the primary.
//!   The primary's position was received before the standby was queried. Therefore WAL that the primary writes during
//!   the standby's query does not count as lag.
//! * **Lag in time**: the age of the WAL that the standby lacks, measured with the client's clock. A standby that has
//!   replayed the position that the primary had at some time lacks only what was written after that time; see [`age`].
//!   The clocks of the servers do not matter. The age counts only if the standby lacks WAL that is at least [`GRACE`]
//!   old. Without this condition, every standby would exceed the limit at the first commit after an idle hour.
//! * A standby that lags behind the oldest known position of the primary has an unknown age, for example when the pool
//!   has just started. Then the age of the last commit that the standby has replayed counts, by the servers' clocks.
//! * A standby without a WAL receiver is disconnected from its primary and does not receive further writes. While a
//!   primary serves, a disconnected standby is late (it exceeds the limit) if any limit is set.
//! * Without a serving primary, each standby keeps its last result, so that standbys stay in service when their primary
//!   fails. In addition, a standby becomes late if its lag in bytes behind the most advanced standby exceeds the limit,
//!   or if it has been disconnected for longer than the limit in time.

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

    /// Returns true if a standby may exceed the limit, according to the standby's last WAL position and newer positions
    /// of the primary. Because the primary's positions are newer, the standby may have caught up since. A result of
    /// true is therefore only a reason to query the standby again.
    pub(crate) fn may_be_exceeded(&self, standby: &Standby, primary: &[Reading]) -> bool {
        let Some(newest) = primary.last() else { return false };
        let lacks = newest.position.saturating_sub(standby.reading.position);
        let old = age(primary, standby, newest.received);
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
    /// The age of the last commit that the standby has replayed, by the servers' clocks. `None` if it has replayed
    /// none.
    pub(crate) replayed_ago: Option<Duration>,
    /// Time for which the standby has received nothing. Zero if it receives WAL.
    pub(crate) disconnected_for: Duration,
}

/// The lag of a standby.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Lag {
    /// The lag in bytes behind the primary. `None` before the first comparison with a primary.
    pub(crate) bytes: Option<u64>,
    /// The age of the standby's data. Zero if the standby has replayed everything that the primary is known to have
    /// written. `None` before the first comparison with a primary.
    pub(crate) time: Option<Duration>,
    /// True if the standby receives no WAL.
    pub(crate) disconnected: bool,
    /// True if the lag exceeds the limit.
    pub(crate) late: bool,
    /// True if no primary serves, and the standby has received no WAL for longer than the limit.
    pub(crate) upstream_lost: bool,
    /// Time after which the lag exceeds the limit if the standby replays nothing more. `None` if the standby is late
    /// already, or if it lacks only WAL that is newer than [`GRACE`].
    pub(crate) exceeds_in: Option<Duration>,
}

/// Estimates the age of a standby's data at the time `at`, from the positions of its primary, oldest first.
///
/// The data is younger than the last position that the standby has replayed, and older than the first one that it
/// lacks. Between the two, the estimate assumes that the primary wrote at a constant rate. The error is therefore at
/// most the time between two positions.
fn age(primary: &[Reading], standby: &Standby, at: Instant) -> Duration {
    let position = standby.reading.position;
    let Some(lacking) = primary.iter().position(|reading| reading.position > position) else { return Duration::ZERO };
    let after = primary[lacking];
    let Some(before) = lacking.checked_sub(1).map(|i| primary[i]) else {
        let known = at.saturating_duration_since(after.received);
        return standby.replayed_ago.map_or(known, |ago| ago.max(known));
    };
    let part = (position - before.position) as f64 / (after.position - before.position) as f64;
    let replayed = before.sent + after.received.saturating_duration_since(before.sent).mul_f64(part);
    at.saturating_duration_since(replayed)
}

/// Returns the latest time at which the standby's data is known to have been current: the time before which the primary
/// had written nothing that the standby lacks. In contrast to [`age`], this is no estimate.
pub(crate) fn current_as_of(primary: &[Reading], standby: &Standby) -> Option<Instant> {
    let replayed = primary.iter().filter(|reading| reading.position <= standby.reading.position);
    replayed.map(|reading| reading.sent).max()
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
        let upstream_lost = !standby.receiving && limit.time.is_some_and(|limit| standby.disconnected_for > limit);
        return Lag { late: before.late || over(gap), upstream_lost, exceeds_in: None, ..before };
    }
    // Returns the readings of the primary that were received at least `age` before the standby was queried.
    let sent = standby.reading.sent;
    let known = |age: Duration| &primary[..primary.partition_point(|primary| primary.received + age <= sent)];
    let [.., newest] = known(Duration::ZERO) else {
        return Lag { upstream_lost: false, exceeds_in: None, ..before };
    };
    let bytes = newest.position.saturating_sub(position);
    let time = age(known(Duration::ZERO), standby, sent);
    let lacks_old = match known(GRACE) {
        [.., earlier] => position < earlier.position,
        // No reading of the primary is old enough yet to apply the grace period. A late standby stays late until it has
        // caught up with the primary's newest reading.
        [] => before.late && position < newest.position,
    };
    let late_in_time = lacks_old && limit.time.is_some_and(|limit| time > limit);
    let disconnected = !standby.receiving;
    let late = limit.is_set() && (disconnected || over(bytes) || late_in_time);
    let exceeds_in = limit.time.filter(|_| lacks_old && !late).map(|limit| limit.saturating_sub(time));
    Lag { bytes: Some(bytes), time: Some(time), disconnected, late, upstream_lost: false, exceeds_in }
}

#[cfg(test)]
mod tests;
