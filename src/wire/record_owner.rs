//! The pool's handle to the [`Record`] of a connection.

use std::ops::Deref;

use super::record::Record;
use crate::sync::Arc;

/// The pool's handle to the record of a connection. Dropping it marks the connection as released.
#[derive(Debug)]
pub(crate) struct RecordOwner(Arc<Record>);

impl RecordOwner {
    pub(super) fn new(record: Arc<Record>) -> Self {
        Self(record)
    }

    /// Returns the record itself, which remains readable after the connection is gone.
    pub(crate) fn shared(&self) -> Arc<Record> {
        self.0.clone()
    }
}

impl Deref for RecordOwner {
    type Target = Record;

    #[inline]
    fn deref(&self) -> &Record {
        &self.0
    }
}

impl Drop for RecordOwner {
    fn drop(&mut self) {
        self.0.release();
    }
}
