use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Candidates, Policy, Rng};

/// 2^32 divided by the golden ratio. Consecutive multiples of this number are evenly distributed modulo 2^32,
/// regardless of how many there are.
const STEP: u64 = 0x9e37_79b9;

/// A policy that chooses the Pods in turn. If weights differ, the frequency of a Pod's turns is proportional to its
/// weight.
///
/// Use this policy as a baseline, or if equal numbers of checkouts matter more than latency. It ignores load: in the
/// simulation (docs/simulation.md), the 99th percentile of latency is 1.3 times that of a single central queue with
/// three equal Pods at 80 % load, and 72 times that of the queue with ten Pods of which one is 5 times slower. Clients
/// do not coordinate their turns, so the combined shares of many clients are hardly more even than with
/// [`Random`](super::Random).
///
/// All threads increment one counter. If several threads check out concurrently, the contention makes this the most
/// expensive policy.
#[derive(Debug, Default)]
pub struct RoundRobin {
    turn: AtomicUsize,
}

impl RoundRobin {
    /// Creates the policy.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Policy for RoundRobin {
    #[inline]
    fn pick(&self, candidates: &Candidates<'_>, _rng: &mut Rng) -> Option<usize> {
        if candidates.is_empty() {
            return None;
        }
        // Relaxed: the counter guards no data. It is enough that each turn gets a different number.
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        if !candidates.is_weighted() {
            return Some(turn % candidates.len());
        }
        let total: u64 = (0..candidates.len()).map(|index| u64::from(candidates.weight(index))).sum();
        let point = (turn as u64).wrapping_mul(STEP) & 0xffff_ffff;
        candidates.at(((point * total) >> 32) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::balance::tests::Pods;

    #[test]
    fn equal_pods_are_chosen_in_turn() {
        let pods = Pods::new(3);
        assert_eq!(pods.shares(&RoundRobin::new(), 3_000), [1_000; 3]);
    }

    #[test]
    fn weighted_turns_are_evenly_distributed() {
        let pods = Pods::weighted(&[1, 3]);
        let policy = RoundRobin::new();
        for _ in 0..100 {
            let shares = pods.shares(&policy, 8);
            assert!((1..=3).contains(&shares[0]), "{shares:?}");
        }
        let shares = pods.shares(&policy, 4_000);
        assert!(shares[0].abs_diff(1_000) <= 2, "{shares:?}");
    }
}
