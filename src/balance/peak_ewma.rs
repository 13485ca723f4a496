use std::time::Duration;

use super::{Candidates, Policy, Rng};

/// Of two different Pods drawn at random, the one with the smaller product of latency and connections lent out, and one
/// more; on a tie, either. The latency is a moving average that jumps to a higher reading at once and decays within 10 s
/// (peak-sensitive, as Finagle's and linkerd's "peak EWMA"). A Pod of weight 2 counts as twice as fast.
///
/// Use it when you come from one of these and want what you know. It follows small differences that
/// [`LeastCost`](super::LeastCost) calls equal, so equal Pods get less even shares, and a statement that was slow by itself
/// counts against its Pod for seconds. In the simulation (docs/simulation.md) it does as well with a slow Pod, gives equal
/// ones up to 6 % more than the mean, and one that has healed 5 s ago 0.15 of a fair share, where
/// [`LeastCost`](super::LeastCost) gives 1.00.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct PeakEwma;

impl PeakEwma {
    /// The policy.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Policy for PeakEwma {
    #[inline]
    fn pick(&self, candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
        let (first, second) = candidates.draw_two(rng)?;
        let cost = |place: usize, other: usize| {
            // Nothing is known only before the first probe has been summed up: nobody should be drawn to that.
            let micros = candidates.peak_latency(place).unwrap_or(Duration::MAX).as_micros().min(1 << 32);
            micros * u128::from(candidates.in_flight(place) + 1) * u128::from(candidates.weight(other))
        };
        Some(if cost(second, first) < cost(first, second) { second } else { first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::tests::Pods;

    fn set(pods: &Pods, place: usize, millis: u64) {
        let latency = Duration::from_millis(millis);
        pods.slot(place).set_latency(latency, latency);
    }

    #[test]
    fn a_pod_twice_as_fast_takes_twice_the_connections() {
        let pods = Pods::new(2);
        set(&pods, 0, 10);
        set(&pods, 1, 20);
        let held = pods.hold(&PeakEwma, 30);
        assert!(held[0].abs_diff(20) <= 1, "{held:?}");
    }

    #[test]
    fn pods_of_which_nothing_is_known_share_evenly_and_yield_to_known_ones() {
        let pods = Pods::new(3);
        let shares = pods.shares(&PeakEwma, 30_000);
        assert!(shares.iter().all(|share| (9_500..10_500).contains(share)), "{shares:?}");
        (0..3).for_each(|place| set(&pods, place, 1));
        set(&pods, 2, 1000);
        assert_eq!(pods.shares(&PeakEwma, 30_000)[2], 0);
    }
}
