//! Schedules lookups: by TTL after a success, with backoff after a failure, and early when a Pod fails or the source
//! of the Pods announces a change.

use rand::RngExt as _;

use crate::time::{Duration, Instant};

/// Maximum backoff after the first failed lookup. Each further failure doubles the maximum.
const LOOKUP_BACKOFF_MIN: Duration = Duration::from_millis(250);
/// Maximum backoff after any number of failed lookups.
const LOOKUP_BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Minimum time between the starts of two early lookups, which are requested before the next scheduled lookup, for
/// example when a Pod fails.
const EARLY_INTERVAL: Duration = Duration::from_secs(1);
/// Minimum time between the starts of two lookups that the source of the Pods has announced.
const ANNOUNCED_INTERVAL: Duration = Duration::from_millis(50);
/// Interval of frequent lookups, which look for a missing Pod.
const FREQUENT_INTERVAL: Duration = Duration::from_secs(1);
/// Time after which the interval of frequent lookups grows.
const FREQUENT_FOR: Duration = Duration::from_secs(60);
/// Maximum interval of frequent lookups.
const FREQUENT_MAX: Duration = Duration::from_secs(5);
/// Jitter of the interval of frequent lookups, as a fraction in either direction.
const FREQUENT_JITTER: f64 = 0.2;
/// Length of the window in which at most two lookups start while lookups fail. Each lookup sends two packets (A and
/// AAAA), so these lookups send at most four packets per second.
const WINDOW: Duration = Duration::from_secs(1);

/// The schedule of one pool's lookups. The caller performs each lookup at the returned time and reports the result.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    min: Duration,
    max: Duration,
    failures: u32,
    /// Start of the latest early lookup, in the past or in the future.
    early: Option<Instant>,
    /// Start of the latest announced lookup, in the past or in the future.
    announced: Option<Instant>,
    /// Starts of the latest two lookups, in the past or in the future, oldest first. Recorded only while lookups fail.
    starts: [Option<Instant>; 2],
}

