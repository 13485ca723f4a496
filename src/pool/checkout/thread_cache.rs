//! Per-thread state of the checkout: copies of the published view, a random number generator and scratch space.
//!
//! The state is in a thread-local without a destructor. With a destructor, each access would check whether the
//! thread-local is still alive, and this check takes a seventh of the time that it takes to pick a Pod. A second
//! thread-local with a destructor, [`ClearOnExit`], clears the state when the thread ends. Only slow paths access the
//! second thread-local. After it has been destroyed, slow paths use a temporary copy and store nothing.

use std::{
    cell::RefCell,
    mem::{self, ManuallyDrop},
    thread::LocalKey,
};

use crate::{
    balance::Rng,
    endpoint::{
        publish::{Copies, Published},
        snapshot::Candidate,
    },
};

/// One thread's copies of published values, its random number generator and its scratch space.
#[derive(Debug)]
pub(crate) struct ThreadCache<T> {
    copies: Copies<T>,
    rng: Rng,
    /// True once the generator has a random seed. The seed is set when a copy is refreshed for the first time.
    seeded: bool,
    scratch: Vec<Candidate>,
    /// The last time of the coarse clocks that this thread has [verified](crate::pool::pod::clock).
    verified: u64,
}

/// The thread-local cell of a [`ThreadCache`].
pub(crate) type CacheCell<T> = RefCell<ManuallyDrop<ThreadCache<T>>>;

/// Clears a [`CacheCell`] when the thread ends.
#[derive(Debug)]
pub(crate) struct ClearOnExit<T: 'static>(&'static LocalKey<CacheCell<T>>);

impl<T> ClearOnExit<T> {
    /// Creates the guard that clears `cell`.
    pub(crate) const fn of(cell: &'static LocalKey<CacheCell<T>>) -> Self {
        Self(cell)
    }
}

impl<T> Drop for ClearOnExit<T> {
    fn drop(&mut self) {
        let old = self
            .0
            .with(|cell| cell.try_borrow_mut().ok().map(|mut cell| mem::replace(&mut *cell, ThreadCache::empty())));
        // The old state is dropped outside of the borrow, because dropping the last reference to a value may run code
        // that uses the cell.
        drop(old.map(ManuallyDrop::into_inner));
    }
}

impl<T> ThreadCache<T> {
    const fn new() -> Self {
        Self { copies: Copies::new(), rng: Rng::seeded(0), seeded: false, scratch: Vec::new(), verified: u64::MAX }
    }

    const fn empty() -> ManuallyDrop<Self> {
        ManuallyDrop::new(Self::new())
    }

    /// Creates an empty cell.
    pub(crate) const fn cell() -> CacheCell<T> {
        RefCell::new(Self::empty())
    }

    /// Runs `work` on this thread's copy of the published value. Returns `None` if the copy is stale or in use, or if
    /// this thread has not verified the time `clock`.
    // All calls are inlined, so that the fast path makes no function call and saves no registers.
    #[inline(always)]
    pub(crate) fn with_current<R>(
        cell: &'static LocalKey<CacheCell<T>>,
        published: &Published<T>,
        clock: u64,
        work: impl FnOnce(&T, &mut Rng) -> Option<R>,
    ) -> Option<R> {
        // `try_with` instead of `with`, because `with` is not always inlined. It never fails, because the thread-local
        // has no destructor.
        let found = cell.try_with(
            #[inline(always)]
            |cell| {
                let version = published.version();
                let mut cell = cell.try_borrow_mut().ok()?;
                let Self { copies, rng, verified, .. } = &mut **cell;
                if *verified != clock {
                    return None;
                }
                work(copies.current(version)?, rng)
            },
        );
        found.ok().flatten()
    }

    /// Refreshes this thread's copy of the published value and runs `work` on it.
    ///
    /// Uses a temporary copy if the thread is ending, or if `work` calls this function again. A nested call can happen
    /// because a policy may check out a connection, and because closing a connection may wake code that does so.
    pub(crate) fn with<R>(
        cell: &'static LocalKey<CacheCell<T>>,
        clear_on_exit: &'static LocalKey<ClearOnExit<T>>,
        published: &Published<T>,
        work: impl FnOnce(&T, &mut Rng, &mut Vec<Candidate>) -> R,
    ) -> R {
        let mut work = Some(work);
        let mut run = |Self { copies, rng, seeded, scratch, .. }: &mut Self| {
            if !mem::replace(seeded, true) {
                *rng = Rng::from_os();
            }
            Some((work.take()?)(copies.get(published), rng, scratch))
        };
        let is_alive = clear_on_exit.try_with(|_| ()).is_ok();
        let done = if is_alive {
            cell.with(|cell| cell.try_borrow_mut().ok().and_then(|mut local| run(&mut local)))
        } else {
            None
        };
        let done = done.or_else(|| run(&mut Self::new()));
        done.unwrap_or_else(|| unreachable!("`run` returns `None` only on a second call"))
    }

