use super::*;

const SECOND: Duration = Duration::from_secs(1);
const LIMIT: Limit = Limit { bytes: Some(1000), time: Some(Duration::from_secs(10)) };

fn standby(position: u64, sent: Instant, ago: u64) -> Standby {
    let reading = Reading { position, sent, received: sent };
    Standby { reading, receiving: true, replayed_ago: Some(Duration::from_secs(ago)), disconnected_for: Duration::ZERO }
}

fn primary(position: u64, at: Instant) -> [Reading; 1] {
    [Reading { position, sent: at, received: at }]
}

/// Returns readings of a primary that writes 1000 bytes per second, taken every five seconds for a minute until `end`.
fn steady(end: Instant) -> Vec<Reading> {
    let reading = |i: u32| {
        let at = end - SECOND * (60 - 5 * i);
        Reading { position: 5000 * u64::from(i), sent: at, received: at }
    };
    (0..=12).map(reading).collect()
}

#[test]
fn exceeding_either_limit_makes_a_standby_late() {
    let now = Instant::now() + SECOND * 100;
    let limit = Limit { bytes: Some(20_000), ..LIMIT };
    let judge = |position| judge(limit, &standby(position, now, 0), &steady(now), None, Lag::default());
    let lag = judge(50_500);
    assert_eq!((lag.bytes, lag.time, lag.late), (Some(9500), Some(Duration::from_millis(9500)), false));
    assert!(judge(49_000).late, "11 s");
    let bytes_only = Limit { bytes: Some(9000), time: None };
    assert!(super::judge(bytes_only, &standby(50_500, now, 0), &steady(now), None, Lag::default()).late);
}

#[test]
fn standbys_of_an_idle_primary_are_not_late() {
    let now = Instant::now();
    let lag = judge(LIMIT, &standby(5000, now, 86_400), &primary(5000, now), None, Lag::default());
    assert_eq!((lag.bytes, lag.time, lag.late), (Some(0), Some(Duration::ZERO), false));
    // The first commit after an idle day is on its way to the standby.
    let lag = judge(LIMIT, &standby(5000, now, 86_400), &primary(5100, now), None, Lag::default());
    assert_eq!((lag.bytes, lag.late), (Some(100), false));
}

/// Returns the lag in time, rounded to seconds.
fn seconds(lag: &Lag) -> u64 {
    lag.time.expect("the lag is known").as_secs_f64().round() as u64
}

#[test]
fn the_clock_of_a_standby_does_not_matter() {
    let now = Instant::now() + SECOND * 100;
    let limit = Limit { bytes: None, ..LIMIT };
    for ago in [0, 10, 86_400] {
        let lag = judge(limit, &standby(57_000, now, ago), &steady(now), None, Lag::default());
        assert_eq!((seconds(&lag), lag.late), (3, false), "last commit {ago} s ago");
        let lag = judge(limit, &standby(45_000, now, ago), &steady(now), None, Lag::default());
        assert_eq!((seconds(&lag), lag.late), (15, true), "last commit {ago} s ago");
    }
}

#[test]
fn a_standby_behind_the_oldest_reading_is_as_old_as_its_last_commit() {
    let read = Instant::now();
    let now = read + GRACE;
    let judge = |ago| judge(LIMIT, &standby(4999, now, ago), &primary(5000, read), None, Lag::default());
    assert_eq!((judge(1).time, judge(1).late), (Some(SECOND), false));
    assert!(judge(11).late);
}

#[test]
fn a_standby_that_lacks_old_wal_is_due_to_exceed_the_limit() {
    let now = Instant::now() + SECOND * 100;
    let limit = Limit { bytes: None, ..LIMIT };
    let judge = |position| judge(limit, &standby(position, now, 0), &steady(now), None, Lag::default());
    assert_eq!(judge(52_000).exceeds_in, Some(SECOND * 2));
    assert_eq!(judge(45_000).exceeds_in, None, "late already");
    assert_eq!(judge(55_500).exceeds_in, None, "lacks only WAL that was written after the last reading but one");
    let unlimited = super::judge(Limit::default(), &standby(52_000, now, 0), &steady(now), None, Lag::default());
    assert_eq!(unlimited.exceeds_in, None);
}

#[test]
fn a_disconnected_standby_is_late_after_the_limit_even_without_a_primary() {
    let now = Instant::now();
    let gone = |seconds| Standby { receiving: false, disconnected_for: SECOND * seconds, ..standby(5000, now, 0) };
    let lost = |standby, limit| judge(limit, &standby, &[], Some(5000), Lag::default()).upstream_lost;
    assert!(!lost(gone(10), LIMIT) && lost(gone(11), LIMIT));
    assert!(!lost(gone(11), Limit { time: None, ..LIMIT }));
    let before = Lag { upstream_lost: true, ..Lag::default() };
    assert!(!judge(LIMIT, &standby(5000, now, 0), &[], Some(5000), before).upstream_lost, "the standby receives again");
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
    let exceeded = |position, ago| LIMIT.may_be_exceeded(&standby(position, now, ago), &primary(5000, now));
    assert!(!exceeded(5000, 86_400) && !exceeded(4500, 1));
    assert!(exceeded(4999, 11) && exceeded(3999, 1));
    assert!(!Limit::default().may_be_exceeded(&standby(0, now, 99), &primary(5000, now)));
}

#[test]
fn without_a_primary_lag_is_relative_to_the_newest_standby() {
    let now = Instant::now();
    let late = Lag { bytes: Some(9999), late: true, ..Lag::default() };
    assert_eq!(judge(LIMIT, &standby(4000, now, 99), &[], Some(4500), late), late);
    assert!(!judge(LIMIT, &standby(4000, now, 99), &[], Some(4500), Lag::default()).late);
    assert!(judge(LIMIT, &standby(4000, now, 99), &[], Some(5001), Lag::default()).late);
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A standby has replayed everything that the primary had written up to a random time. The primary writes at
        /// random rates, and is read at random times.
        #[test]
        fn the_estimated_age_is_within_one_reading_of_the_truth(
            rates in prop::collection::vec(0..5000u64, 60),
            reads in prop::collection::btree_set(0..60u64, 2..12),
            replayed in 0..60u64,
        ) {
            let start = Instant::now();
            let position = |second: u64| rates.iter().take(second as usize).sum::<u64>();
            let at = |second: u64| start + SECOND * second as u32;
            let reading = |second: u64| Reading { position: position(second), sent: at(second), received: at(second) };
            let readings: Vec<_> = reads.iter().map(|&second| reading(second)).collect();
            let (first, last) = (*reads.first().unwrap(), *reads.last().unwrap());
            prop_assume!(position(replayed) < position(last) && position(replayed) >= position(first));
            let age = age(&readings, &standby(position(replayed), at(60), 0), at(60)).as_secs_f64();
            // The data is as old as the first write that the standby lacks.
            let lacking = (replayed..60).find(|&second| rates[second as usize] > 0).unwrap();
            let gap = reads.iter().zip(reads.iter().skip(1)).map(|(a, b)| b - a).max().unwrap();
            let truth = (60 - lacking) as f64;
            let error = (age - truth).abs();
            prop_assert!(error <= gap as f64 + 1e-6, "{age} instead of {truth}, readings up to {gap} s apart");
        }
    }
}
