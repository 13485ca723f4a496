use std::time::Duration;

use super::Rng;
use crate::endpoint::{
    slot::{Load, Slot, Slots},
    snapshot::{Candidate, Snapshot},
};

/// Drawings by weight that may be refused before the weights are added up instead.
const TRIES: usize = 8;

/// The Pods that a checkout may use, with what is known of the load of each. Places run from 0 to
/// [`len`](Candidates::len).
///
/// # Panics
///
/// What is asked of a place panics if the place is out of range.
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

    /// How many there are.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there is none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Connections of the Pod that are lent out at this moment, by this process.
    #[inline]
    #[must_use]
    pub fn in_flight(&self, place: usize) -> u32 {
        self.load(place).in_flight
    }

    /// How many times slower than the fastest Pods it counts as: 1 for those within twice the time of the fastest, up to
    /// 64. Brought up to date ten times a second from the time of its statements, beside that of the others of its role,
    /// and from its probes.
    #[inline]
    #[must_use]
    pub fn slowness(&self, place: usize) -> u32 {
        self.load(place).class
    }

    /// How long the Pod takes to answer a statement, as seen lately; `None` while nothing is known. Never the time that
    /// a connection was held.
    #[inline]
    #[must_use]
    pub fn latency(&self, place: usize) -> Option<Duration> {
        self.slots.slot(self.list[place].slot).latency()
    }

    /// The same, raised at once by slow statements and decaying within 10 s.
    #[inline]
    #[must_use]
    pub fn peak_latency(&self, place: usize) -> Option<Duration> {
        self.slots.slot(self.list[place].slot).peak()
    }

    /// The Pod's weight: how many times the share of a Pod of weight 1 it is to get. 1 where all weights are the same.
    #[inline]
    #[must_use]
    pub fn weight(&self, place: usize) -> u32 {
        self.list[place].weight
    }

    /// Whether the weights differ.
    #[inline]
    #[must_use]
    pub fn is_weighted(&self) -> bool {
        self.heaviest > 1
    }

    /// A place at random, as likely as its weight says; `None` of an empty list.
    #[inline]
    #[must_use]
    pub fn draw(&self, rng: &mut Rng) -> Option<usize> {
        if self.is_weighted() {
            return self.draw_weighted(rng);
        }
        (!self.is_empty()).then(|| rng.below(self.len()))
    }

    /// Two different places at random, as likely as their weights say; the same one twice where there is only one.
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
    pub(crate) fn load(&self, place: usize) -> Load {
        self.slots.slot(self.list[place].slot).load()
    }

    /// Whether there is a Pod in this place that has no connection lent out and is as fast as the fastest.
    #[inline(always)]
    pub(crate) fn is_idle_and_fast(&self, place: usize) -> bool {
        self.list.get(place).and_then(|candidate| self.slots.find(candidate.slot)).is_some_and(Slot::is_idle_and_fast)
    }

    /// The load of each, in the order of the places.
    #[inline]
    pub(crate) fn loads(&self) -> impl Iterator<Item = Load> + use<'a> {
        self.slots().map(Slot::load)
    }

    #[inline]
    fn slots(&self) -> impl Iterator<Item = &'a Slot> + use<'a> {
        self.slots.of(self.list.iter().map(|candidate| candidate.slot))
    }

    /// A place drawn evenly is taken with the likelihood that its weight has beside the greatest. Where that fails too
    /// often, the weights are added up and one point on their sum is drawn: the same likelihoods.
    fn draw_weighted(&self, rng: &mut Rng) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        for _ in 0..TRIES {
            let place = rng.below(self.len());
            if rng.below(self.heaviest as usize) < self.weight(place) as usize {
                return Some(place);
            }
        }
        let total: usize = self.list.iter().map(|candidate| candidate.weight as usize).sum();
        self.at(rng.below(total))
    }

    /// Where a point on the sum of the weights lies.
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
