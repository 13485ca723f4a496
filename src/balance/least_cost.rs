use super::{Candidates, Policy, Rng};
use crate::endpoint::slot::Load;

/// Maximum number of candidates that are all compared. If there are more, only [`SAMPLES`] of them are compared.
const SCANNED: usize = 32;
/// Number of random candidates that are compared if there are more than [`SCANNED`].
const SAMPLES: usize = 4;
/// Cost of one connection on a Pod of weight 1. On other Pods, the cost is divided by the weight.
const UNIT: u64 = 1 << 16;

/// A policy that chooses the Pod with the lowest cost: the number of connections in use plus one, times the Pod's
/// [slowness](Candidates::slowness). Ties are broken at random. This is the default policy.
///
/// # Load and latency
///
/// A Pod can be a bad choice for two reasons, which two different measurements reveal:
///
/// * **Load**: the number of connections in use shows immediately that a Pod is busy or stuck, but only to a client
///   that has several connections there. If 500 clients have at most one connection each to any Pod, almost all counts
///   are zero.
/// * **Latency** shows a slow Pod to every client, but with a delay: it does not reflect the requests that this client
///   has just sent.
///
/// Therefore the load decides between Pods of about the same latency, and a slow Pod gets the load that it can handle:
/// a Pod that is four times slower is chosen when the others have four connections in use.
///
/// "About the same" is intentionally coarse. Small differences are noise, and clients that react to them all choose the
/// same Pod at the same time. Therefore Pods within twice the latency of the fastest are equal, and hysteresis keeps a
/// Pod near a threshold from alternating between two classes.
///
/// # Measuring latency
///
/// The latency of a Pod's statements is compared only with that of other Pods of the same role, because a primary's
/// writes are not comparable with a standby's reads. If a Pod is the only one of its role, it is compared with all
/// other Pods, but only by statements of checkouts with the target `any`. Probe latencies are compared between all
/// Pods, so they also show that a Pod without traffic is slow or has recovered. A slow Pod whose probes were never slow
/// is tried again after 5 s, then after 10 s, then every 20 s while it stays slow. The time for which callers hold
/// connections is irrelevant, because it depends on the application.
///
/// # Number of Pods that are compared
///
/// A Pod in the fastest class that has no connections in use has the lowest possible cost. If the first randomly drawn
/// Pod is such a Pod, it is chosen without a comparison. Otherwise all Pods are compared, or four random ones if there
/// are more than 32. Pods of equal cost are chosen with equal probability, or with probabilities proportional to their
/// weights. Therefore the share of a busy Pod is spread over all other Pods instead of going to its neighbor in the
/// list.
///
/// # Simulation
///
/// In the simulation (docs/simulation.md, `cargo bench --all-features --bench simulate`), the 99th percentile of
/// latency is 1.05 times that of a single central queue with equal Pods at 80 % load, and 0.74 times if one of three
/// Pods is 5 times slower. With 500 clients and 20 Pods, one of them slow, the 99.9th percentile of latency is 17.2 ms,
/// compared with 548 ms with [`LeastInFlight`](super::LeastInFlight). `make bench-once` runs the simulation and fails
/// if a result exceeds its limit in `benches/simulate/claims.rs`.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct LeastCost;

impl LeastCost {
    /// Creates the policy.
    #[must_use]
    pub fn new() -> Self {
        Self
    }

    /// Draws a Pod and returns it if it has no connection in use and is in the fastest class, because no other Pod can
    /// have a lower cost. Requires candidates of equal weight.
    ///
    /// If this returns `None`, the caller continues with [`compare`](Self::compare). Pods of equal cost are still
    /// chosen with equal probability. While most Pods are idle, a choice reads the load of one Pod instead of the loads
    /// of all Pods.
    #[inline(always)]
    pub(super) fn draw_idle(&self, candidates: Candidates<'_>, rng: &mut Rng) -> Option<usize> {
        let drawn = rng.below(candidates.len());
        candidates.is_idle_and_fast(drawn).then_some(drawn)
    }

    /// Returns the Pod with the lowest cost among those that are compared.
    #[inline]
    pub(super) fn compare(&self, candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
        match candidates.len() {
            0 => None,
            _ if candidates.is_weighted() => weighted(candidates, rng),
            1..=SCANNED => Some(scan(candidates, rng)),
            _ => Some(sample(candidates, rng)),
        }
    }
}

impl Policy for LeastCost {
    #[inline]
    fn pick(&self, candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
        let idle = if candidates.is_weighted() { None } else { self.draw_idle(*candidates, rng) };
        idle.or_else(|| self.compare(candidates, rng))
    }
}

#[inline]
fn cost(load: Load) -> u32 {
    (load.in_flight + 1) * load.class
}

