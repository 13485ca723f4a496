//! Publishes immutable values to all threads. Each thread reads its own copy of the current value.
//!
//! A reader compares the published version with the version of its thread's copy. If the versions differ, the reader
//! takes the lock and renews the copy, so each thread takes the lock at most once per publication. All other reads
//! leave shared memory unchanged, so readers do not slow each other down.
//!
//! # Orderings
//!
//! A writer replaces the value and stores the new version under one lock. A reader's acquire load of the version pairs
//! with the writer's release store: a reader that loads the new version and takes the lock finds the new value, or an
//! even newer value together with its version. A reader that still loads the old version uses the old value, as if it
//! had run a moment earlier.
//!
//! Versions are unique within the process, across all published values. Therefore a copy whose version equals the
//! published version is a current copy of that value.
//!
//! # Alternatives
//!
//! * `arc-swap`: `ArcSwap::load` costs about as much as an uncontended mutex, and `load_full` contends on the reference
//!   count. `arc_swap::cache::Cache` keeps a copy and compares pointers, which is as fast as this module. However, a
//!   `Cache` is a handle for one value, and each thread has to store its own `Cache`. Because a pool can be used from
//!   any thread, each thread would still need a table of caches that is bounded and drops the caches of pools that no
//!   longer exist. Such a table is [`Copies`], which is most of this module. `arc-swap` would replace only
//!   [`Published`], which is a mutex and a counter. The replacement would be unsafe code that loom cannot check,
//!   because `arc-swap` does not use loom's atomics.
//! * `left-right`: each read writes to an epoch counter, a publication waits for the readers of the previous value, and
//!   each thread has to store a handle too.
//! * `tokio::sync::watch`: each read takes a shared lock, on which readers contend.

use crate::{
    sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, lock},
    system::{count_retired, retired, unique},
};

/// A published value, which can be replaced.
#[derive(Debug)]
pub(crate) struct Published<T>(Arc<Cell<T>>);

#[derive(Debug)]
struct Cell<T> {
    version: AtomicU64,
    value: Mutex<Arc<T>>,
    /// True after the publisher was dropped. Threads no longer need their copies then.
    retired: AtomicBool,
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
        Self(Arc::new(Cell {
            version: AtomicU64::new(unique()),
            value: Mutex::new(Arc::new(value)),
            retired: AtomicBool::new(false),
        }))
    }

    /// Replaces the value.
    pub(crate) fn publish(&self, value: Arc<T>) {
        let old = {
            let mut current = lock(&self.0.value);
            let old = std::mem::replace(&mut *current, value);
            // Release pairs with the acquire in `version`. All stores are under the lock, so the version only rises.
            self.0.version.store(unique(), Ordering::Release);
            old
        };
        drop(old); // outside the lock, because this may drop the last reference to large parts of the old value
    }

    /// Returns the version of the current value. No other value has the same version.
    #[inline]
    pub(crate) fn version(&self) -> u64 {
        // Acquire pairs with the release in `publish`.
        self.0.version.load(Ordering::Acquire)
    }

    /// Returns the current value. Takes the lock.
    pub(crate) fn load(&self) -> Arc<T> {
        lock(&self.0.value).clone()
    }

    /// Ends the publication: every thread drops its copy at its next read of any published value.
    pub(crate) fn retire(&self) {
        // Relaxed: the number of retired values is incremented afterwards with release, which pairs with the acquire in
        // `Copies::purge`.
        self.0.retired.store(true, Ordering::Relaxed);
        count_retired();
    }

    fn copy(&self) -> Cached<T> {
        let value = lock(&self.0.value);
        // Relaxed: `publish` stores the version under the lock that is held here.
        Cached { cell: self.0.clone(), version: self.0.version.load(Ordering::Relaxed), value: value.clone() }
    }
}

/// Maximum number of copies per thread. Programs rarely use more pools on one thread.
const COPIES: usize = 8;

/// One thread's copies of published values.
#[derive(Debug)]
pub(crate) struct Copies<T> {
    /// The copy that was used last.
    last: Option<Cached<T>>,
    others: Vec<Cached<T>>,
    /// The index in `others` that was overwritten last.
    next: usize,
    /// The number of values that were retired in this process at the last purge. When the number changes, the copies of
    /// retired values are dropped.
    retired: u64,
}

#[derive(Debug)]
struct Cached<T> {
    cell: Arc<Cell<T>>,
    version: u64,
    value: Arc<T>,
}

impl<T> Copies<T> {
    /// Creates a set without copies.
    pub(crate) const fn new() -> Self {
        Self { last: None, others: Vec::new(), next: 0, retired: 0 }
    }

    /// Returns the copy that was used last, if it has this version and no value was retired since the last purge.
    #[inline(always)]
    pub(crate) fn current(&self, version: u64) -> Option<&T> {
        // Relaxed: a stale read only delays the purge.
        let retired = retired(std::sync::atomic::Ordering::Relaxed);
        match &self.last {
            Some(cached) if cached.version == version && self.retired == retired => Some(&cached.value),
            _ => None,
        }
    }

