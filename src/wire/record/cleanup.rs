//! The reasons why a connection needs a cleanup before the next caller uses it: stale prepared statements, and changes
//! of session state. They are bits of one value, so that a single load shows that there are none.

use super::{Record, StaleStatements};
use crate::sync::Ordering;

const OUTDATED: u8 = StaleStatements::Outdated as u8;
const MISSING: u8 = StaleStatements::Missing as u8;
/// All bits of [`SessionChange`].
const SESSION: u8 = SessionChange::Parameter as u8
    | SessionChange::Command as u8
    | SessionChange::Text as u8
    | SessionChange::Unknown as u8;
/// The session is being reset. The requests of the reset are no changes.
const RESETTING: u8 = 64;
/// Changes of session state are recorded.
const TRACKED: u8 = 128;
const STALE: u8 = OUTDATED | MISSING;
const _: () = assert!(STALE & SESSION == 0 && (STALE | SESSION) & (RESETTING | TRACKED) == 0);

/// An observation that shows that session state may have changed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum SessionChange {
    /// A parameter that the server reports has another value than after the startup.
    Parameter = 4,
    /// A command such as `SET` was completed.
    Command = 8,
    /// The text of a statement contains a word such as `TEMP`.
    Text = 16,
    /// There are too many prepared statements that may change the session to recognize later executions.
    Unknown = 32,
}

// Orderings are relaxed; see the documentation of the parent module.
impl Record {
    #[inline]
    fn cleanup(&self) -> u8 {
        self.cleanup.load(Ordering::Relaxed)
    }

    /// Returns true if cached prepared statements are stale, or if session state may have changed.
    #[inline]
    pub(crate) fn needs_cleanup(&self) -> bool {
        self.cleanup() & (STALE | SESSION) != 0
    }

    /// Returns the reason why the cached prepared statements are stale, and clears it.
    pub(crate) fn take_stale_statements(&self) -> Option<StaleStatements> {
        let flags = self.cleanup.fetch_and(!STALE, Ordering::Relaxed);
        if flags & MISSING != 0 {
            Some(StaleStatements::Missing)
        } else {
            (flags & OUTDATED != 0).then_some(StaleStatements::Outdated)
        }
    }

    /// Marks the cached prepared statements as stale. `Missing` takes precedence over `Outdated`.
    pub(in crate::wire) fn set_stale_statements(&self, reason: StaleStatements) {
        self.cleanup.fetch_or(reason as u8, Ordering::Relaxed);
    }

    /// Applies that the session has no prepared statements any more, which may also have undone a part of its setup.
    pub(in crate::wire) fn set_deallocated(&self) {
        self.set_stale_statements(StaleStatements::Outdated);
        self.undo_session_state();
    }

    /// Applies that a command has undone session state. This is a change if a hook has set up the session.
    pub(in crate::wire) fn undo_session_state(&self) {
        if self.was_set_up.load(Ordering::Relaxed) {
            self.add_session_change(SessionChange::Command);
        }
    }

    /// Makes the tap record changes of session state. Called before the tap is created.
    pub(in crate::wire) fn track_session_changes(&self) {
        self.cleanup.fetch_or(TRACKED, Ordering::Relaxed);
    }

    /// Returns true if the tap records changes of session state.
    #[inline]
    pub(in crate::wire) fn tracks_session_changes(&self) -> bool {
        self.cleanup() & TRACKED != 0
    }

    /// Returns true while the pool uses the connection for itself. Its requests are no changes of session state.
    pub(in crate::wire) fn is_used_by_pool(&self) -> bool {
        self.cleanup() & RESETTING != 0 || self.is_probing()
    }

    /// Returns true if the requests that are written now are those of a caller: the connection is available to callers,
    /// and the pool does not use it for itself.
    #[cfg(feature = "otel")]
    pub(in crate::wire) fn is_used_by_caller(&self) -> bool {
        self.is_in_service() && !self.is_used_by_pool() && !self.is_rolling_back.load(Ordering::Relaxed)
    }

    /// Always true: without the feature `otel`, no request is measured.
    #[cfg(not(feature = "otel"))]
    pub(in crate::wire) fn is_used_by_caller(&self) -> bool {
        true
    }

    /// Sets whether the pool rolls back the transaction of a caller that has returned the connection. Relaxed ordering
    /// is enough, because the request reaches the driver through a channel, which orders both.
    #[cfg(feature = "otel")]
    pub(crate) fn set_rolling_back(&self, rolling_back: bool) {
        self.is_rolling_back.store(rolling_back, Ordering::Relaxed);
    }

    /// Does nothing: without the feature `otel`, no request is measured.
    #[cfg(not(feature = "otel"))]
    pub(crate) fn set_rolling_back(&self, _rolling_back: bool) {}

    /// Records a change, except while the pool uses the connection for itself.
    pub(in crate::wire) fn add_session_change(&self, change: SessionChange) {
        if self.cleanup() & (TRACKED | change as u8) == TRACKED && !self.is_used_by_pool() {
            self.cleanup.fetch_or(change as u8, Ordering::Relaxed);
        }
    }

    /// Records whether parameters differ from their original values, also during a reset.
    pub(in crate::wire) fn set_parameter_change(&self, changed: bool) {
        let bit = SessionChange::Parameter as u8;
        match (self.cleanup() & (TRACKED | bit), changed) {
            (TRACKED, true) => drop(self.cleanup.fetch_or(bit, Ordering::Relaxed)),
            (flags, false) if flags & bit != 0 => drop(self.cleanup.fetch_and(!bit, Ordering::Relaxed)),
            _ => {}
        }
    }

    /// Returns true if a reported parameter differs from its original value.
    pub(crate) fn has_changed_parameter(&self) -> bool {
        self.cleanup() & SessionChange::Parameter as u8 != 0
    }

    /// Returns an observation that shows that session state may have changed since the last reset.
    pub(crate) fn session_change(&self) -> Option<SessionChange> {
        let flags = self.cleanup();
        use SessionChange::{Command, Parameter, Text, Unknown};
        let changes = [Unknown, Command, Text, Parameter];
        changes.into_iter().find(|&change| flags & change as u8 != 0)
    }

    /// Marks the beginning of a session reset. The connection must be clean. Relaxed ordering is enough, because the
    /// first request of the reset reaches the driver through a channel, which orders both.
    pub(crate) fn begin_reset(&self) {
        self.cleanup.fetch_or(RESETTING, Ordering::Relaxed);
    }

    /// Returns true during a session reset, except while a hook sets up the session.
    #[inline]
    pub(in crate::wire) fn is_resetting(&self) -> bool {
        self.cleanup() & RESETTING != 0 && !self.is_in_setup()
    }

    /// Marks the beginning of the setup of the session by a hook, during a reset or instead of one. The session as the
    /// setup leaves it is an unchanged one.
    pub(crate) fn begin_setup(&self) {
        self.was_set_up.store(true, Ordering::Relaxed);
        self.in_setup.store(true, Ordering::Relaxed);
        self.begin_reset();
    }

    /// Marks the end of the setup, and of the reset. The connection must be clean.
    pub(crate) fn end_setup(&self) {
        self.in_setup.store(false, Ordering::Relaxed);
        self.end_reset();
    }

    /// Returns true while a hook sets up the session.
    #[inline]
    pub(in crate::wire) fn is_in_setup(&self) -> bool {
        self.in_setup.load(Ordering::Relaxed)
    }

    /// Marks the end of a session reset: all earlier changes are undone. The connection must be clean.
    pub(crate) fn end_reset(&self) {
        self.cleanup.fetch_and(!(RESETTING | SESSION), Ordering::Relaxed);
    }
}
