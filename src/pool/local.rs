//! What a thread keeps for its picks.

use std::{cell::Cell, thread::LocalKey};

use crate::{
    balance::Rng,
    endpoint::{publish::Copies, snapshot::Candidate},
};

/// One thread's copies of what is published, its random numbers, and scratch space.
#[derive(Debug)]
pub(crate) struct Local<T> {
    pub(crate) copies: Copies<T>,
    pub(crate) rng: Rng,
    pub(crate) rest: Vec<Candidate>,
}

/// Where a thread keeps it: nowhere until its first pick, and nowhere while it is in use.
pub(crate) type Place<T> = Cell<Option<Box<Local<T>>>>;

impl<T> Local<T> {
    #[cold]
    #[inline(never)]
    fn fresh() -> Box<Self> {
        Box::new(Self { copies: Copies::new(), rng: Rng::from_os(), rest: Vec::new() })
    }

    /// Runs `work` on what the thread keeps; on something fresh, where a policy that is being asked checks out itself,
    /// and where the thread is ending.
    #[inline(always)]
    pub(crate) fn with<R>(place: &'static LocalKey<Place<T>>, work: impl FnOnce(&mut Self) -> R) -> R {
        let mut local = match place.try_with(Cell::take) {
            Ok(Some(local)) => local,
            _ => Self::fresh(),
        };
        let result = work(&mut local);
        // A thread that is ending has no place for it any more.
        let _ended = place.try_with(|place| place.set(Some(local)));
        result
    }
}
