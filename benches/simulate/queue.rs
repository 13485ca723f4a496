//! The queue of future events, ordered by time. Events at the same time keep the order in which they were scheduled.

use std::{cmp::Reverse, collections::BinaryHeap};

#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Reverse<(u64, u64, Unordered<E>)>>,
    scheduled: u64,
}

/// A wrapper that makes all events compare equal, so that only times and sequence numbers order the heap.
#[derive(Debug)]
struct Unordered<E>(E);

impl<E> PartialEq for Unordered<E> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<E> Eq for Unordered<E> {}
impl<E> PartialOrd for Unordered<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Unordered<E> {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), scheduled: 0 }
    }

    /// Schedules an event at a time, in nanoseconds since the start.
    pub(crate) fn at(&mut self, nanos: u64, event: E) {
        self.scheduled += 1;
        self.heap.push(Reverse((nanos, self.scheduled, Unordered(event))));
    }

    /// Removes the earliest event and returns it with its time.
    pub(crate) fn next(&mut self) -> Option<(u64, E)> {
        self.heap.pop().map(|Reverse((nanos, _, Unordered(event)))| (nanos, event))
    }
}
