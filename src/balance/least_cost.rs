use super::{Candidates, Policy, Rng};
use crate::endpoint::slot::{Load, TRICKLE_FROM};

/// Maximum number of candidates that are all compared. If there are more, only [`SAMPLES`] of them are compared.
const SCANNED: usize = 32;
/// Number of random candidates that are compared if there are more than [`SCANNED`].
const SAMPLES: usize = 4;
/// Cost of one connection on a Pod of weight 1. On other Pods, the cost is divided by the weight.
const UNIT: u64 = 1 << 16;
/// Share of a Pod of weight 1 in the fastest class, in the unit of [`Share::share`].
const FAIR: u64 = 1200;
/// The share of a Pod that gets only a trickle is the share of a fast Pod divided by this number.
const TRICKLE: u64 = 100;

/// A policy that chooses the Pod with the fewest connections in use, and sends less traffic to Pods with a higher
/// latency. Ties are broken at random. This is the default policy.
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
/// Therefore the load decides between Pods of about the same latency, and a Pod's share depends on its
/// [slowness](Candidates::slowness):
///
/// * Pods within about twice the latency of the fastest are equal. Small differences are noise, and clients that react
///   to them all choose the same Pod at the same time. Hysteresis keeps a Pod near a threshold from alternating between
///   two classes.
/// * A Pod that is up to four times slower gets a share that is about inverse to its slowness. A difference of less
///   than 2 ms always belongs here: it is the distance to the Pod rather than a fault.
/// * A Pod that is more than four times slower gets a trickle: about 1 % of a fair share, which shows when the Pod has
///   recovered. It gets more while the other Pods are busy: a Pod of slowness 8 is also chosen when all others have
///   eight connections in use.
///
/// A Pod that is new, has restarted or has returned starts with an equal share. The first ten statements of a
/// connection are not counted, because a new session is slow on every Pod.
///
/// # Measuring latency
///
/// The latency of a Pod's statements is compared only with that of other Pods of the same role, because a primary's
/// writes are not comparable with a standby's reads. If a Pod is the only one of its role, it is compared with all
/// other Pods, but only by statements of checkouts with the target `any`. Probe latencies are compared between all
/// Pods, so they also show that a Pod without traffic is slow or has recovered. A Pod counts as slow by its statements
/// only if there are about 20 recent ones, or ten very slow ones. A slow Pod that gets too few statements to show
/// whether it is still slow is tried again after 5 s, then after 10 s, then every 20 s while it stays slow. Its first
/// slow statement ends such a trial. Pings are not statements. The time for which callers hold
/// connections is irrelevant, because it depends on the application.
///
/// # Number of Pods that are compared
///
/// While all Pods are in the fastest class and the first randomly drawn Pod has no connections in use, it is chosen
/// without a comparison. Otherwise all Pods are compared, or four random ones if there are more than 32. Pods of equal
/// cost are chosen with equal probability, or with probabilities proportional to their weights. Therefore the share of
/// a busy Pod is spread over all other Pods instead of going to its neighbor in the list.
///
/// # Simulation
///
/// In the simulation (docs/simulation.md, `cargo bench --all-features --bench simulate`), the 99th percentile of
/// latency is 1.05 times that of a single central queue with equal Pods at 80 % load, and 0.88 times if one of three
/// Pods is 5 times slower. With 500 clients and 20 Pods, one of them slow, the 99.9th percentile of latency is 16.8 ms,
/// compared with 560 ms with [`LeastInFlight`](super::LeastInFlight). `make bench-once` runs the simulation and fails
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

    /// Draws a Pod and returns it if it has no connection in use and all Pods are in the fastest class, because no
    /// other Pod can have a lower cost. Requires candidates of equal weight.
    ///
    /// If this returns `None`, the caller continues with [`compare`](Self::compare). Pods of equal cost are still
    /// chosen with equal probability. While most Pods are idle, a choice reads the load of one Pod instead of the loads
    /// of all Pods.
    #[inline(always)]
    pub(super) fn draw_idle(&self, candidates: Candidates<'_>, rng: &mut Rng) -> Option<usize> {
        let drawn = rng.below(candidates.len());
        candidates.is_idle_and_even(drawn).then_some(drawn)
    }

    /// Returns the Pod with the lowest cost among those that are compared.
    #[inline]
    pub(super) fn compare(&self, candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
        match candidates.len() {
            0 => None,
            _ if candidates.is_weighted() || candidates.is_uneven() => proportional(candidates, rng),
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

/// Returns the Pod with the fewest connections in use. Uses no branches that depend on the counts, because the CPU
/// could not predict them.
#[inline]
fn scan(candidates: &Candidates<'_>, rng: &mut Rng) -> usize {
    // The indexes of the Pods with the fewest connections in use so far.
    let mut tied = [0u8; SCANNED];
    let (mut least, mut ties) = (u32::MAX, 0usize);
    for (index, in_flight) in candidates.in_flights().enumerate() {
        let before = if in_flight < least { 0 } else { ties };
        // If this candidate has more connections in use than `least`, `ties` stays unchanged, and the next candidate
        // overwrites the entry.
        tied[before % SCANNED] = index as u8;
        ties = before + usize::from(in_flight <= least);
        least = least.min(in_flight);
    }
    let drawn = if ties > 1 { rng.below(ties) } else { 0 };
    usize::from(tied[drawn % SCANNED])
}

/// Returns the Pod with the fewest connections in use among [`SAMPLES`] Pods, one from each part of the list. The list
/// is first rotated by a random offset, so that no Pod has an advantage when the parts differ in length.
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
            let in_flight = candidates.in_flight(index);
            if in_flight < least {
                (least, best) = (in_flight, index);
            }
        }
    }
    best
}

