use std::time::Duration;

use crate::endpoint::{slot::Slots, snapshot::Candidate};

/// The Pods that a checkout may use, with what is known of the load of each. Places run from 0 to
/// [`len`](Candidates::len).
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    slots: &'a Slots,
    list: &'a [Candidate],
}

impl<'a> Candidates<'a> {
    #[inline]
    pub(crate) fn new(slots: &'a Slots, list: &'a [Candidate]) -> Self {
        Self { slots, list }
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
    ///
    /// # Panics
    ///
    /// If the place is out of range.
    #[inline]
    #[must_use]
    pub fn in_flight(&self, place: usize) -> u32 {
        self.slots.slot(self.list[place].slot).in_flight()
    }

    /// How long the Pod takes to answer a statement, as seen lately; `None` while nothing is known. Never the time that
    /// a connection was held.
    ///
    /// # Panics
    ///
    /// If the place is out of range.
    #[inline]
    #[must_use]
    pub fn latency(&self, place: usize) -> Option<Duration> {
        self.slots.slot(self.list[place].slot).latency()
    }
}
