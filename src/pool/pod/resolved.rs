//! The result of the last lookups of the name.

use std::sync::Arc;

use crate::time::Instant;

/// The state of the name's resolution. Written by the directory. Not part of the view, because a response that names
/// the same Pods does not publish a new view.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resolved {
    /// Time of the last successful lookup.
    pub(crate) at: Option<Instant>,
    /// Consecutive failed lookups since then.
    pub(crate) failures: u64,
    /// The last failure, if no lookup has succeeded since.
    pub(crate) error: Option<Arc<str>>,
}
