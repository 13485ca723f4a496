use std::time::Duration;

use super::Rng;
use crate::endpoint::{
    slot::{Load, Slot, Slots},
    snapshot::{Candidate, Snapshot},
};

/// Maximum number of rejected draws, after which a method that needs no rejection is used.
const TRIES: usize = 8;

/// The Pods from which a checkout can choose, with their loads. Indexes run from 0 to [`len`](Candidates::len) - 1.
///
/// # Panics
///
/// Methods that take an index panic if it is out of range.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    slots: &'a Slots,
    list: &'a [Candidate],
    heaviest: u32,
}

impl<'a> Candidates<'a> {
    #[inline]
    pub(crate) fn new<P>(snapshot: &'a Snapshot<P>, list: &'a [Candidate]) -> Self {
        Self { slots: snapshot.slots(), list, heaviest: snapshot.heaviest() }
    }

    /// Returns the number of candidates.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns true if there are no candidates.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns the number of connections to the Pod that are checked out from this pool, and of statements on its
    /// shared connections.
    #[inline]
    #[must_use]
    pub fn in_flight(&self, index: usize) -> u32 {
        self.slots.slot(self.list[index].slot).in_flight()
    }

    /// Returns the Pod's latency as a multiple of the fastest Pods' latency, from 1 to 64.
    ///
    /// The value is 1 for Pods within twice the latency of the fastest Pods, and for Pods with too few statements to
    /// judge. A Pod has a value above 3 only if its latency is more than four times and at least 2 ms more than that of
    /// the fastest Pods. The value is updated ten times a second. The latency of the Pod's statements is compared with
    /// that of the statements on other Pods of its role, and the latency of its probes with that of all other Pods'
    /// probes.
    #[inline]
    #[must_use]
    pub fn slowness(&self, index: usize) -> u32 {
        self.load(index).class
    }

    /// Returns the mean latency of the Pod's recent statements, or `None` if there are no measurements.
    ///
    /// The latency does not depend on how long callers hold connections.
    #[inline]
    #[must_use]
    pub fn latency(&self, index: usize) -> Option<Duration> {
        self.slots.slot(self.list[index].slot).latency()
    }

    /// Returns the Pod's peak latency, or `None` if there are no measurements. A slow statement raises the peak
    /// immediately. It then decays with a time constant of 10 s.
    #[inline]
    #[must_use]
    pub fn peak_latency(&self, index: usize) -> Option<Duration> {
        self.slots.slot(self.list[index].slot).peak()
    }

    /// Returns the Pod's weight: its share of the checkouts relative to that of a Pod of weight 1. Returns 1 if all
    /// weights are equal.
    #[inline]
    #[must_use]
    pub fn weight(&self, index: usize) -> u32 {
        self.list[index].weight
    }

    /// Returns true if the candidates' weights differ.
    #[inline]
    #[must_use]
    pub fn is_weighted(&self) -> bool {
        self.heaviest > 1
    }

    /// Draws a random candidate with a probability proportional to its weight. Returns `None` if there are no
    /// candidates.
    #[inline]
    #[must_use]
    pub fn draw(&self, rng: &mut Rng) -> Option<usize> {
        if self.is_weighted() {
            return self.draw_weighted(rng);
        }
        (!self.is_empty()).then(|| rng.below(self.len()))
    }

    /// Draws two different random candidates with probabilities proportional to their weights. A single candidate is
    /// returned twice.
    #[inline]
    #[must_use]
    pub fn draw_two(&self, rng: &mut Rng) -> Option<(usize, usize)> {
        let first = self.draw(rng)?;
        if self.len() == 1 {
            return Some((first, first));
        }
        if !self.is_weighted() {
            let second = rng.below(self.len() - 1);
            return Some((first, second + usize::from(second >= first)));
        }
        for _ in 0..TRIES {
            match self.draw(rng)? {
                again if again == first => {}
                second => return Some((first, second)),
            }
        }
        let second = rng.below(self.len() - 1);
        Some((first, second + usize::from(second >= first)))
    }

    #[inline]
    pub(crate) fn load(&self, index: usize) -> Load {
        self.slots.slot(self.list[index].slot).load()
    }

    /// Returns true if the candidate with this index exists and has no connection in use, and all Pods are in the
    /// fastest latency class.
    #[inline(always)]
    pub(crate) fn is_idle_and_even(&self, index: usize) -> bool {
        self.list.get(index).and_then(|candidate| self.slots.find(candidate.slot)).is_some_and(Slot::is_idle_and_even)
    }

    /// Returns true if at least one Pod, whether a candidate or not, is not in the fastest latency class.
    #[inline]
    pub(crate) fn is_uneven(&self) -> bool {
        self.list.first().is_some_and(|candidate| self.slots.slot(candidate.slot).is_uneven())
    }

    /// Returns the number of connections in use of every candidate, in the order of their indexes.
    #[inline]
    pub(crate) fn in_flights(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.slots().map(Slot::in_flight)
    }

    #[inline]
    fn slots(&self) -> impl Iterator<Item = &'a Slot> + use<'a> {
        self.slots.of(self.list.iter().map(|candidate| candidate.slot))
    }

    /// Draws by rejection: draws a candidate uniformly, and accepts it with a probability of its weight divided by the
    /// maximum weight. After [`TRIES`] rejections, draws a number below the sum of all weights instead, which results
    /// in the same distribution.
    fn draw_weighted(&self, rng: &mut Rng) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        for _ in 0..TRIES {
            let index = rng.below(self.len());
            if rng.below(self.heaviest as usize) < self.weight(index) as usize {
                return Some(index);
            }
        }
        let total: usize = self.list.iter().map(|candidate| candidate.weight as usize).sum();
        self.at(rng.below(total))
    }

    /// Returns the index of the first candidate for which the sum of its weight and all previous weights exceeds
    /// `point`.
    pub(crate) fn at(&self, point: usize) -> Option<usize> {
        let mut left = point;
        self.list.iter().position(|candidate| match left.checked_sub(candidate.weight as usize) {
            Some(rest) => {
                left = rest;
                false
            }
            None => true,
        })
    }
}
