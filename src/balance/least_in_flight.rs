use super::{Candidates, Policy, Rng};

/// A policy that compares two random Pods and chooses the one with fewer connections in use. Ties are broken at random.
///
/// Use this policy if the Pods are alike and each client keeps several connections busy. The counts then reveal a slow
/// Pod, because its connections are in use for longer. Comparing two Pods is enough to keep the busiest Pod close to
/// the average (M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001). The effort does not
/// depend on the number of Pods, and unlike after a scan of all Pods, the clients do not all choose the same Pod at the
/// same time. The two Pods are always different: otherwise a busy Pod could be compared with itself and win.
///
/// The counts include only connections of this process. If many clients have few connections in use each, the counts
/// are almost always zero, and the choice is random. In the simulation (docs/simulation.md), with 500 clients and 20
/// Pods, one of them 5 times slower, the 99th percentile of latency is 474 ms. With [`LeastCost`](super::LeastCost), it
/// is 9 ms.
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
        // Compares connections per unit of weight, cross-multiplied to avoid divisions.
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