impl Schedule {
    /// Creates a schedule whose interval after a success is between `min` and `max`, before jitter.
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min), failures: 0, early: None, announced: None, starts: [None; 2] }
    }

    /// Returns the start of the next lookup after a success: the time at which the TTL expires, clamped to the minimum
    /// and maximum interval.
    ///
    /// A jitter of ±10 % spreads the queries of clients that started at the same time. A TTL of 0 is valid (RFC 1035
    /// section 3.2.1) and results in the minimum interval.
    pub(crate) fn after_success(&mut self, now: Instant, valid_until: Instant, rng: &mut impl rand::Rng) -> Instant {
        self.failures = 0;
        self.starts = [None; 2];
        let wait = valid_until.saturating_duration_since(now).clamp(self.min, self.max);
        now + wait.mul_f64(rng.random_range(0.9..=1.1))
    }

    /// Returns the start of the next lookup after a failure. The backoff is a random time between zero and a maximum
    /// ("full jitter"). The maximum doubles with each failure, from 0.25 s to 5 s. At most two lookups start per
    /// second.
    pub(crate) fn after_failure(&mut self, now: Instant, rng: &mut impl rand::Rng) -> Instant {
        let ceiling = LOOKUP_BACKOFF_MIN.saturating_mul(1 << self.failures.min(8)).min(LOOKUP_BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        if self.starts[1].is_none() {
            // The start time of the failed lookup is unknown. Assume the latest possible time, which is now.
            self.starts[1] = Some(now);
        }
        self.record_start(now + ceiling.mul_f64(rng.random_range(0.0..=1.0)))
    }

    /// Returns the start of an early lookup: now, or one second after the previous early lookup if that is later. While
    /// lookups fail, the limit of two lookups per second applies too. The caller requests an early lookup after a
    /// refused connection, a failed probe or the loss of the last Pod of a role.
    ///
    /// While the returned time is in the future, further calls return the same time. The caller uses that time if it is
    /// earlier than the next scheduled lookup.
    pub(crate) fn early(&mut self, now: Instant) -> Instant {
        match self.early {
            Some(due) if due > now => due,
            last => {
                let due = last.map_or(now, |last| now.max(last + EARLY_INTERVAL));
                let due = if self.failures > 0 { self.record_start(due) } else { due };
                self.early = Some(due);
                due
            }
        }
    }

    /// Returns the start of a lookup that the source of the Pods has announced: now, or 50 ms after the previous
    /// announced lookup if that is later. Failed lookups do not delay an announced one, because the announcement means
    /// that the next result may be different.
    pub(crate) fn announced(&mut self, now: Instant) -> Instant {
        let due = self.announced.map_or(now, |last| now.max(last + ANNOUNCED_INTERVAL));
        self.announced = Some(due);
        due
    }

    /// Returns the start of the next lookup in a period of frequent lookups that began at `since`. The interval is 1 s,
    /// and grows to 5 s after the first minute. While lookups fail, the interval is at least 1 s, to obey the limit of
    /// two lookups per second.
    pub(crate) fn frequent(&self, now: Instant, since: Instant, rng: &mut impl rand::Rng) -> Instant {
        let beyond = now.saturating_duration_since(since + FREQUENT_FOR);
        let interval = (beyond / 4).clamp(FREQUENT_INTERVAL, FREQUENT_MAX);
        let least = if self.failures > 0 { 1.0 } else { 1.0 - FREQUENT_JITTER };
        now + interval.mul_f64(rng.random_range(least..=1.0 + FREQUENT_JITTER))
    }

    /// Records that a lookup starts at `at`, or later if two lookups already start within the second before `at`.
    /// Returns the start of the lookup.
    fn record_start(&mut self, at: Instant) -> Instant {
        let at = self.starts[0].map_or(at, |before_last| at.max(before_last + WINDOW));
        self.starts = [self.starts[1], Some(at)];
        self.starts.sort_unstable();
        at
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{SeedableRng as _, rngs::StdRng};

    use super::*;

    const MIN: Duration = Duration::from_secs(1);
    const MAX: Duration = Duration::from_secs(10);

    fn waits(ttl: Duration) -> (Duration, Duration) {
        let now = Instant::now();
        let mut schedule = Schedule::new(MIN, MAX);
        let waits = (0..200).map(|seed| {
            schedule.after_success(now, now + ttl, &mut StdRng::seed_from_u64(seed)).saturating_duration_since(now)
        });
        waits.fold((Duration::MAX, Duration::ZERO), |(min, max), wait| (min.min(wait), max.max(wait)))
    }

    #[test]
    fn interval_follows_the_ttl_within_bounds_and_with_jitter() {
        for (ttl, due) in [(0, 1), (1, 1), (5, 5), (30, 10), (86_400, 10)] {
            let (min, max) = waits(Duration::from_secs(ttl));
            let due = Duration::from_secs(due);
            assert!(min >= due.mul_f64(0.9) && max <= due.mul_f64(1.1), "TTL {ttl}: {min:?} to {max:?}");
            assert!(max - min > due.mul_f64(0.15), "TTL {ttl} has too little jitter: {min:?} to {max:?}");
        }
    }

    #[test]
    fn early_lookups_start_immediately_but_at_most_once_per_second() {
        let start = Instant::now();
        let mut schedule = Schedule::new(MIN, MAX);
        assert_eq!(schedule.early(start), start);
        let soon = start + Duration::from_millis(10);
        assert_eq!(schedule.early(soon), start + EARLY_INTERVAL);
        assert_eq!(schedule.early(soon + Duration::from_millis(10)), start + EARLY_INTERVAL);
        let later = start + Duration::from_secs(7);
        assert_eq!(schedule.early(later), later);
    }

    #[test]
    fn announced_lookups_start_immediately_but_at_most_every_50_ms() {
        let start = Instant::now();
        let mut schedule = Schedule::new(MIN, MAX);
        assert_eq!(schedule.announced(start), start);
        let soon = start + Duration::from_millis(1);
        assert_eq!(schedule.announced(soon), start + ANNOUNCED_INTERVAL);
        schedule.after_failure(soon, &mut StdRng::seed_from_u64(1));
        let later = start + Duration::from_secs(7);
        assert_eq!(schedule.announced(later), later);
    }

    #[test]
    fn frequent_lookups_start_every_second_and_less_often_after_a_minute() {
        let (since, mut rng) = (Instant::now(), StdRng::seed_from_u64(3));
        let mut schedule = Schedule::new(MIN, MAX);
        let (mut now, mut starts) = (since, Vec::new());
        while now < since + Duration::from_secs(300) {
            now = schedule.frequent(now, since, &mut rng);
            starts.push(now - since);
        }
        let within = |from: u64, to: u64| {
            let (from, to) = (Duration::from_secs(from), Duration::from_secs(to));
            starts.iter().filter(|at| (from..to).contains(*at)).count()
        };
        assert!((50..=75).contains(&within(0, 60)), "{starts:?}");
        assert!((14..=25).contains(&within(60, 120)), "{starts:?}");
        assert!((18..=25).contains(&within(200, 300)), "{starts:?}");
        schedule.after_failure(now, &mut rng);
        assert!((0..100).all(|_| schedule.frequent(since, since, &mut rng) >= since + FREQUENT_INTERVAL));
    }

    #[test]
    fn backoff_grows_with_failures_and_resets_after_a_success() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut schedule = Schedule::new(MIN, MAX);
        let mut now = Instant::now();
        let mut longest = Duration::ZERO;
        for _ in 0..40 {
            let next = schedule.after_failure(now, &mut rng);
            longest = longest.max(next - now);
            now = next;
        }
        assert!(longest > Duration::from_secs(3) && longest <= LOOKUP_BACKOFF_MAX, "{longest:?}");
        schedule.after_success(now, now, &mut rng);
        now += Duration::from_secs(1);
        assert!(schedule.after_failure(now, &mut rng) <= now + LOOKUP_BACKOFF_MIN);
    }

    proptest! {
        #[test]
        fn interval_after_a_success_is_within_the_bounds(ttl in 0u64..100_000, seed: u64) {
            let now = Instant::now();
            let mut rng = StdRng::seed_from_u64(seed);
            let mut schedule = Schedule::new(MIN, MAX);
            let next = schedule.after_success(now, now + Duration::from_millis(ttl), &mut rng);
            prop_assert!(next >= now + MIN.mul_f64(0.9) && next <= now + MAX.mul_f64(1.1));
        }

        /// Each step is a lookup that takes `took` and fails, followed by a number of requests for an early lookup.
        #[test]
        fn starts_at_most_two_lookups_per_second_while_lookups_fail(
            steps in prop::collection::vec((0u64..400, 0usize..3), 3..60),
            seed: u64,
        ) {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut schedule = Schedule::new(MIN, MAX);
            let mut now = Instant::now();
            let mut starts = vec![now];
            for (took, requests) in steps {
                now += Duration::from_millis(took);
                let mut next = schedule.after_failure(now, &mut rng);
                prop_assert!(next >= now && next <= now + LOOKUP_BACKOFF_MAX);
                for _ in 0..requests {
                    next = next.min(schedule.early(now));
                }
                starts.push(next);
                now = next;
            }
            for three in starts.windows(3) {
                prop_assert!(three[2] - three[0] >= WINDOW, "{:?}", three[2] - three[0]);
            }
        }
    }
}
