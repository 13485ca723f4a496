//! The set of Pods that a checkout chooses from. A snapshot is immutable; a change to the set publishes a new snapshot.

use super::{
    chunks::Chunks,
    slot::{Slab, Slots},
};
use crate::sync::Arc;

/// Number of candidate lists: one for each [`Target`](crate::config::Target).
pub(crate) const LISTS: usize = 7;

/// One Pod in a list of candidates.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Candidate {
    /// The number of the Pod's slot, which is also its index in [`Places`].
    pub(crate) slot: u32,
    /// The Pod's weight; 1 if all weights are equal.
    pub(crate) weight: u32,
}

/// The Pods, indexed by the numbers of their slots. A new snapshot shares the unchanged chunks with its predecessor:
/// adding one Pod to a set of one thousand copies one chunk of 64 entries instead of all entries.
pub(crate) type Places<P> = Chunks<Option<P>>;

/// The Pods, their slots, and the candidates for each target (the role that a caller asks for).
#[derive(Clone, Debug)]
pub(crate) struct Snapshot<P> {
    slots: Slots,
    pods: Places<P>,
    /// The candidates for each target. Targets with equal candidates share a list.
    lists: [Arc<[Candidate]>; LISTS],
    /// Equal to `lists` if all weights are equal. If the weights differ, all these lists are empty.
    even: [Arc<[Candidate]>; LISTS],
    /// The maximum weight of a candidate; 1 if all weights are equal.
    heaviest: u32,
}

impl<P> Snapshot<P> {
    /// Creates a snapshot. `of` contains, for each target, the index of its list in `lists`.
    pub(crate) fn new(slots: Slots, pods: Places<P>, lists: &[Arc<[Candidate]>], of: [usize; LISTS]) -> Self {
        let all = lists.iter().flat_map(|list| list.iter());
        let heaviest = all.map(|candidate| candidate.weight).max().unwrap_or(1);
        let lists = of.map(|i| lists[i].clone());
        let even = if heaviest == 1 { lists.clone() } else { Default::default() };
        Self { slots, pods, lists, even, heaviest }
    }

    /// Creates a snapshot without Pods.
    pub(crate) fn empty() -> Self {
        Self::new(Slab::default().slots(), Places::default(), &[Arc::default()], [0; LISTS])
    }

    #[inline]
    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Returns the maximum weight of a candidate; 1 if all weights are equal.
    #[inline]
    pub(crate) fn heaviest(&self) -> u32 {
        self.heaviest
    }

    /// Returns all Pods with the numbers of their slots, whether or not they are candidates.
    pub(crate) fn pods(&self) -> impl Iterator<Item = (u32, &P)> {
        (0..).zip(self.pods.iter()).filter_map(|(slot, pod)| Some((slot, pod.as_ref()?)))
    }

    /// Returns the Pod of a candidate from one of this snapshot's lists.
    #[inline(always)]
    pub(crate) fn pod(&self, candidate: Candidate) -> &P {
        self.pods.get(candidate.slot).as_ref().expect("every candidate is a Pod of its snapshot")
    }

    /// Returns the Pod with this slot number, or `None` if the snapshot has no such Pod.
    #[inline(always)]
    pub(crate) fn find(&self, slot: u32) -> Option<&P> {
        self.pods.find(slot)?.as_ref()
    }

    /// Returns the candidates for the target with this index if all weights are equal. If the weights differ, returns
    /// an empty list.
    #[inline(always)]
    pub(crate) fn even_candidates(&self, target: usize) -> &[Candidate] {
        &self.even[target]
    }

    /// Returns the candidates for the target with this index.
    #[inline]
    pub(crate) fn candidates(&self, target: usize) -> &[Candidate] {
        &self.lists[target]
    }
}

#[cfg(all(test, not(podpool_loom)))]
mod tests {
    use super::*;
    use crate::endpoint::slot::Slot;

    /// Checks the memory per Pod: the slot, the entry in `pods`, and one entry in every candidate list.
    #[test]
    #[allow(clippy::print_stdout, reason = "prints the measured size")]
    fn a_pod_takes_at_most_320_bytes_of_a_snapshot() {
        let bytes = size_of::<Slot>() + size_of::<Option<Arc<()>>>() + LISTS * size_of::<Candidate>();
        println!("{bytes} bytes");
        assert!(bytes <= 320, "{bytes}");
    }
}
