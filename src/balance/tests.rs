//! A set of Pods for the tests of policies.

use proptest::prelude::*;

use super::{Candidates, LeastCost, Policy, Random, Rng};
use crate::endpoint::{
    slot::{Slab, Slot, SlotHandle},
    snapshot::{Candidate, LISTS, Places, Snapshot},
};

pub(super) struct Pods {
    handles: Vec<SlotHandle>,
    snapshot: Snapshot<()>,
}

impl Pods {
    pub(super) fn new(n: usize) -> Self {
        Self::weighted(&vec![1; n])
    }

    pub(super) fn weighted(weights: &[u32]) -> Self {
        let mut slab = Slab::default();
        let handles: Vec<_> = weights.iter().map(|_| slab.take()).collect();
        let candidate = |(handle, &weight): (&SlotHandle, &u32)| Candidate { slot: handle.number(), weight };
        let list = handles.iter().zip(weights).map(candidate).collect();
        let snapshot = Snapshot::new(slab.slots(), Places::default(), &[list], [0; LISTS]);
        Self { handles, snapshot }
    }

    pub(super) fn slot(&self, index: usize) -> &Slot {
        &self.handles[index]
    }

    /// Sets the latency class of each Pod.
    pub(super) fn set_classes(&self, classes: &[u32]) {
        for (slot, &class) in self.handles.iter().zip(classes) {
            slot.set_class(class);
            slot.set_uneven(classes.iter().any(|&class| class > 1));
        }
    }

    pub(super) fn with<R>(&self, f: impl FnOnce(&Candidates<'_>) -> R) -> R {
        f(&Candidates::new(&self.snapshot, self.snapshot.candidates(0)))
    }

    /// Returns the number of times that each Pod is picked while the loads stay constant.
    pub(super) fn shares(&self, policy: &impl Policy, picks: usize) -> Vec<usize> {
        let (mut rng, mut shares) = (Rng::seeded(42), vec![0; self.handles.len()]);
        self.with(|all| (0..picks).for_each(|_| shares[policy.pick(all, &mut rng).unwrap()] += 1));
        shares
    }

    /// Returns the number of connections in use on each Pod after this many checkouts without a check-in.
    pub(super) fn hold(&self, policy: &impl Policy, picks: usize) -> Vec<u32> {
        let mut rng = Rng::seeded(42);
        self.with(|all| (0..picks).for_each(|_| self.slot(policy.pick(all, &mut rng).unwrap()).checkout()));
        self.handles.iter().map(|handle| handle.in_flight()).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn shares_of_idle_pods_are_proportional_to_any_weights(weights in prop::collection::vec(1..=100u32, 1..7)) {
        const PICKS: usize = 10_000;
        let sum: u32 = weights.iter().sum();
        let pods = Pods::weighted(&weights);
        for shares in [pods.shares(&LeastCost, PICKS), pods.shares(&Random, PICKS)] {
            for (share, weight) in shares.iter().zip(&weights) {
                let (share, expected) = (*share as f64 / PICKS as f64, f64::from(*weight) / f64::from(sum));
                prop_assert!((share - expected).abs() < 0.025, "{share} instead of {expected}: {weights:?}");
            }
        }
    }

    #[test]
    fn connections_in_use_are_proportional_to_any_weights(weights in prop::collection::vec(1..=100u32, 1..7)) {
        let sum: u32 = weights.iter().sum();
        let held = Pods::weighted(&weights).hold(&LeastCost, 2 * sum as usize);
        for (held, weight) in held.iter().zip(&weights) {
            prop_assert!(held.abs_diff(2 * weight) <= 1 + weight / 50, "{held} for weight {weight}: {weights:?}");
        }
    }
}
