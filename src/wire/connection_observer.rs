//! The channel through which a connection reports observations about its Pod's health or role to the pool.

use std::{fmt, sync::Arc};

use super::operations::OperationObserver;
use crate::{endpoint::Role, error::BoxError};

/// An observation that was made on a connection.
#[derive(Debug)]
pub(crate) enum Evidence {
    /// The server, not a connection pooler, ended the session with a FATAL error that has this SQLSTATE.
    Fatal([u8; 5]),
    /// The connection broke although the pool had not closed it, and the server had not announced the end of the
    /// session with an error.
    Lost { cause: BoxError },
    /// The server reported its role.
    Role(Role),
    /// The session has executed `LISTEN`, but nothing receives its notifications.
    Listens,
    /// The server rejected a write because it is read-only (25006).
    WriteRefused,
}

/// A callback that receives the evidence from one connection. The callback must not block.
#[derive(Clone)]
pub(crate) struct ConnectionObserver {
    report: Arc<dyn Fn(Evidence) + Send + Sync>,
    operations: OperationObserver,
}

impl ConnectionObserver {
    pub(crate) fn new(report: impl Fn(Evidence) + Send + Sync + 'static) -> Self {
        Self { report: Arc::new(report), operations: OperationObserver::default() }
    }

    /// Sets the receiver of the durations of the callers' requests. Without it, they are not measured.
    pub(crate) fn with_operations(mut self, operations: OperationObserver) -> Self {
        self.operations = operations;
        self
    }

    pub(crate) fn report(&self, evidence: Evidence) {
        (self.report)(evidence);
    }

    pub(super) fn operations(&self) -> OperationObserver {
        self.operations.clone()
    }
}

impl fmt::Debug for ConnectionObserver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConnectionObserver")
    }
}
