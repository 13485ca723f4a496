//! What a thread keeps for its picks.
//!
//! It stands in a thread-local without a destructor, which is reached without asking first whether it is alive still: a
//! seventh of a pick. What lets it go when the thread ends is a thread-local of its own, [`ClearOnExit`], which only the ways that
//! are rarely taken ask for; when that is gone, nothing is kept any more.

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

/// One thread's copies of what is published, its random numbers, and scratch space.
#[derive(Debug)]
pub(crate) struct ThreadCache<T> {
    copies: Copies<T>,
    rng: Rng,
    /// The random numbers begin somewhere at random, as they do from the first copy on.
    seeded: bool,
    rest: Vec<Candidate>,
}

/// Where a thread keeps it.
pub(crate) type CacheCell<T> = RefCell<ManuallyDrop<ThreadCache<T>>>;

/// Lets go of what a thread keeps in this place, when the thread ends.
#[derive(Debug)]
pub(crate) struct ClearOnExit<T: 'static>(&'static LocalKey<CacheCell<T>>);

impl<T> ClearOnExit<T> {
    /// For what is kept there.
    pub(crate) const fn of(place: &'static LocalKey<CacheCell<T>>) -> Self {
        Self(place)
    }
}

impl<T> Drop for ClearOnExit<T> {
    fn drop(&mut self) {
        let kept = self.0.with(|place| {
            place.try_borrow_mut().ok().map(|mut place| mem::replace(&mut *place, ThreadCache::nothing()))
        });
        // Not in use any more: it may be the last hold on what probe_factory for it again.
        drop(kept.map(ManuallyDrop::into_inner));
    }
}

impl<T> ThreadCache<T> {
    const fn new() -> Self {
        Self { copies: Copies::new(), rng: Rng::seeded(0), seeded: false, rest: Vec::new() }
    }

    const fn nothing() -> ManuallyDrop<Self> {
        ManuallyDrop::new(Self::new())
    }

    /// An empty place.
    pub(crate) const fn place() -> CacheCell<T> {
        RefCell::new(Self::nothing())
    }

    /// What `work` gives on this thread's copy of what is published, if the copy is up to date and not in use.
    // Nothing is called here, so that who calls it keeps nothing aside for that.
    #[inline(always)]
    pub(crate) fn at_once<R>(
        place: &'static LocalKey<CacheCell<T>>,
        published: &Published<T>,
        work: impl FnOnce(&T, &mut Rng) -> Option<R>,
    ) -> Option<R> {
        // Not `with`, which is a call where the compiler thinks that it is worth one; never an error.
        let found = place.try_with(
            #[inline(always)]
            |place| {
                let version = published.version();
                let mut place = place.try_borrow_mut().ok()?;
                let Self { copies, rng, .. } = &mut **place;
                work(copies.at_hand(version)?, rng)
            },
        );
        found.ok().flatten()
    }

    /// Runs `work` on this thread's copy of what is published, brought up to date, with random numbers and scratch space.
    ///
    /// On a copy apart where the thread's is in use (a policy that is being asked checks out itself, or somebody does who
    /// is woken by a connection's end), and where the thread is ending.
    pub(crate) fn with<R>(
        place: &'static LocalKey<CacheCell<T>>,
        end: &'static LocalKey<ClearOnExit<T>>,
        published: &Published<T>,
        work: impl FnOnce(&T, &mut Rng, &mut Vec<Candidate>) -> R,
    ) -> R {
        let mut work = Some(work);
        let mut run = |Self { copies, rng, seeded, rest }: &mut Self| {
            if !mem::replace(seeded, true) {
                *rng = Rng::from_os();
            }
            Some((work.take()?)(copies.get(published), rng, rest))
        };
        let lives = end.try_with(|_| ()).is_ok();
        let done = if lives {
            place.with(|place| place.try_borrow_mut().ok().and_then(|mut local| run(&mut local)))
        } else {
            None
        };
        let done = done.or_else(|| run(&mut Self::new()));
        done.unwrap_or_else(|| unreachable!("work that has begun has a result"))
    }

    /// Lets this thread's copy go.
    pub(crate) fn forget(place: &'static LocalKey<CacheCell<T>>, published: &Published<T>) {
        place.with(|place| {
            // One that is using it lets it go when it uses another.
            if let Ok(mut local) = place.try_borrow_mut() {
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
        static LOCAL: CacheCell<u32> = const { ThreadCache::place() };
        static END: ClearOnExit<u32> = const { ClearOnExit::of(&LOCAL) };
    }

    fn at_once(published: &Published<u32>) -> Option<u32> {
        ThreadCache::at_once(&LOCAL, published, |value, _| Some(*value))
    }

    fn with(published: &Published<u32>) -> u32 {
        ThreadCache::with(&LOCAL, &END, published, |value, _, _| *value)
    }

    #[test]
    fn at_once_is_for_a_copy_that_is_up_to_date() {
        let (one, two) = (Published::new(1), Published::new(2));
        assert_eq!((at_once(&one), with(&one), at_once(&one)), (None, 1, Some(1)));
        one.publish(11.into());
        assert_eq!((at_once(&one), with(&one), at_once(&one)), (None, 11, Some(11)));
        assert_eq!((at_once(&two), with(&two), at_once(&two)), (None, 2, Some(2)));
        assert_eq!((at_once(&one), with(&one), at_once(&one)), (None, 11, Some(11)));
        ThreadCache::forget(&LOCAL, &one);
        assert_eq!((at_once(&one), with(&one)), (None, 11));
    }

    #[test]
    fn who_asks_while_being_asked_gets_a_copy_apart() {
        let (one, two) = (Published::new(1), Published::new(2));
        let inner = ThreadCache::with(&LOCAL, &END, &one, |_, _, _| {
            one.publish(11.into());
            ThreadCache::forget(&LOCAL, &one);
            (at_once(&one), with(&one), with(&two))
        });
        assert_eq!(inner, (None, 11, 2));
        assert_eq!(ThreadCache::at_once(&LOCAL, &two, |_, _| Some(())), None);
        assert_eq!((with(&one), at_once(&one)), (11, Some(11)));
    }

    #[test]
    fn random_numbers_differ_from_thread_to_thread() {
        let draw = || {
            let published = Published::new(0);
            ThreadCache::with(&LOCAL, &END, &published, |_, rng, _| rng.below(usize::MAX))
        };
        assert_ne!(thread::spawn(draw).join().unwrap(), thread::spawn(draw).join().unwrap());
    }

    #[test]
    fn a_thread_that_has_ended_keeps_nothing() {
        let value = Arc::new(());
        let published = Published::new(value.clone());
        thread_local! {
            static LOCAL: CacheCell<Arc<()>> = const { ThreadCache::place() };
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
    fn a_thread_that_is_ending_is_served() {
        struct Last(Published<u32>, mpsc::Sender<u32>);
        impl Drop for Last {
            fn drop(&mut self) {
                self.1.send(with(&self.0)).unwrap();
            }
        }
        thread_local! {
            static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
        }
        // Whichever of the two is destroyed first.
        let served = |first: bool| {
            let (sender, receiver) = mpsc::channel();
            let end = move || {
                if first {
                    with(&Published::new(1));
                }
                LAST.set(Some(Last(Published::new(7), sender)));
                with(&Published::new(1));
            };
            thread::spawn(end).join().unwrap();
            receiver.recv().unwrap()
        };
        assert_eq!((served(true), served(false)), (7, 7));
    }
}
