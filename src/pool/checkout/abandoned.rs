//! Counts calls whose future is dropped before they end, such as those that an application's own timeout cuts off.

use crate::{error::Phase, pool::pod::shared::Shared};

/// A call that has not ended yet. If it is dropped, the call is counted by what it was waiting for.
pub(crate) struct Unended<'a> {
    shared: &'a Shared,
    /// What the call is waiting for: [`Phase::Query`] while the work runs.
    pub(crate) phase: Phase,
}

impl<'a> Unended<'a> {
    pub(crate) fn new(shared: &'a Shared, phase: Phase) -> Self {
        Self { shared, phase }
    }

    /// Records that the call has ended, successfully or not.
    pub(crate) fn end(self) {
        std::mem::forget(self);
    }
}

impl Drop for Unended<'_> {
    fn drop(&mut self) {
        self.shared.counters.abandoned.increment(self.phase);
    }
}
