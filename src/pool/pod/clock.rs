//! The pool's coarse clock: milliseconds since the pool was built, updated by the upkeep every [`TICK`].
//!
//! A checkout reads this clock instead of the system's. On a virtual machine, reading the system's precise clock takes
//! half as long as a whole checkout. Even the kernel's coarse clock needs a tenth of a checkout's instructions.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::time::Duration;

/// Update interval of the clock, and thus its resolution.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// A clock that is read with one atomic load.
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
