use std::time::Duration;

use super::{Candidates, Policy, Rng};

/// A policy that compares two random Pods and chooses the one with the lower product of latency and load, where the
/// load is the number of connections in use plus one. Ties are broken at random.
///
/// The latency is a moving average that rises immediately to a higher measurement and decays with a time constant of
/// ten seconds, as in the "peak EWMA" of Finagle and Linkerd. A Pod of weight 2 counts as twice as fast.
///
/// Use this policy if you know it from one of these proxies and prefer its behavior. It reacts to small differences
/// that [`LeastCost`](super::LeastCost) treats as equal, so the shares of equal Pods are less even, and a single slow
/// statement counts against its Pod for seconds. In the simulation (docs/simulation.md), the latency with a slow Pod is
/// about the same with both policies. With `PeakEwma`, one of several equal Pods gets up to 6 % more checkouts than the
/// mean, and a Pod that recovered 5 s ago gets 15 % of a fair share. With [`LeastCost`](super::LeastCost), the
/// recovered Pod gets 100 %.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct PeakEwma;

impl PeakEwma {
    /// Creates the policy.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Policy for PeakEwma {
    #[inline]
    fn pick(&self, candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
        let (first, second) = candidates.draw_two(rng)?;
        let cost = |index: usize, other: usize| {
            // The latency of a Pod is unknown until its first probe is processed. Until then, the Pod must not attract
            // traffic.
            let micros = candidates.peak_latency(index).unwrap_or(Duration::MAX).as_micros().min(1 << 32);
            micros * u128::from(candidates.in_flight(index) + 1) * u128::from(candidates.weight(other))
        };
        Some(if cost(second, first) < cost(first, second) { second } else { first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::tests::Pods;

    fn set(pods: &Pods, index: usize, millis: u64) {
        let latency = Duration::from_millis(millis);
        pods.slot(index).set_latency(Some((latency, latency)));
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
    fn pods_of_unknown_latency_get_even_shares() {
        let pods = Pods::new(3);
        let shares = pods.shares(&PeakEwma, 30_000);
        assert!(shares.iter().all(|share| (9_500..10_500).contains(share)), "{shares:?}");
        (0..3).for_each(|index| set(&pods, index, 1));
        set(&pods, 2, 1000);
        assert_eq!(pods.shares(&PeakEwma, 30_000)[2], 0);
    }
}