/// Returns the cheapest of all Pods. Uses no branches that depend on the costs, because the CPU could not predict them.
#[inline]
fn scan(candidates: &Candidates<'_>, rng: &mut Rng) -> usize {
    // The indexes of the cheapest Pods so far.
    let mut tied = [0u8; SCANNED];
    let (mut least, mut ties) = (u32::MAX, 0usize);
    for (index, load) in candidates.loads().enumerate() {
        let cost = cost(load);
        let before = if cost < least { 0 } else { ties };
        // If this candidate's cost is higher than `least`, `ties` stays unchanged, and the next candidate overwrites
        // the entry.
        tied[before % SCANNED] = index as u8;
        ties = before + usize::from(cost <= least);
        least = least.min(cost);
    }
    let drawn = if ties > 1 { rng.below(ties) } else { 0 };
    usize::from(tied[drawn % SCANNED])
}

/// Returns the cheapest of [`SAMPLES`] Pods, one from each part of the list. The list is first rotated by a random
/// offset, so that no Pod has an advantage when the parts differ in length.
#[inline(never)]
fn sample(candidates: &Candidates<'_>, rng: &mut Rng) -> usize {
    let n = candidates.len();
    let offset = rng.below(n);
    let start = |part: usize| n * part / SAMPLES;
    let length = |part: usize| start(part + 1) - start(part);
    let (mut least, mut best) = (u32::MAX, 0);
    for part in (0..SAMPLES).step_by(2) {
        let drawn = rng.below_two([length(part), length(part + 1)]);
        for (part, drawn) in (part..).zip(drawn) {
            let index = offset + start(part) + drawn;
            // Computes the index modulo `n` without a branch that the CPU cannot predict.
            let index = index.min(index.wrapping_sub(n));
            let cost = cost(candidates.load(index));
            if cost < least {
                (least, best) = (cost, index);
            }
        }
    }
    best
}

/// Returns the cheapest Pod for candidates of different weights: a connection costs half as much on a Pod of weight 2,
/// and ties are broken in proportion to the weights.
#[inline(never)]
fn weighted(candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
    let cost = |index: usize| {
        let load = candidates.load(index);
        (u64::from(load.in_flight) * UNIT / u64::from(candidates.weight(index)) + UNIT) * u64::from(load.class)
    };
    let n = candidates.len();
    if n > SCANNED {
        let (mut least, mut best) = (u64::MAX, None);
        for _ in 0..SAMPLES {
            let index = candidates.draw(rng)?;
            if cost(index) < least {
                (least, best) = (cost(index), Some(index));
            }
        }
        return best;
    }
    let (mut least, mut best, mut sum) = (u64::MAX, None, 0);
    for index in 0..n {
        let (cost, weight) = (cost(index), candidates.weight(index) as usize);
        if cost < least {
            (least, best, sum) = (cost, Some(index), weight);
        } else if cost == least {
            sum += weight;
            if rng.below(sum) < weight {
                best = Some(index);
            }
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::tests::Pods;

    #[test]
    fn equal_pods_get_equal_shares() {
        for n in [1, 2, 3, 20, 32, 33, 50, 100] {
            let shares = Pods::new(n).shares(&LeastCost, 20_000 * n);
            assert!(shares.iter().all(|&share| (19_000..21_000).contains(&share)), "{n}: {shares:?}");
        }
    }

    #[test]
    fn the_share_of_a_busy_pod_is_spread_evenly() {
        let pods = Pods::new(5);
        pods.slot(3).checkout();
        let shares = pods.shares(&LeastCost, 40_000);
        assert_eq!(shares[3], 0, "{shares:?}");
        assert!(shares.iter().enumerate().all(|(i, &share)| i == 3 || (9_500..10_500).contains(&share)), "{shares:?}");
    }

    #[test]
    fn a_slow_pod_is_chosen_once_the_others_cost_as_much() {
        let pods = Pods::new(3);
        pods.slot(1).set_class(3);
        for held in 0..5 {
            let shares = pods.shares(&LeastCost, 3_000);
            match held {
                0 | 1 => assert_eq!(shares[1], 0, "{held}: {shares:?}"),
                2 => assert!(shares.iter().all(|&share| share > 900), "a tie: {shares:?}"),
                _ => assert_eq!(shares[1], 3_000, "{held}: {shares:?}"),
            }
            pods.slot(0).checkout();
            pods.slot(2).checkout();
        }
    }

    #[test]
    fn shares_and_load_are_proportional_to_weight() {
        let weights = [1, 2, 5];
        let shares = Pods::weighted(&weights).shares(&LeastCost, 80_000);
        for (share, weight) in shares.iter().zip(weights) {
            assert!((9_500..10_500).contains(&(share / weight as usize)), "{shares:?}");
        }
        let pods = Pods::weighted(&weights);
        let held = pods.hold(&LeastCost, 80);
        assert!(held.iter().zip(weights).all(|(&held, weight)| held.abs_diff(10 * weight) <= 1), "{held:?}");
    }

    #[test]
    fn many_pods_get_shares_in_proportion_to_weight() {
        let weights: Vec<u32> = (0..100).map(|i| 1 + i % 4).collect();
        let shares = Pods::weighted(&weights).shares(&LeastCost, 250_000);
        assert!(shares.iter().zip(weights).all(|(share, weight)| (900..1_100).contains(&(share / weight as usize))));
    }
}
