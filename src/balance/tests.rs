//! Pods to try policies on.

use super::{Candidates, Policy, Rng};
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

    pub(super) fn slot(&self, place: usize) -> &Slot {
        &self.handles[place]
    }

    pub(super) fn with<R>(&self, work: impl FnOnce(&Candidates<'_>) -> R) -> R {
        work(&Candidates::new(&self.snapshot, self.snapshot.candidates(0)))
    }

    /// How often each is picked while nothing changes.
    pub(super) fn shares(&self, policy: &impl Policy, picks: usize) -> Vec<usize> {
        let (mut rng, mut shares) = (Rng::seeded(42), vec![0; self.handles.len()]);
        self.with(|all| (0..picks).for_each(|_| shares[policy.pick(all, &mut rng).unwrap()] += 1));
        shares
    }

    /// How many connections of each are lent out after as many picks, none of which comes back.
    pub(super) fn hold(&self, policy: &impl Policy, picks: usize) -> Vec<u32> {
        let mut rng = Rng::seeded(42);
        self.with(|all| (0..picks).for_each(|_| self.slot(policy.pick(all, &mut rng).unwrap()).checkout()));
        self.handles.iter().map(|handle| handle.in_flight()).collect()
    }
}
