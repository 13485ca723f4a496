//! What a connection tells the pool at once.

use std::{fmt, sync::Arc};

use crate::{endpoint::Role, error::BoxError};

/// Something that was seen on a connection.
#[derive(Debug)]
pub(crate) enum Evidence {
    /// The server ended the session, with this SQLSTATE.
    Fatal([u8; 5]),
    /// The connection broke without our doing. `told`: a FATAL had announced it.
    Lost { cause: BoxError, told: bool },
    /// The server said what it is.
    Role(Role),
    /// The server refused a write (25006).
    WriteRefused,
}

/// Where a connection sends its evidence. Must not block.
#[derive(Clone)]
pub(crate) struct ConnectionObserver(Arc<dyn Fn(Evidence) + Send + Sync>);

impl ConnectionObserver {
    pub(crate) fn new(tell: impl Fn(Evidence) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    pub(crate) fn report(&self, evidence: Evidence) {
        (self.0)(evidence);
    }
}

impl fmt::Debug for ConnectionObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionObserver")
    }
}
