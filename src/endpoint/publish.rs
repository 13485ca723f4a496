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

use crate::sync::{Arc, AtomicU64, Mutex, Ordering, lock};

/// The publishing end.
#[derive(Debug)]
pub(crate) struct Published<T>(Arc<Cell<T>>);

#[derive(Debug)]
struct Cell<T> {
    version: AtomicU64,
    value: Mutex<Arc<T>>,
}

impl<T> Published<T> {
    /// Publishes a first value.
    pub(crate) fn new(value: T) -> Self {
        Self(Arc::new(Cell { version: AtomicU64::new(0), value: Mutex::new(Arc::new(value)) }))
    }

    /// Replaces the value.
    pub(crate) fn publish(&self, value: Arc<T>) {
        let old = {
            let mut current = lock(&self.0.value);
            let old = std::mem::replace(&mut *current, value);
            // Relaxed load: only this side writes, under the lock. Release: pairs with the load in `Copies::with`.
            self.0.version.store(self.0.version.load(Ordering::Relaxed) + 1, Ordering::Release);
            old
        };
        drop(old); // outside the lock: this may be the last hold on what the old value held
    }

    /// The value, by way of the lock.
    pub(crate) fn load(&self) -> Arc<T> {
        lock(&self.0.value).clone()
    }
}

/// How many published values one thread keeps copies of: more pools than a program uses on one thread at a time.
const COPIES: usize = 8;

/// One thread's copies.
#[derive(Debug)]
pub(crate) struct Copies<T> {
    copies: Vec<Kept<T>>,
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
        Self { copies: Vec::new(), next: 0 }
    }

    /// This thread's copy of the value, brought up to date if there has been a publication.
    #[inline]
    pub(crate) fn get(&mut self, published: &Published<T>) -> &T {
        let position = match self.copies.iter().position(|kept| Arc::ptr_eq(&kept.cell, &published.0)) {
            Some(position) => {
                // Acquire: see the module's text.
                if self.copies[position].version != published.0.version.load(Ordering::Acquire) {
                    self.refresh(position);
                }
                position
            }
            None => self.keep(published),
        };
        &self.copies[position].value
    }

    /// Lets go of this thread's copy.
    pub(crate) fn forget(&mut self, published: &Published<T>) {
        self.copies.retain(|kept| !Arc::ptr_eq(&kept.cell, &published.0));
        self.next = 0;
    }

    #[cold]
    fn refresh(&mut self, position: usize) {
        let kept = &mut self.copies[position];
        let current = lock(&kept.cell.value);
        // Relaxed: written under the lock that is held here.
        kept.version = kept.cell.version.load(Ordering::Relaxed);
        let old = std::mem::replace(&mut kept.value, current.clone());
        drop(current);
        drop(old);
    }

    #[cold]
    fn keep(&mut self, published: &Published<T>) -> usize {
        // What nobody publishes any more goes first; a pool that is gone leaves at most a copy a thread until then.
        self.copies.retain(|kept| Arc::strong_count(&kept.cell) > 1);
        let (version, value) = {
            let current = lock(&published.0.value);
            (published.0.version.load(Ordering::Relaxed), current.clone())
        };
        let kept = Kept { cell: published.0.clone(), version, value };
        if self.copies.len() < COPIES {
            self.copies.push(kept);
            self.copies.len() - 1
        } else {
            self.next = (self.next + 1) % COPIES;
            self.copies[self.next] = kept;
            self.next
        }
    }
}

#[cfg(all(test, not(podpool_loom)))]
mod tests {
    use super::*;

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
        assert_eq!(copies.copies.len(), 1);
        copies.forget(&last);
        assert!(copies.copies.is_empty());
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
        assert_eq!(copies.copies.len(), COPIES);
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
