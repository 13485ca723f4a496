use super::{Candidates, Policy, Rng};

/// A policy that chooses a random Pod with a probability proportional to its weight. libpq's
/// `load_balance_hosts=random` also chooses at random, but for each connection instead of each checkout.
///
/// Use this policy as a baseline, or if the Pods' shares must not depend on load. It ignores load: in the simulation
/// (docs/simulation.md), the 99th percentile of latency is 1.4 times that of a single central queue with three equal
/// Pods at 80 % load, and 70 times that of the queue with ten Pods of which one is 5 times slower.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Random;

impl Random {
    /// Creates the policy.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl Policy for Random {
    #[inline]
    fn pick(&self, candidates: &Candidates<'_>, rng: &mut Rng) -> Option<usize> {
        candidates.draw(rng)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::tests::Pods;

    #[test]
    fn shares_are_proportional_to_weight_regardless_of_load() {
        let weights = [1, 2, 100, 1];
        let pods = Pods::weighted(&weights);
        pods.slot(1).checkout();
        let shares = pods.shares(&Random, 1_040_000);
        for (share, weight) in shares.iter().zip(weights) {
            assert!((9_500..10_500).contains(&(share / weight as usize)), "{shares:?}");
        }
    }
}
