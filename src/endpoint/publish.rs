//! One value, published whole, read by every thread through a copy of its own.
//!
//! A reader compares one version counter with the version of its thread's copy; only after a publication does it take
//! the lock, once a thread. Readers write nothing that is shared, so they do not slow each other.
//!
//! # Orderings
//!
//! The value is replaced and the version raised under one lock. A reader's acquire load of the version pairs with the
//! writer's release store: who sees the new version and takes the lock finds the new value, or a newer one with its own
//! version beside it. A reader that still sees the old version uses the old value, as if it had come a moment earlier.
//!
//! No two publications of a process have the same version, whatever they publish, so a reader that finds the version of
//! its copy knows that the copy is of this value.

use crate::sync::{Arc, AtomicU64, Mutex, Ordering, lock, unique};

/// The publishing end.
#[derive(Debug)]
pub(crate) struct Published<T>(Arc<Cell<T>>);

#[derive(Debug)]
struct Cell<T> {
    version: AtomicU64,
    value: Mutex<Arc<T>>,
}

#[cfg(feature = "bench")]
impl<T> Clone for Published<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Published<T> {
    /// Publishes a first value.
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new(Cell { version: AtomicU64::new(unique()), value: Mutex::new(Arc::new(value)) }))
    }

    /// Replaces the value.
    pub(crate) fn publish(&self, value: Arc<T>) {
        let old = {
            let mut current = lock(&self.0.value);
            let old = std::mem::replace(&mut *current, value);
            // Release: pairs with the load in `Published::version`. Only written under the lock, so it only rises.
            self.0.version.store(unique(), Ordering::Release);
            old
        };
        drop(old); // outside the lock: this may be the last hold on what the old value held
    }

    /// The version that the value has. No other value has it.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        // Acquire: see the module's text.
        self.0.version.load(Ordering::Acquire)
    }

    /// The value, by way of the lock.
    pub(crate) fn load(&self) -> Arc<T> {
        lock(&self.0.value).clone()
    }

    fn copy(&self) -> Kept<T> {
        let value = lock(&self.0.value);
        // Relaxed: written under the lock that is held here.
        Kept { cell: self.0.clone(), version: self.0.version.load(Ordering::Relaxed), value: value.clone() }
    }
}

/// How many published values one thread keeps copies of: more pools than a program uses on one thread at a time.
const COPIES: usize = 8;

/// One thread's copies.
#[derive(Debug)]
pub(crate) struct Copies<T> {
    /// The one that was used last is at hand.
    last: Option<Kept<T>>,
    others: Vec<Kept<T>>,
    next: usize,
}

#[derive(Debug)]
struct Kept<T> {
    cell: Arc<Cell<T>>,
    version: u64,
    value: Arc<T>,
}

impl<T> Copies<T> {
    /// None yet.
    pub(crate) const fn new() -> Self {
        Self { last: None, others: Vec::new(), next: 0 }
    }

    /// The copy at hand, if it is of the value with this version.
    #[inline(always)]
    pub(crate) fn at_hand(&self, version: u64) -> Option<&T> {
        match &self.last {
            Some(kept) if kept.version == version => Some(&kept.value),
            _ => None,
        }
    }

    /// This thread's copy of the value, brought up to date if there has been a publication.
    pub(crate) fn get(&mut self, published: &Published<T>) -> &T {
        if self.at_hand(published.version()).is_none() {
            self.renew(published);
        }
        match &self.last {
            Some(kept) => &kept.value,
            None => unreachable!("`renew` leaves a copy"),
        }
    }

    /// Lets go of this thread's copy.
    pub(crate) fn forget(&mut self, published: &Published<T>) {
        self.last.take_if(|kept| Arc::ptr_eq(&kept.cell, &published.0));
        self.others.retain(|kept| !Arc::ptr_eq(&kept.cell, &published.0));
        self.next = 0;
    }

