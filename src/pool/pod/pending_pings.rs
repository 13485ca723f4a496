//! The number of overdue pings of one Pod, and the time since which at least one has been overdue.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::{
    sync::{Mutex, lock},
    time::Instant,
};

/// The overdue pings of one Pod. Background tasks still wait for the responses.
#[derive(Debug, Default)]
pub(crate) struct PendingPings {
    /// Number of overdue pings. Changes only under the lock of `since`.
    count: AtomicUsize,
    /// Time at which `count` last rose from zero. `None` while it is zero.
    since: Mutex<Option<Instant>>,
}

// Relaxed: `is_any` is a hint that guards no data, and all changes are made under the lock.
impl PendingPings {
    #[inline]
    pub(crate) fn is_any(&self) -> bool {
        self.count.load(Ordering::Relaxed) > 0
    }

    /// Counts one more overdue ping.
    pub(crate) fn begin(&self, now: Instant) {
        let mut since = lock(&self.since);
        since.get_or_insert(now);
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one overdue ping less, after the ping's response or timeout.
    pub(crate) fn end(&self) {
        let mut since = lock(&self.since);
        if self.count.fetch_sub(1, Ordering::Relaxed) == 1 {
            *since = None;
        }
    }

    /// Returns the time since which at least one ping has been overdue, or `None` if none is.
    pub(crate) fn since(&self) -> Option<Instant> {
        *lock(&self.since)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn since_is_the_time_at_which_the_count_rose_from_zero() {
        let (pings, now) = (PendingPings::default(), Instant::now());
        pings.begin(now);
        pings.begin(now + Duration::from_secs(1));
        pings.end();
        assert_eq!((pings.is_any(), pings.since()), (true, Some(now)));
        pings.end();
        assert_eq!((pings.is_any(), pings.since()), (false, None));
    }
}
