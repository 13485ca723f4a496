use super::{Candidates, Policy, Rng};

/// Of two different Pods drawn at random, the one with fewer connections lent out; on a tie, either.
///
/// Use it when the Pods are alike and each client keeps several connections busy: the count then shows a slow Pod by
/// itself, because its connections come back late. Two choices are enough to keep the fullest Pod close to the average
/// (M. Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001), they cost the same for three Pods
/// as for a thousand, and unlike a scan they do not send every client to the same Pod at once. The two are different
/// Pods: drawn with replacement, a busy Pod could be compared with itself and win.
///
/// It sees this process's connections only. Where each of many clients has next to nothing in flight, the counts are
/// nearly always zero and it comes down to a fair random choice: in the simulation (docs/simulation.md), with 500 clients
/// of 20 Pods, one of them five times slow, the 99th percentile is 474 ms beside 9 ms by [`LeastCost`](super::LeastCost).
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct LeastInFlight;

impl LeastInFlight {
    /// The policy.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Policy for LeastInFlight {
    #[inline]
    fn pick(&self, candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
        let (first, second) = candidates.draw_two(rng)?;
        // Per weight, without dividing.
        let load = |place, other| u64::from(candidates.in_flight(place)) * u64::from(candidates.weight(other));
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
    fn the_busiest_pod_is_never_picked_while_another_is_less_busy() {
        let pods = Pods::new(5);
        pods.slot(3).checkout();
        let shares = pods.shares(&LeastInFlight, 10_000);
        assert_eq!(shares[3], 0, "{shares:?}");
        assert!(shares.iter().enumerate().all(|(i, &share)| i == 3 || share > 2_000), "{shares:?}");
    }

    #[test]
    fn the_load_goes_by_weight() {
        let weights = [1, 3];
        let held = Pods::weighted(&weights).hold(&LeastInFlight, 40);
        assert!(held.iter().zip(weights).all(|(&held, weight)| held.abs_diff(10 * weight) <= 1), "{held:?}");
    }
}