    /// Has a copy of this value at hand, or of a newer one, and puts the one away that was there.
    #[cold]
    #[inline(never)]
    fn renew(&mut self, published: &Published<T>) {
        let is = |kept: &Kept<T>| Arc::ptr_eq(&kept.cell, &published.0);
        if !self.last.as_ref().is_some_and(is) {
            match self.others.iter().position(is) {
                Some(position) => {
                    let other = self.others.swap_remove(position);
                    self.others.extend(self.last.replace(other));
                }
                None => self.put_away(),
            }
        }
        // A thread that goes to and fro between pools takes no lock for it.
        if self.at_hand(published.version()).is_none() {
            self.last = Some(published.copy());
        }
    }

    /// Makes room for another copy.
    fn put_away(&mut self) {
        // What nobody publishes any more goes first; a pool that is gone leaves at most a copy a thread until then.
        let is_published = |kept: &Kept<T>| Arc::strong_count(&kept.cell) > 1;
        self.others.retain(is_published);
        let Some(last) = self.last.take().filter(is_published) else { return };
        if self.others.len() + 1 < COPIES {
            self.others.push(last);
        } else {
            self.next = (self.next + 1) % self.others.len();
            self.others[self.next] = last;
        }
    }
}

#[cfg(all(test, not(podpool_loom)))]
mod tests {
    use super::*;

    fn kept<T>(copies: &Copies<T>) -> usize {
        copies.others.len() + usize::from(copies.last.is_some())
    }

    #[test]
    fn a_reader_sees_each_publication() {
        let published = Published::new(1);
        let mut copies = Copies::new();
        assert_eq!(*copies.get(&published), 1);
        published.publish(Arc::new(2));
        published.publish(Arc::new(3));
        assert_eq!(*copies.get(&published), 3);
        assert_eq!(*published.load(), 3);
    }

    #[test]
    fn values_that_nobody_publishes_any_more_are_let_go() {
        let mut copies = Copies::new();
        for i in 0..10_000 {
            let published = Published::new(i);
            assert_eq!(*copies.get(&published), i);
        }
        let last = Published::new(-1);
        assert_eq!(*copies.get(&last), -1);
        assert_eq!(kept(&copies), 1);
        copies.forget(&last);
        assert_eq!(kept(&copies), 0);
    }

    #[test]
    fn two_values_in_turn_are_both_kept_and_both_fresh() {
        let (one, two) = (Published::new(1), Published::new(2));
        let mut copies = Copies::new();
        for round in 0..4 {
            assert_eq!((*copies.get(&one), *copies.get(&two)), (1 + 10 * round, 2 + 10 * round));
            assert_eq!(kept(&copies), 2);
            one.publish(Arc::new(11 + 10 * round));
            two.publish(Arc::new(12 + 10 * round));
        }
    }

    #[test]
    fn more_values_than_copies_still_read_right() {
        let values: Vec<_> = (0..100).map(Published::new).collect();
        let mut copies = Copies::new();
        for round in 0..3 {
            for (i, published) in values.iter().enumerate() {
                let expected = i + round * 1000;
                published.publish(Arc::new(expected));
                assert_eq!(*copies.get(published), expected);
            }
        }
        assert_eq!(kept(&copies), COPIES);
    }
}

#[cfg(all(test, podpool_loom))]
mod loom_tests {
    use super::*;

    /// A reader that has seen one value never sees an older one, and after the writer is done it sees the last.
    #[test]
    fn reads_never_go_back_and_end_at_the_last_value() {
        loom::model(|| {
            let published = Arc::new(Published::new(0));
            let writer = {
                let published = published.clone();
                loom::thread::spawn(move || {
                    published.publish(Arc::new(1));
                    published.publish(Arc::new(2));
                })
            };
            let mut copies = Copies::new();
            let first = *copies.get(&published);
            let second = *copies.get(&published);
            assert!(first <= second);
            writer.join().unwrap();
            assert_eq!(*copies.get(&published), 2);
        });
    }
}
