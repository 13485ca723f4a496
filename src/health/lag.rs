//! How far a standby is behind, and whether that is too far. Pure.
//!
//! A position is compared only with a primary's that was read before it, so a standby is never called late for what
//! was written while it was asked. In time it is as late as its last replayed commit is old, but only if it has not
//! replayed what its primary had written a while before: an idle primary makes nobody late, and neither does the first
//! commit after an idle hour.
//!
//! A standby that nobody sends to is infinitely late while a primary serves, whatever it has replayed: it will not hear
//! of the next write. Without a primary the last judgement stands, and a standby that falls behind the most advanced
//! one is judged by that gap: a dead primary does not take its standbys out.

use std::time::Duration;

use crate::time::Instant;

/// How old what a standby lacks has to be, before its last commit's age is held against it.
pub(crate) const GRACE: Duration = Duration::from_secs(1);

/// How late a standby may be.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Limit {
    pub(crate) bytes: Option<u64>,
    pub(crate) time: Option<Duration>,
}

impl Limit {
    /// Whether there is one at all.
    pub(crate) fn is_set(&self) -> bool {
        self.bytes.is_some() || self.time.is_some()
    }

    /// Whether a standby that said this before the primary had come so far may be too far behind by now: it is worth
    /// asking again.
    pub(crate) fn may_be_passed(&self, standby: &Standby, primary: &Reading) -> bool {
        let lacks = primary.position.saturating_sub(standby.reading.position);
        let old = standby.replayed_ago.unwrap_or_default();
        lacks > 0 && (self.bytes.is_some_and(|limit| lacks > limit) || self.time.is_some_and(|limit| old > limit))
    }
}

/// A position, and when it was read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Reading {
    pub(crate) position: u64,
    /// When the question was sent.
    pub(crate) asked: Instant,
    /// When the answer came.
    pub(crate) at: Instant,
}

/// What a standby said.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Standby {
    pub(crate) reading: Reading,
    pub(crate) receiving: bool,
    pub(crate) replayed_ago: Option<Duration>,
}

/// How far behind a standby is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Lag {
    /// Bytes behind, as far as is known.
    pub(crate) bytes: Option<u64>,
    /// Nobody sends to it.
    pub(crate) cut_off: bool,
    /// Too far for the limit.
    pub(crate) late: bool,
}

/// Judges a standby. `primary`: the last readings of the primary that serves, newest last; none without one. `advanced`: the most advanced standby's
/// position, while no primary serves. `before`: the last judgement.
pub(crate) fn judge(limit: Limit, standby: &Standby, primary: &[Reading], advanced: Option<u64>, before: Lag) -> Lag {
    let position = standby.reading.position;
    let over = |bytes: u64| limit.bytes.is_some_and(|limit| bytes > limit);
    if primary.is_empty() {
        let gap = advanced.map_or(0, |advanced| advanced.saturating_sub(position));
        return Lag { late: before.late || over(gap), ..before };
    }
    // Answered before the standby was asked: what the standby says then is comparable.
    let known = |age: Duration| primary.iter().rev().find(|primary| primary.at + age <= standby.reading.asked);
    let Some(newest) = known(Duration::ZERO) else { return before };
    let bytes = newest.position.saturating_sub(position);
    let old = standby.replayed_ago.unwrap_or(Duration::ZERO);
    let lacks_old = match known(GRACE) {
        Some(earlier) => position < earlier.position,
        // Nothing is that old yet: the last judgement stands for one that still lacks something.
        None => before.late && position < newest.position,
    };
    let late_in_time = lacks_old && limit.time.is_some_and(|limit| old > limit);
    let cut_off = !standby.receiving;
    let late = limit.is_set() && (cut_off || over(bytes) || late_in_time);
    Lag { bytes: Some(bytes), cut_off, late }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LIMIT: Limit = Limit { bytes: Some(1000), time: Some(Duration::from_secs(10)) };

    fn standby(position: u64, asked: Instant, ago: u64) -> Standby {
        let reading = Reading { position, asked, at: asked };
        Standby { reading, receiving: true, replayed_ago: Some(Duration::from_secs(ago)) }
    }

    fn primary(position: u64, at: Instant) -> [Reading; 1] {
        [Reading { position, asked: at, at }]
    }

    #[test]
    fn too_many_bytes_or_too_old_is_late() {
        let read = Instant::now();
        let now = read + GRACE;
        let judge =
            |position, ago| judge(LIMIT, &standby(position, now, ago), &primary(5000, read), None, Lag::default());
        assert_eq!(judge(4500, 1), Lag { bytes: Some(500), cut_off: false, late: false });
        assert!(judge(3999, 1).late);
        assert!(judge(4999, 11).late);
    }

    #[test]
    fn an_idle_primary_makes_nobody_late() {
        let now = Instant::now();
        let lag = judge(LIMIT, &standby(5000, now, 86_400), &primary(5000, now), None, Lag::default());
        assert_eq!(lag, Lag { bytes: Some(0), cut_off: false, late: false });
        // The first commit after an idle day, on its way to the standby.
        let lag = judge(LIMIT, &standby(5000, now, 86_400), &primary(5100, now), None, Lag::default());
        assert_eq!(lag, Lag { bytes: Some(100), cut_off: false, late: false });
    }

    #[test]
    fn a_position_is_compared_only_with_one_read_before_it() {
        let now = Instant::now();
        let before = Lag { bytes: Some(3), ..Lag::default() };
        let lag = judge(LIMIT, &standby(0, now, 0), &primary(1 << 40, now + SECOND), None, before);
        assert_eq!(lag, before);
    }

    #[test]
    fn a_standby_that_nobody_sends_to_is_late_while_a_primary_serves() {
        let now = Instant::now();
        let cut_off = Standby { receiving: false, ..standby(5000, now, 0) };
        assert!(judge(LIMIT, &cut_off, &primary(5000, now), None, Lag::default()).late);
        assert!(!judge(LIMIT, &cut_off, &[], Some(5000), Lag::default()).late);
        let unlimited = judge(Limit::default(), &cut_off, &primary(5000, now), None, Lag::default());
        assert!(unlimited.cut_off && !unlimited.late);
    }

    #[test]
    fn one_that_was_late_stays_so_until_enough_is_known_of_a_new_primary() {
        let now = Instant::now();
        let late = Lag { late: true, ..Lag::default() };
        assert!(judge(LIMIT, &standby(4900, now, 11), &primary(5000, now), None, late).late);
        assert!(!judge(LIMIT, &standby(5000, now, 11), &primary(5000, now), None, late).late);
    }

    #[test]
    fn only_one_that_lacks_something_is_worth_a_second_look() {
        let now = Instant::now();
        let passed = |position, ago| LIMIT.may_be_passed(&standby(position, now, ago), &primary(5000, now)[0]);
        assert!(!passed(5000, 86_400) && !passed(4500, 1));
        assert!(passed(4999, 11) && passed(3999, 1));
        assert!(!Limit::default().may_be_passed(&standby(0, now, 99), &primary(5000, now)[0]));
    }

    #[test]
    fn without_a_primary_the_last_judgement_stands_and_the_gap_to_the_most_advanced_counts() {
        let now = Instant::now();
        let late = Lag { bytes: Some(9999), cut_off: false, late: true };
        assert_eq!(judge(LIMIT, &standby(4000, now, 99), &[], Some(4500), late), late);
        assert!(!judge(LIMIT, &standby(4000, now, 99), &[], Some(4500), Lag::default()).late);
        assert!(judge(LIMIT, &standby(4000, now, 99), &[], Some(5001), Lag::default()).late);
    }
}
