use super::{Candidates, Policy, Rng};
use crate::endpoint::slot::Load;

/// The most Pods that are all looked at; of more, [`SAMPLES`] are.
const SCANNED: usize = 32;
/// How many different Pods are looked at where there are more than [`SCANNED`].
const SAMPLES: usize = 4;
/// What one connection costs a Pod of weight 1; divided by the weight of any other.
const UNIT: u64 = 1 << 16;

/// The Pod that costs the least: the connections lent out there and one more, times how many times slower than the
/// fastest it is. On a tie, any of them. The default.
///
/// Two things make a Pod a bad choice, and each hides from the other's measure. A count of connections shows at once that
/// a Pod is busy or stuck, but only to one who has several there: of 500 clients each has next to none anywhere, and all
/// counts are zero. The time of an answer shows a slow Pod to everybody, but late, and it is no measure of what this
/// client has just sent there. So the count decides between Pods that are about equally fast, and a slow Pod is used for
/// what it is worth: one that is four times slower when the others have four connections lent out.
///
/// "About equally fast" is coarse on purpose: within twice the fastest is equal, as small differences are noise, and who
/// follows them sends everybody to the same Pod at once. A class is entered later than it is left, so a Pod on the border
/// does not go to and fro. The times are those of statements, beside the other Pods of the same role (a primary's writes
/// say nothing about a standby's reads; where there is no other, of those statements whose callers would have taken any
/// Pod), and of probes, so a slow Pod that gets nothing is known too, and one that has healed is found without sending
/// anybody there to try. One whose probes never were slow is tried again after 5 s, and at most every 20 s while it stays
/// slow. How long a connection was held never counts: that is the application's own doing.
///
/// A Pod that has nothing lent out and is as fast as the fastest costs as little as any can, so one such that happens to be
/// drawn is taken at once. Otherwise all are looked at, up to 32, and of more the cheapest of four different ones drawn at
/// random. No Pod is left to its neighbour: among those that tie each is as likely, by its
/// weight.
///
/// In the simulation (docs/simulation.md, `cargo bench --all-features --bench simulate`): with equal Pods at 80 % its 99th
/// percentile is 1.05 times that of one central queue, with one of three five times slow 0.74 times; 500 clients of 20
/// Pods, one of them slow, see a 99.9th percentile of 17.2 ms, where [`LeastInFlight`](super::LeastInFlight) gives 548 ms.
/// `make bench-once` fails where these limits are passed.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct LeastCost;

impl LeastCost {
    /// The policy.
    #[must_use]
    pub fn new() -> Self {
        Self
    }

    /// One that is drawn, where all weights are the same, if nobody can cost less: it has nothing lent out and is as fast as
    /// the fastest.
    ///
    /// Whoever is drawn and is such a one is taken; all other drawings go to the cheapest, any of those that tie. So those
    /// that tie stay as likely as each other, and while most Pods are idle, one of them is looked at and not all.
    #[inline(always)]
    pub(super) fn at_once(&self, candidates: Candidates<'_>, rng: &mut Rng) -> Option<usize> {
        let drawn = rng.below(candidates.len());
        candidates.is_idle_and_fast(drawn).then_some(drawn)
    }

    /// The cheapest, any of those that tie.
    #[inline]
    pub(super) fn look_around(&self, candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
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
        let at_once = if candidates.is_weighted() { None } else { self.at_once(*candidates, rng) };
        at_once.or_else(|| self.look_around(candidates, rng))
    }
}

#[inline]
fn cost(load: Load) -> u32 {
    (load.in_flight + 1) * load.class
}

/// The cheapest of all, any of those that tie. Without a branch on what is found: who is cheapest cannot be predicted.
#[inline]
fn scan(candidates: &Candidates<'_>, rng: &mut Rng) -> usize {
    // The places of those that tie, so far.
    let mut tied = [0u8; SCANNED];
    let (mut least, mut ties) = (u32::MAX, 0usize);
    for (place, load) in candidates.loads().enumerate() {
        let cost = cost(load);
        let before = if cost < least { 0 } else { ties };
        // One that is dearer is written over by the next.
        tied[before % SCANNED] = place as u8;
        ties = before + usize::from(cost <= least);
        least = least.min(cost);
    }
    let drawn = if ties > 1 { rng.below(ties) } else { 0 };
    usize::from(tied[drawn % SCANNED])
}

/// The cheapest of a few different ones: one of each part of the list, which is turned by a random angle first so that
/// parts of unequal length favour nobody.
#[inline(never)]
fn sample(candidates: &Candidates<'_>, rng: &mut Rng) -> usize {
    let n = candidates.len();
    let turn = rng.below(n);
    let begins = |part: usize| n * part / SAMPLES;
    let length = |part: usize| begins(part + 1) - begins(part);
    let (mut least, mut best) = (u32::MAX, 0);
    for part in (0..SAMPLES).step_by(2) {
        let drawn = rng.below_two([length(part), length(part + 1)]);
        for (part, drawn) in (part..).zip(drawn) {
            let place = turn + begins(part) + drawn;
            // Once round, without a branch that nobody can predict.
            let place = place.min(place.wrapping_sub(n));
            let cost = cost(candidates.load(place));
            if cost < least {
                (least, best) = (cost, place);
            }
        }
    }
    best
}

/// The same where the weights differ: a connection costs a Pod of weight 2 half as much, and ties go by weight.
#[inline(never)]
fn weighted(candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
    let cost = |place: usize| {
        let load = candidates.load(place);
        (u64::from(load.in_flight) * UNIT / u64::from(candidates.weight(place)) + UNIT) * u64::from(load.class)
    };
    let n = candidates.len();
    if n > SCANNED {
        let (mut least, mut best) = (u64::MAX, None);
        for _ in 0..SAMPLES {
            let place = candidates.draw(rng)?;
            if cost(place) < least {
                (least, best) = (cost(place), Some(place));
            }
        }
        return best;
    }
    let (mut least, mut best, mut sum) = (u64::MAX, None, 0);
    for place in 0..n {
        let (cost, weight) = (cost(place), candidates.weight(place) as usize);
        if cost < least {
            (least, best, sum) = (cost, Some(place), weight);
        } else if cost == least {
            sum += weight;
            if rng.below(sum) < weight {
                best = Some(place);
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
    fn the_rest_get_equal_shares_of_what_a_busy_pod_does_not() {
        let pods = Pods::new(5);
        pods.slot(3).checkout();
        let shares = pods.shares(&LeastCost, 40_000);
        assert_eq!(shares[3], 0, "{shares:?}");
        assert!(shares.iter().enumerate().all(|(i, &share)| i == 3 || (9_500..10_500).contains(&share)), "{shares:?}");
    }

    #[test]
    fn a_slow_pod_is_used_when_the_others_are_as_many_times_busier() {
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
    fn shares_go_by_weight_busy_or_not() {
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
    fn many_weighted_pods_get_their_share() {
        let weights: Vec<u32> = (0..100).map(|i| 1 + i % 4).collect();
        let shares = Pods::weighted(&weights).shares(&LeastCost, 250_000);
        assert!(shares.iter().zip(weights).all(|(share, weight)| (900..1_100).contains(&(share / weight as usize))));
    }
}
