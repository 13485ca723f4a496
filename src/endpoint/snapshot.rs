//! The set of Pods as one checkout sees it: never changed, replaced whole.

use super::slot::Slots;
use crate::sync::Arc;

/// How many lists of candidates there are: one a target.
pub(crate) const LISTS: usize = 7;

/// One Pod in a list of candidates.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Candidate {
    /// The number of its slot.
    pub(crate) slot: u32,
    /// Its place among the snapshot's Pods.
    pub(crate) pod: u32,
}

/// The Pods, their slots, and the candidates of each target, ready made.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot<P> {
    slots: Slots,
    pods: Box<[P]>,
    /// Targets with the same candidates share a list.
    lists: [Arc<[Candidate]>; LISTS],
}

impl<P> Snapshot<P> {
    /// A snapshot of these Pods. Each list holds places among `pods`, `of` says which list each target has, and `slot`
    /// tells the number of the slot of each Pod.
    pub(crate) fn new(
        slots: Slots,
        pods: Vec<P>,
        lists: &[Vec<u32>],
        of: [usize; LISTS],
        slot: impl Fn(u32) -> u32,
    ) -> Self {
        let list = |list: &Vec<u32>| list.iter().map(|&pod| Candidate { slot: slot(pod), pod }).collect();
        let lists: Vec<Arc<[Candidate]>> = lists.iter().map(list).collect();
        Self { slots, pods: pods.into(), lists: of.map(|i| lists[i].clone()) }
    }

    /// The slots, by number.
    #[inline]
    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// All Pods, candidates or not.
    pub(crate) fn pods(&self) -> &[P] {
        &self.pods
    }

    /// The Pod of a candidate from one of this snapshot's lists.
    #[inline]
    pub(crate) fn pod(&self, candidate: Candidate) -> &P {
        &self.pods[candidate.pod as usize]
    }

    /// The candidates of the target with this index.
    #[inline]
    pub(crate) fn candidates(&self, target: usize) -> &[Candidate] {
        &self.lists[target]
    }
}
