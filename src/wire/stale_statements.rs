//! The reasons why the cached prepared statements of a session are stale.

/// A reason why the cached prepared statements of a session are stale.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum StaleStatements {
    /// A cached plan no longer matches its tables (0A000), or all statements were deallocated (`DEALLOCATE ALL`,
    /// `DISCARD ALL`).
    Outdated = 1,
    /// The server rejected a statement name as unknown (26000).
    Missing = 2,
}
