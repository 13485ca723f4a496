use std::sync::Arc;

use crate::time::Instant;

/// How the name's resolution goes. The directory writes it; it is no part of the view, which an unchanged answer leaves
/// as it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resolved {
    /// When the name was resolved last.
    pub(crate) at: Option<Instant>,
    /// Failures in a row since.
    pub(crate) failures: u64,
    /// The last failure, if nothing came after it.
    pub(crate) error: Option<Arc<str>>,
}
