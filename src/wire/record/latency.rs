//! Counts the completed requests of a connection and measures their durations.

use super::Record;
use crate::{
    sync::{AtomicU64, Ordering},
    time::Duration,
};

/// Number of requests with statements, from the start of a connection, whose durations are not counted. A new session
/// reads the system catalogs into its caches, and plans a prepared statement at each of its first five executions, so
/// its first statements take a multiple of the usual time.
pub(super) const COLD: u64 = 10;

impl Record {
    /// Returns the total number of completed requests. Pipelined requests count as one.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Returns the number of completed requests that executed a statement, and their total duration, without the first
    /// [`COLD`] ones of the connection. Other requests, for example pings, do not show how fast the Pod executes
    /// statements.
    pub(crate) fn warm(&self) -> (u64, Duration) {
        let micros = self.warm_micros.load(Ordering::Relaxed);
        (self.executed.load(Ordering::Relaxed).saturating_sub(COLD), Duration::from_micros(micros))
    }

    /// Returns the part of [`warm`](Self::warm) from checkouts with the target `any`.
    pub(crate) fn warm_any(&self) -> (u64, Duration) {
        let micros = self.warm_any_micros.load(Ordering::Relaxed);
        (self.warm_any.load(Ordering::Relaxed), Duration::from_micros(micros))
    }

    /// Sets whether the target of the current checkout is `any`. Stores only a change, because a store invalidates the
    /// cache line for the readers of neighboring fields.
    #[inline]
    pub(crate) fn set_any_pod(&self, any: bool) {
        if self.any_pod.load(Ordering::Relaxed) != any {
            self.any_pod.store(any, Ordering::Relaxed);
        }
    }

    /// Counts a completed request of several that are pipelined.
    pub(in crate::wire) fn count_pipelined(&self) {
        self.answered.store(self.answered() + 1, Ordering::Relaxed);
    }

    /// Counts a completed request. `executed` is true if the request executed a statement.
    pub(in crate::wire) fn count_answered(&self, took: Duration, executed: bool) {
        if self.is_used_by_pool() {
            return;
        }
        self.answered.store(self.answered() + 1, Ordering::Relaxed);
        // The duration of pipelined requests is that of all of them together.
        if !executed || self.is_pipelined() {
            return;
        }
        let executed = self.executed.load(Ordering::Relaxed);
        self.executed.store(executed + 1, Ordering::Relaxed);
        if executed < COLD {
            return;
        }
        let add = |micros: &AtomicU64| {
            let total = Duration::from_micros(micros.load(Ordering::Relaxed)) + took;
            micros.store(u64::try_from(total.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        };
        add(&self.warm_micros);
        if self.any_pod.load(Ordering::Relaxed) {
            self.warm_any.store(self.warm_any.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            add(&self.warm_any_micros);
        }
    }
}

#[cfg(all(test, not(podpool_loom)))]
mod tests;