/// A candidate of [`proportional`].
#[derive(Clone, Copy, Default)]
struct Share {
    index: usize,
    load: Load,
    /// The configured weight of the Pod.
    weight: u64,
}

impl Share {
    /// Returns true if the Pod gets only a trickle of the checkouts.
    fn is_trickle(&self) -> bool {
        self.load.class >= TRICKLE_FROM
    }

    /// Returns the cost of one more connection to the Pod.
    fn cost(&self) -> u64 {
        let class = if self.is_trickle() { self.load.class } else { 1 };
        (u64::from(self.load.in_flight) * UNIT / self.weight + UNIT) * u64::from(class)
    }

    /// Returns the share of the Pod among Pods of equal cost: its weight divided by its slowness.
    fn share(&self) -> usize {
        (self.weight * FAIR / u64::from(self.load.class)) as usize
    }

    /// Returns the share of a Pod that gets only a trickle, relative to [`share`](Self::share) of other Pods.
    fn trickle(&self) -> usize {
        (self.weight * FAIR / TRICKLE) as usize
    }
}

/// Chooses among Pods of different weights or latency classes. If there are more than [`SCANNED`] Pods, chooses among
/// [`SAMPLES`] random ones.
///
/// A Pod of weight 2 gets twice the connections of a Pod of weight 1. Among Pods of equal cost, the shares are inverse
/// to the slowness. Pods with an equal number of connections in use also process checkouts in inverse proportion to
/// their latencies, so the shares are about the same while the Pods are idle and while they are busy.
#[inline(never)]
fn proportional(candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
    let mut shares = [Share::default(); SCANNED];
    let n = candidates.len();
    let shares = &mut shares[..if n > SCANNED { SAMPLES } else { n }];
    for (place, share) in shares.iter_mut().enumerate() {
        // A draw is already proportional to the weights.
        let (index, weight) =
            if n > SCANNED { (candidates.draw(rng)?, 1) } else { (place, candidates.weight(place).into()) };
        *share = Share { index, load: candidates.load(index), weight };
    }
    trickle(shares, rng).or_else(|| cheapest(shares, rng))
}

