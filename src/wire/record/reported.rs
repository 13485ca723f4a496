//! The state that the server reports about itself and about the session.

use super::Record;
use crate::{endpoint::Role, sync::Ordering};

// Orderings are relaxed; see the module documentation of the record.
impl Record {
    /// Returns the role that the server reported last.
    pub(crate) fn role(&self) -> Role {
        match self.standby.load(Ordering::Relaxed) & 3 {
            1 => Role::Primary,
            2 => Role::Standby,
            _ => Role::Unknown,
        }
    }

    /// Sets the role that a query has returned.
    pub(crate) fn set_standby(&self, standby: bool) {
        self.standby.store(1 + u8::from(standby), Ordering::Relaxed);
    }

    /// Sets the role that the server has reported.
    pub(in crate::wire) fn set_reported_standby(&self, standby: bool) {
        self.standby.store(5 + u8::from(standby), Ordering::Relaxed);
    }

    /// Returns true if the server reports changes of its role with its next response.
    pub(crate) fn reports_role(&self) -> bool {
        self.standby.load(Ordering::Relaxed) & 4 != 0
    }

    /// Returns true if transactions of this session are read-only by default.
    pub(crate) fn read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }

    pub(crate) fn set_read_only(&self, read_only: bool) {
        self.read_only.store(read_only, Ordering::Relaxed);
    }

    /// Returns the process ID that the server has announced at login (BackendKeyData).
    pub(crate) fn process_id(&self) -> Option<u32> {
        Some(self.process_id.load(Ordering::Relaxed)).filter(|id| *id != 0)
    }

    pub(in crate::wire) fn set_process_id(&self, id: u32) {
        self.process_id.store(id, Ordering::Relaxed);
    }
}
