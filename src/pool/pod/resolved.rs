//! The state of name resolution: the results of the most recent lookups of the Service name.

use std::sync::Arc;

use crate::time::Instant;

/// The state of name resolution, written by the directory task. Not part of the published view of the Pods, because a
/// lookup that returns the same Pods does not publish a new view.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resolved {
    /// Time of the last successful lookup.
    pub(crate) at: Option<Instant>,
    /// Number of failed lookups since the last successful one.
    pub(crate) failures: u64,
    /// The error of the last lookup, if it failed.
    pub(crate) error: Option<Arc<str>>,
}