/// Returns a random Pod that gets only a trickle of the checkouts, or `None` in most cases. Does not return a Pod that
/// has more connections in use than every other Pod, because such a Pod does not complete even the trickle.
fn trickle(shares: &[Share], rng: &mut Rng) -> Option<usize> {
    let slow = || shares.iter().filter(|share| share.is_trickle());
    let trickles: usize = slow().map(Share::trickle).sum();
    if trickles == 0 {
        return None;
    }
    let others = shares.iter().filter(|share| !share.is_trickle());
    let busiest = others.clone().map(|share| share.load.in_flight).max()?;
    let mut drawn = rng.below(trickles + others.map(Share::share).sum::<usize>());
    let found = slow().find(|share| {
        let found = drawn < share.trickle();
        drawn = drawn.wrapping_sub(share.trickle());
        found
    })?;
    (found.load.in_flight <= busiest).then_some(found.index)
}

/// Returns the Pod with the lowest cost. Draws among Pods of equal cost in proportion to their shares.
fn cheapest(shares: &[Share], rng: &mut Rng) -> Option<usize> {
    let (mut least, mut best, mut sum) = (u64::MAX, None, 0);
    for share in shares {
        let cost = share.cost();
        if cost < least {
            (least, best, sum) = (cost, Some(share.index), share.share());
        } else if cost == least {
            sum += share.share();
            if rng.below(sum) < share.share() {
                best = Some(share.index);
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
    fn shares_of_idle_pods_are_inverse_to_their_slowness() {
        for (classes, expected) in [([1, 2, 1], [0.4, 0.2, 0.4]), ([1, 1, 3], [0.429, 0.429, 0.143])] {
            let pods = Pods::new(3);
            pods.set_classes(&classes);
            for (share, expected) in pods.shares(&LeastCost, 30_000).iter().zip(expected) {
                assert!((*share as f64 / 30_000.0 - expected).abs() < 0.015, "{classes:?}: {share}");
            }
        }
        let classes: Vec<_> = (0..100).map(|i| 1 + i % 2).collect();
        let pods = Pods::new(100);
        pods.set_classes(&classes);
        let slow: usize = pods.shares(&LeastCost, 30_000).iter().skip(1).step_by(2).sum();
        assert!((9_000..12_000).contains(&slow), "{slow}");
    }

    #[test]
    fn a_pod_more_than_four_times_slower_gets_a_trickle() {
        for n in [3, 20, 100] {
            let pods = Pods::new(n);
            let mut classes = vec![1; n];
            classes[1] = 8;
            pods.set_classes(&classes);
            let fair = 10_000;
            let shares = pods.shares(&LeastCost, fair * n);
            assert!((50..200).contains(&shares[1]), "{n}: {shares:?}");
        }
    }

    #[test]
    fn a_very_slow_pod_is_chosen_once_the_others_cost_as_much() {
        let pods = Pods::new(3);
        pods.set_classes(&[1, 4, 1]);
        for held in 0..6 {
            let shares = pods.shares(&LeastCost, 3_000);
            match held {
                0..=2 => assert!(shares[1] < 60, "{held}: {shares:?}"),
                3 => assert!((100..1_000).contains(&shares[1]), "a tie: {shares:?}"),
                _ => assert!(shares[1] > 2_900, "{held}: {shares:?}"),
            }
            pods.slot(0).checkout();
            pods.slot(2).checkout();
        }
        let pods = Pods::new(2);
        pods.set_classes(&[4, 8]);
        assert_eq!(pods.shares(&LeastCost, 100), [100, 0], "without a fast Pod, the least slow one is chosen");
    }

    #[test]
    fn a_trickle_stops_while_its_statements_do_not_complete() {
        let pods = Pods::new(3);
        pods.set_classes(&[1, 16, 1]);
        pods.slot(1).checkout();
        assert_eq!(pods.shares(&LeastCost, 30_000)[1], 0);
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
