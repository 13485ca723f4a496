//! The set of Pods as one checkout sees it: never changed, replaced whole.

use super::{
    chunks::Chunks,
    slot::{Slab, Slots},
};
use crate::sync::Arc;

/// How many lists of candidates there are: one a target.
pub(crate) const LISTS: usize = 7;

/// One Pod in a list of candidates.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Candidate {
    /// The number of its slot, which is its place among the snapshot's Pods too.
    pub(crate) slot: u32,
    /// Its weight; 1 where all are the same.
    pub(crate) weight: u32,
}

/// The Pods, each at the number of its slot. In chunks, so that the next set shares with this one what has not changed: one
/// Pod more or less costs a chunk, not a reference count for each of a thousand.
pub(crate) type Places<P> = Chunks<Option<P>>;

/// The Pods, their slots, and the candidates of each target, ready made.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot<P> {
    slots: Slots,
    pods: Places<P>,
    /// Targets with the same candidates share a list.
    lists: [Arc<[Candidate]>; LISTS],
    /// The same where all weights are the same, and nobody where they are not.
    even: [Arc<[Candidate]>; LISTS],
    /// The greatest weight; 1 where all are the same.
    heaviest: u32,
}

impl<P> Snapshot<P> {
    /// A snapshot of these Pods. `of` says which of the lists each target has.
    pub(crate) fn new(slots: Slots, pods: Places<P>, lists: &[Arc<[Candidate]>], of: [usize; LISTS]) -> Self {
        let all = lists.iter().flat_map(|list| list.iter());
        let heaviest = all.map(|candidate| candidate.weight).max().unwrap_or(1);
        let lists = of.map(|i| lists[i].clone());
        let even = if heaviest == 1 { lists.clone() } else { Default::default() };
        Self { slots, pods, lists, even, heaviest }
    }

    /// Nobody.
    pub(crate) fn empty() -> Self {
        Self::new(Slab::default().slots(), Places::default(), &[Arc::default()], [0; LISTS])
    }

    /// The slots, by number.
    #[inline]
    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// The greatest weight of a candidate; 1 where all weights are the same.
    #[inline]
    pub(crate) fn heaviest(&self) -> u32 {
        self.heaviest
    }

    /// All Pods, candidates or not, each with the number of its slot.
    pub(crate) fn pods(&self) -> impl Iterator<Item = (u32, &P)> {
        (0..).zip(self.pods.iter()).filter_map(|(slot, pod)| Some((slot, pod.as_ref()?)))
    }

    /// The Pod of a candidate from one of this snapshot's lists.
    #[inline(always)]
    pub(crate) fn pod(&self, candidate: Candidate) -> &P {
        self.pods.get(candidate.slot).as_ref().expect("a candidate is a Pod of its snapshot")
    }

    /// The Pod of the slot with this number, if there is one.
    #[inline(always)]
    pub(crate) fn find(&self, slot: u32) -> Option<&P> {
        self.pods.find(slot)?.as_ref()
    }

    /// The candidates of the target with this index, if their weights are the same; else nobody.
    #[inline(always)]
    pub(crate) fn even_candidates(&self, target: usize) -> &[Candidate] {
        &self.even[target]
    }

    /// The candidates of the target with this index.
    #[inline]
    pub(crate) fn candidates(&self, target: usize) -> &[Candidate] {
        &self.lists[target]
    }
}

#[cfg(all(test, not(podpool_loom)))]
mod tests {
    use super::*;
    use crate::endpoint::slot::Slot;

    /// Its slot, its place, and its part of every list, had each target one of its own.
    #[test]
    #[allow(clippy::print_stdout, reason = "a test says what it measured")]
    fn what_choosing_needs_of_a_pod_is_at_most_320_bytes() {
        let bytes = size_of::<Slot>() + size_of::<Option<Arc<()>>>() + LISTS * size_of::<Candidate>();
        println!("{bytes} bytes");
        assert!(bytes <= 320, "{bytes}");
    }
}
