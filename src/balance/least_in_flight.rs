use super::{Candidates, Policy, Rng};

/// A policy that compares two random Pods and chooses the one with fewer connections in use. Ties are broken at random.
///
/// Use this policy if the Pods are alike and each client keeps several connections busy. The numbers of connections in
/// use then reveal a slow Pod, because its connections are in use for longer. Comparing two Pods is enough to keep the
/// busiest Pod close to the average (M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001).
/// The cost of a choice does not depend on the number of Pods. Comparing all Pods could make many clients choose the
/// same Pod at the same time. Comparing two random Pods avoids this. The two Pods are always different, because a busy
/// Pod that was compared with itself would win.
///
/// Only connections of this pool are counted. If many clients have only a few connections in use each, almost all
/// counts are zero, and the choice is random. In the simulation (docs/simulation.md), with 500 clients and 20 Pods, one
/// of them 5 times slower, the 99th percentile of latency is 474 ms. With [`LeastCost`](super::LeastCost), the 99th
/// percentile is 9 ms.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct LeastInFlight;

impl LeastInFlight {
    /// Creates the policy.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Policy for LeastInFlight {
    #[inline]
    fn pick(&self, candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
        let (first, second) = candidates.draw_two(rng)?;
        // Compares the connections in use per unit of weight. Cross-multiplication avoids a division.
        let load = |index, other| u64::from(candidates.in_flight(index)) * u64::from(candidates.weight(other));
        Some(if load(second, first) < load(first, second) { second } else { first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::tests::Pods;

    #[test]
    fn equal_pods_get_equal_shares() {
        for n in [1, 2, 3, 20] {
            let shares = Pods::new(n).shares(&LeastInFlight, 20_000 * n);
            assert!(shares.iter().all(|&share| (19_000..21_000).contains(&share)), "{shares:?}");
        }
    }

    #[test]
    fn never_picks_the_busiest_pod() {
        let pods = Pods::new(5);
        pods.slot(3).checkout();
        let shares = pods.shares(&LeastInFlight, 10_000);
        assert_eq!(shares[3], 0, "{shares:?}");
        assert!(shares.iter().enumerate().all(|(i, &share)| i == 3 || share > 2_000), "{shares:?}");
    }

    #[test]
    fn load_is_proportional_to_weight() {
        let weights = [1, 3];
        let held = Pods::weighted(&weights).hold(&LeastInFlight, 40);
        assert!(held.iter().zip(weights).all(|(&held, weight)| held.abs_diff(10 * weight) <= 1), "{held:?}");
    }
}