    /// Returns this thread's copy of the value. Renews the copy if a new value was published.
    pub(crate) fn get(&mut self, published: &Published<T>) -> &T {
        if self.current(published.version()).is_none() {
            self.renew(published);
        }
        match &self.last {
            Some(cached) => &cached.value,
            None => unreachable!("`renew` stores a copy"),
        }
    }

    /// Drops this thread's copy of the value.
    pub(crate) fn forget(&mut self, published: &Published<T>) {
        self.last.take_if(|cached| Arc::ptr_eq(&cached.cell, &published.0));
        self.others.retain(|cached| !Arc::ptr_eq(&cached.cell, &published.0));
        self.next = 0;
    }

    /// Makes `last` a current copy of this value.
    #[cold]
    #[inline(never)]
    fn renew(&mut self, published: &Published<T>) {
        self.purge();
        let is_same = |cached: &Cached<T>| Arc::ptr_eq(&cached.cell, &published.0);
        if !self.last.as_ref().is_some_and(is_same) {
            match self.others.iter().position(is_same) {
                Some(position) => {
                    let other = self.others.swap_remove(position);
                    self.others.extend(self.last.replace(other));
                }
                None => self.move_last_to_others(),
            }
        }
        // A thread that alternates between pools takes no lock while its copies are current.
        if self.current(published.version()).is_none() {
            self.last = Some(published.copy());
        }
    }

    /// Drops the copies of retired values.
    fn purge(&mut self) {
        // Acquire pairs with the release in `retire`: the `retired` flags of all counted values are visible.
        let retired = retired(std::sync::atomic::Ordering::Acquire);
        if std::mem::replace(&mut self.retired, retired) == retired {
            return;
        }
        // Relaxed: the acquire load of the number orders this load.
        let is_retired = |cached: &mut Cached<T>| cached.cell.retired.load(Ordering::Relaxed);
        let mut dropped: Vec<_> = self.others.extract_if(.., is_retired).collect();
        dropped.extend(self.last.take_if(is_retired));
        self.next = 0;
    }

    /// Moves the copy in `last` to `others`, so that `last` can hold another copy.
    fn move_last_to_others(&mut self) {
        let Some(last) = self.last.take() else { return };
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

    fn count<T>(copies: &Copies<T>) -> usize {
        copies.others.len() + usize::from(copies.last.is_some())
    }

    #[test]
    fn a_reader_sees_the_last_publication() {
        let published = Published::new(1);
        let mut copies = Copies::new();
        assert_eq!(*copies.get(&published), 1);
        published.publish(Arc::new(2));
        published.publish(Arc::new(3));
        assert_eq!(*copies.get(&published), 3);
        assert_eq!(*published.load(), 3);
    }

    #[test]
    fn drops_copies_of_values_without_a_publisher() {
        let mut copies = Copies::new();
        for i in 0..10_000 {
            let published = Published::new(i);
            assert_eq!(*copies.get(&published), i);
            published.retire();
        }
        let last = Published::new(-1);
        assert_eq!(*copies.get(&last), -1);
        assert_eq!(count(&copies), 1);
        copies.forget(&last);
        assert_eq!(count(&copies), 0);
    }

    #[test]
    fn drops_retired_copies_at_the_next_read_of_any_value() {
        let (retired, other, value) = (Published::new(Arc::new(1)), Published::new(Arc::new(2)), Arc::new(3));
        let mut copies = Copies::new();
        copies.get(&other);
        retired.publish(Arc::new(value.clone()));
        copies.get(&retired);
        // A second thread also holds a copy of the value that is retired below.
        let mut other_thread = Copies::new();
        other_thread.get(&retired);
        copies.get(&other);
        assert_eq!(Arc::strong_count(&value), 2);
        retired.publish(Arc::new(Arc::new(4)));
        assert_eq!(Arc::strong_count(&value), 2, "a thread keeps its copy until its next read");
        retired.retire();
        copies.get(&other);
        other_thread.get(&other);
        assert_eq!(Arc::strong_count(&value), 1);
        assert_eq!((count(&copies), count(&other_thread)), (1, 1));
    }

    #[test]
    fn keeps_current_copies_of_two_alternating_values() {
        let (one, two) = (Published::new(1), Published::new(2));
        let mut copies = Copies::new();
        for round in 0..4 {
            assert_eq!((*copies.get(&one), *copies.get(&two)), (1 + 10 * round, 2 + 10 * round));
            assert_eq!(count(&copies), 2);
            one.publish(Arc::new(11 + 10 * round));
            two.publish(Arc::new(12 + 10 * round));
        }
    }

    #[test]
    fn returns_current_values_of_more_publishers_than_copies() {
        let values: Vec<_> = (0..100).map(Published::new).collect();
        let mut copies = Copies::new();
        for round in 0..3 {
            for (i, published) in values.iter().enumerate() {
                let expected = i + round * 1000;
                published.publish(Arc::new(expected));
                assert_eq!(*copies.get(published), expected);
            }
        }
        assert_eq!(count(&copies), COPIES);
    }
}

#[cfg(all(test, podpool_loom))]
mod loom_tests {
    use super::*;

    #[test]
    fn a_reader_never_sees_an_older_value_and_ends_with_the_last() {
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
