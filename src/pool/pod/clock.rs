//! The pool's coarse clock: milliseconds since the pool was built, updated by the upkeep every [`TICK`].
//!
//! A checkout reads this clock instead of the system's precise clock, whose read on a virtual machine takes half as
//! long as a whole checkout. Even a read of the kernel's coarse clock executes a tenth as many instructions as a
//! checkout.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::time::Duration;

/// Interval at which the upkeep task updates the clock, and thus the clock's resolution.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// A clock whose time is read with one atomic load.
#[derive(Debug, Default)]
pub(crate) struct Clock(AtomicU64);

// Relaxed: the time guards no other data.
impl Clock {
    #[inline]
    pub(crate) fn now(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self, since_start: Duration) {
        self.0.store(u64::try_from(since_start.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}
