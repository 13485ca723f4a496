//! The events that are to come, in the order of their time, and of their making where that is the same.

use std::{cmp::Reverse, collections::BinaryHeap};

#[derive(Debug)]
pub(crate) struct Queue<E> {
    heap: BinaryHeap<Reverse<(u64, u64, Wrap<E>)>>,
    made: u64,
}

/// An event has no order of its own.
#[derive(Debug)]
struct Wrap<E>(E);

impl<E> PartialEq for Wrap<E> {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl<E> Eq for Wrap<E> {}
impl<E> PartialOrd for Wrap<E> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl<E> Ord for Wrap<E> {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
}

impl<E> Queue<E> {
    pub(crate) fn new() -> Self {
        Self { heap: BinaryHeap::new(), made: 0 }
    }

    pub(crate) fn at(&mut self, nanos: u64, event: E) {
        self.made += 1;
        self.heap.push(Reverse((nanos, self.made, Wrap(event))));
    }

    pub(crate) fn next(&mut self) -> Option<(u64, E)> {
        self.heap.pop().map(|Reverse((nanos, _, Wrap(event)))| (nanos, event))
    }
}