    /// Returns true if this thread has verified the time `clock`.
    pub(crate) fn is_verified(cell: &'static LocalKey<CacheCell<T>>, clock: u64) -> bool {
        cell.with(|cell| cell.try_borrow().is_ok_and(|local| local.verified == clock))
    }

    /// Records that this thread has verified the time `clock`. Does nothing while the state is in use.
    pub(crate) fn set_verified(cell: &'static LocalKey<CacheCell<T>>, clock: u64) {
        cell.with(|cell| {
            if let Ok(mut local) = cell.try_borrow_mut() {
                local.verified = clock;
            }
        });
    }

    /// Drops this thread's copy of the published value.
    pub(crate) fn forget(cell: &'static LocalKey<CacheCell<T>>, published: &Published<T>) {
        cell.with(|cell| {
            // A copy that is in use is kept until a copy of another value replaces it.
            if let Ok(mut local) = cell.try_borrow_mut() {
                local.copies.forget(published);
            }
        });
    }
}

#[cfg(all(test, not(podpool_loom)))]
mod tests {
    use std::{
        sync::{Arc, mpsc},
        thread,
    };

    use super::*;

    thread_local! {
        static LOCAL: CacheCell<u32> = const { ThreadCache::cell() };
        static END: ClearOnExit<u32> = const { ClearOnExit::of(&LOCAL) };
    }

    fn current(published: &Published<u32>) -> Option<u32> {
        ThreadCache::with_current(&LOCAL, published, u64::MAX, |value, _| Some(*value))
    }

    fn with(published: &Published<u32>) -> u32 {
        ThreadCache::with(&LOCAL, &END, published, |value, _, _| *value)
    }

    #[test]
    fn with_current_returns_none_without_a_current_copy() {
        let (one, two) = (Published::new(1), Published::new(2));
        assert_eq!((current(&one), with(&one), current(&one)), (None, 1, Some(1)));
        one.publish(11.into());
        assert_eq!((current(&one), with(&one), current(&one)), (None, 11, Some(11)));
        assert_eq!((current(&two), with(&two), current(&two)), (None, 2, Some(2)));
        assert_eq!((current(&one), with(&one), current(&one)), (None, 11, Some(11)));
        ThreadCache::forget(&LOCAL, &one);
        assert_eq!((current(&one), with(&one)), (None, 11));
    }

    #[test]
    fn a_nested_call_uses_a_temporary_copy() {
        let (one, two) = (Published::new(1), Published::new(2));
        let inner = ThreadCache::with(&LOCAL, &END, &one, |_, _, _| {
            one.publish(11.into());
            ThreadCache::forget(&LOCAL, &one);
            (current(&one), with(&one), with(&two))
        });
        assert_eq!(inner, (None, 11, 2));
        assert_eq!(ThreadCache::with_current(&LOCAL, &two, u64::MAX, |_, _| Some(())), None);
        assert_eq!((with(&one), current(&one)), (11, Some(11)));
    }

    #[test]
    fn threads_draw_different_random_numbers() {
        let draw = || {
            let published = Published::new(0);
            ThreadCache::with(&LOCAL, &END, &published, |_, rng, _| rng.below(usize::MAX))
        };
        assert_ne!(thread::spawn(draw).join().unwrap(), thread::spawn(draw).join().unwrap());
    }

    #[test]
    fn copies_are_dropped_when_the_thread_ends() {
        let value = Arc::new(());
        let published = Published::new(value.clone());
        thread_local! {
            static LOCAL: CacheCell<Arc<()>> = const { ThreadCache::cell() };
            static END: ClearOnExit<Arc<()>> = const { ClearOnExit::of(&LOCAL) };
        }
        thread::scope(|scope| {
            let pick = || ThreadCache::with(&LOCAL, &END, &published, |value, _, _| Arc::strong_count(value));
            assert_eq!(scope.spawn(pick).join().unwrap(), 2);
        });
        published.publish(Arc::new(Arc::new(())));
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn works_in_destructors_of_other_thread_locals() {
        struct Last(Published<u32>, mpsc::Sender<u32>);
        impl Drop for Last {
            fn drop(&mut self) {
                self.1.send(with(&self.0)).unwrap();
            }
        }
        thread_local! {
            static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
        }
        // Checks both orders of destruction of the thread-locals `LAST` and `END`.
        let value = |end_first: bool| {
            let (sender, receiver) = mpsc::channel();
            let work = move || {
                if end_first {
                    with(&Published::new(1));
                }
                LAST.set(Some(Last(Published::new(7), sender)));
                with(&Published::new(1));
            };
            thread::spawn(work).join().unwrap();
            receiver.recv().unwrap()
        };
        assert_eq!((value(true), value(false)), (7, 7));
    }
}
