//! When the next lookup is due.

use rand::RngExt as _;

use crate::time::{Duration, Instant};

/// The first wait after a failed lookup is at most this long; it doubles from failure to failure.
const BACKOFF_MIN: Duration = Duration::from_millis(250);
/// No wait after a failed lookup is longer than this.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// The least time between two lookups that trouble brought on.
const EARLY_EVERY: Duration = Duration::from_secs(1);
/// While lookups fail no more than two begin within this: of two packets each (A and AAAA), that is four a second.
const WINDOW: Duration = Duration::from_secs(1);

/// When to look up again: by the answer's own word after a success, backing off after a failure, at once on trouble.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    min: Duration,
    max: Duration,
    failures: u32,
    /// When the last lookup that trouble brought on is or was due.
    early: Option<Instant>,
    /// When the last two lookups begin or began, the older first; kept only while lookups fail.
    begun: [Option<Instant>; 2],
}

impl Schedule {
    /// `min` and `max` bound what an answer's TTL may ask for.
    pub(crate) fn new(min: Duration, max: Duration) -> Self {
        Self { min, max: max.max(min), failures: 0, early: None, begun: [None; 2] }
    }

    /// After an answer: its remaining TTL within the bounds, ±10 % so that a thousand clients that started together do
    /// not ask together. A TTL of 0 is legal (RFC 1035 section 3.2.1) and means the lower bound.
    pub(crate) fn after_success(&mut self, now: Instant, valid_until: Instant, rng: &mut impl rand::Rng) -> Instant {
        self.failures = 0;
        self.begun = [None; 2];
        let wait = valid_until.saturating_duration_since(now).clamp(self.min, self.max);
        now + wait.mul_f64(rng.random_range(0.9..=1.1))
    }

    /// After a failure: a random wait of up to 0.25 s, 0.5 s, 1 s … 5 s ("full jitter"), and no more than two lookups
    /// within a second.
    pub(crate) fn after_failure(&mut self, now: Instant, rng: &mut impl rand::Rng) -> Instant {
        let ceiling = BACKOFF_MIN.saturating_mul(1 << self.failures.min(8)).min(BACKOFF_MAX);
        self.failures = self.failures.saturating_add(1);
        if self.begun[1].is_none() {
            // The lookup that has just failed began no later than now.
            self.begun[1] = Some(now);
        }
        self.begin(now + ceiling.mul_f64(rng.random_range(0.0..=1.0)))
    }

    /// On trouble (a refused connection, a failed probe, nobody left to serve): at once, but no more than once a
    /// second. Asked again before that lookup is due, the answer is the same. The caller takes the earlier of this and
    /// what is already due.
    pub(crate) fn early(&mut self, now: Instant) -> Instant {
        match self.early {
            Some(due) if due > now => due,
            last => {
                let due = last.map_or(now, |last| now.max(last + EARLY_EVERY));
                let due = if self.failures > 0 { self.begin(due) } else { due };
                self.early = Some(due);
                due
            }
        }
    }

    /// Puts a lookup down for `at`, or as soon after as the window allows.
    fn begin(&mut self, at: Instant) -> Instant {
        let at = self.begun[0].map_or(at, |before_last| at.max(before_last + WINDOW));
        self.begun = [self.begun[1], Some(at)];
        self.begun.sort_unstable();
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
        waits.fold((Duration::MAX, Duration::ZERO), |(least, most), wait| (least.min(wait), most.max(wait)))
    }

    #[test]
    fn a_ttl_is_followed_within_the_bounds_and_spread() {
        for (ttl, due) in [(0, 1), (1, 1), (5, 5), (30, 10), (86_400, 10)] {
            let (least, most) = waits(Duration::from_secs(ttl));
            let due = Duration::from_secs(due);
            assert!(least >= due.mul_f64(0.9) && most <= due.mul_f64(1.1), "TTL {ttl}: {least:?} to {most:?}");
            assert!(most - least > due.mul_f64(0.15), "TTL {ttl} is not spread: {least:?} to {most:?}");
        }
    }

    #[test]
    fn trouble_brings_a_lookup_at_once_but_one_a_second() {
        let start = Instant::now();
        let mut schedule = Schedule::new(MIN, MAX);
        assert_eq!(schedule.early(start), start);
        let soon = start + Duration::from_millis(10);
        assert_eq!(schedule.early(soon), start + EARLY_EVERY);
        assert_eq!(schedule.early(soon + Duration::from_millis(10)), start + EARLY_EVERY);
        let later = start + Duration::from_secs(7);
        assert_eq!(schedule.early(later), later);
    }

    #[test]
    fn failures_back_off_and_a_success_forgets_them() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut schedule = Schedule::new(MIN, MAX);
        let mut now = Instant::now();
        let mut longest = Duration::ZERO;
        for _ in 0..40 {
            let next = schedule.after_failure(now, &mut rng);
            longest = longest.max(next - now);
            now = next;
        }
        assert!(longest > Duration::from_secs(3) && longest <= BACKOFF_MAX, "{longest:?}");
        schedule.after_success(now, now, &mut rng);
        now += Duration::from_secs(1);
        assert!(schedule.after_failure(now, &mut rng) <= now + BACKOFF_MIN);
    }

    proptest! {
        #[test]
        fn intervals_stay_within_their_bounds(ttl in 0u64..100_000, seed: u64) {
            let now = Instant::now();
            let mut rng = StdRng::seed_from_u64(seed);
            let mut schedule = Schedule::new(MIN, MAX);
            let next = schedule.after_success(now, now + Duration::from_millis(ttl), &mut rng);
            prop_assert!(next >= now + MIN.mul_f64(0.9) && next <= now + MAX.mul_f64(1.1));
        }

        /// Each step is a lookup that takes `took` and fails, with `troubles` arriving meanwhile.
        #[test]
        fn failing_lookups_never_come_closer_than_two_a_second(
            steps in prop::collection::vec((0u64..400, 0usize..3), 3..60),
            seed: u64,
        ) {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut schedule = Schedule::new(MIN, MAX);
            let mut now = Instant::now();
            let mut begun = vec![now];
            for (took, troubles) in steps {
                now += Duration::from_millis(took);
                let mut next = schedule.after_failure(now, &mut rng);
                prop_assert!(next >= now && next <= now + BACKOFF_MAX);
                for _ in 0..troubles {
                    next = next.min(schedule.early(now));
                }
                begun.push(next);
                now = next;
            }
            for three in begun.windows(3) {
                prop_assert!(three[2] - three[0] >= WINDOW, "{:?}", three[2] - three[0]);
            }
        }
    }
}
