//! The functions of the task that supervises a shared connection.

use std::sync::Arc;

use super::SharedConnection;
use crate::{
    pool::pipeline::flight::Flight,
    sync::lock,
    time::{Duration, Instant},
};

/// Number of consecutive looks that confirm that a connection is slow, and the minimum time between two of them. If the
/// process did not run for some time, a look comes before the responses are read.
pub(super) const CONFIRMED: u32 = 2;
const BETWEEN_LOOKS: Duration = Duration::from_millis(2);
/// Minimum age of a connection that is replaced because its role does not fit. A new session reports the role of its
/// server, so a younger connection shows that the Pod must be probed.
const MISFIT_AFTER: Duration = Duration::from_secs(1);

impl SharedConnection {
    /// Looks whether the connection can take statements. Returns true if this look confirms that it is slow.
    pub(in crate::pool::pipeline) fn look(&self, now: Instant) -> bool {
        let mut state = lock(&self.state);
        if self.accepts(&state, now) {
            state.looks = 0;
            return false;
        }
        if state.looks > 0 && now.saturating_duration_since(state.looked_at) < BETWEEN_LOOKS {
            return false;
        }
        (state.looks, state.looked_at) = (state.looks.saturating_add(1), now);
        state.looks == CONFIRMED
    }

    /// Returns true if the connection must be replaced, because the role that its session has reported does not fit a
    /// target that its Pod serves. PostgreSQL 14 and later report a new role only with the next response, and older
    /// servers never do.
    pub(in crate::pool::pipeline) fn takes_misfit(&self, now: Instant) -> bool {
        let mut state = lock(&self.state);
        let is_due = state.misfit && now.saturating_duration_since(self.opened_at) >= MISFIT_AFTER;
        state.misfit &= !is_due;
        is_due
    }

    /// Returns true if no statement is in flight, and no place is reserved.
    pub(in crate::pool::pipeline) fn is_unused(&self) -> bool {
        self.in_flight() == 0
    }

    /// Returns true if no statement that was sent is in flight.
    pub(in crate::pool::pipeline) fn is_answered(&self) -> bool {
        lock(&self.state).load.is_answered()
    }

    /// Returns the time for which the connection was unused.
    pub(in crate::pool::pipeline) fn unused_for(&self, now: Instant) -> Duration {
        now.saturating_duration_since(lock(&self.state).last_used)
    }

    /// Returns the time after which a statement is slow.
    pub(in crate::pool::pipeline) fn slow_after(&self) -> Duration {
        lock(&self.state).load.slow_after()
    }

    /// Returns the statements that the supervising task must poll.
    pub(in crate::pool::pipeline) fn overdue(&self, now: Instant) -> Vec<Arc<Flight>> {
        lock(&self.state).load.overdue(now).cloned().collect()
    }

    /// Returns the statements that wait behind a slow one.
    pub(in crate::pool::pipeline) fn blocked(&self, now: Instant) -> Vec<Arc<Flight>> {
        if self.record.outstanding() == 0 {
            return Vec::new();
        }
        lock(&self.state).load.blocked(now).cloned().collect()
    }

    /// Returns true if a cancel request must be sent for a statement that `is_polled` accepts: its response may already
    /// have arrived if nobody has polled it. Nothing more is written then until [`resume`](Self::resume).
    pub(in crate::pool::pipeline) fn stop_to_cancel(
        &self,
        now: Instant,
        is_polled: impl FnOnce(&Arc<Flight>) -> bool,
    ) -> bool {
        let mut state = lock(&self.state);
        let must_cancel = state.load.must_cancel(now).is_some_and(is_polled) && self.record.outstanding() > 0;
        state.stopped |= must_cancel;
        must_cancel
    }

    /// Returns true if the running statement must still be cancelled, and every statement that was sent is on its way
    /// to the server, or `waited` for that long enough: a server that executes a statement may read nothing. Counts the
    /// cancel request that the caller of this function sends. It may end any of the statements that were sent before.
    pub(in crate::pool::pipeline) fn begin_cancel(&self, now: Instant, waited: bool) -> bool {
        // Read first: it acquires the tap's writes.
        let idle = self.record.is_driver_idle() && !self.record.is_write_blocked();
        let mut state = lock(&self.state);
        let is_written = idle && self.written() == state.load.last();
        let begins = (is_written || waited) && state.load.must_cancel(now).is_some();
        if begins {
            state.load.cancel(now);
        }
        begins
    }

    /// Allows that statements are written again, if every request has been answered. Returns true if they may be.
    pub(in crate::pool::pipeline) fn resume(&self) -> bool {
        let idle = self.record.is_driver_idle() && self.record.outstanding() == 0;
        let mut state = lock(&self.state);
        state.stopped &= !(idle && state.load.is_answered());
        !state.stopped
    }

    /// Forgets the statements in flight, because the connection has ended.
    pub(in crate::pool::pipeline) fn forget_all(&self) {
        let forgotten = {
            let mut state = lock(&self.state);
            state.stopped = true;
            state.load.take_all()
        };
        drop(forgotten);
    }
}
