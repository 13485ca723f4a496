//! The authoritative history of a cluster: every commit and every read, as the servers executed them. Checks compare it
//! with the observations of the clients.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

use super::lsn::{Lsn, Timeline};

/// The confirmation for which a commit waited before it was acknowledged.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Confirmation {
    /// The commit still waits for synchronous standbys, or its session ended while it waited.
    None,
    /// No synchronous standby was configured, so the commit waited only for the server's own disk.
    Local,
    /// The synchronous standbys have written the commit to their disks.
    Synchronous,
    /// The wait was cancelled. The server then acknowledges the commit with a warning.
    Cancelled,
}

/// One committed transaction that inserted ids.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Write {
    /// The serial number of the commit record.
    pub serial: u64,
    /// The inserted ids.
    pub ids: Arc<[i64]>,
    /// The server that executed the transaction.
    pub server: String,
    /// The process id of the session.
    pub session: i32,
    /// The timeline of the commit record.
    pub timeline: Timeline,
    /// The position after the commit record.
    pub position: Lsn,
    /// The time at which the commit record was on the server's disk.
    pub committed: Instant,
    /// The confirmation for which the commit waited.
    pub confirmation: Confirmation,
    /// The time at which the server wrote the acknowledgement to the stream of the session.
    pub acknowledged: Option<Instant>,
}

/// One statement that read ids.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Read {
    /// The server that executed the statement.
    pub server: String,
    /// The process id of the session.
    pub session: i32,
    /// The time of the snapshot.
    pub at: Instant,
    /// True if the server was a standby.
    pub standby: bool,
    /// The timeline of the snapshot's last record.
    pub timeline: Timeline,
    /// The position up to which the snapshot contains the commits, except for those that still wait for synchronous
    /// standbys.
    pub position: Lsn,
    /// The text of the comment with which the statement begins, without the delimiters.
    pub comment: Option<String>,
}

/// The arrival of a statement with a comment.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Arrival {
    /// The server that executes the statement.
    pub server: String,
    /// The time of the arrival.
    pub at: Instant,
    /// The text of the comment with which the statement begins, without the delimiters.
    pub comment: String,
    /// True if a transaction block was open, or had failed, before the statement.
    pub in_transaction: bool,
    /// True if the server still expected rows of a `COPY`.
    pub in_copy: bool,
    /// The end of the session's last statement before this one.
    pub busy_until: Option<Instant>,
    /// The value that the session has set for the parameter `podpool.marker`.
    pub marker: Option<String>,
}

/// The commits and reads of a cluster, in the order of their execution.
#[derive(Debug, Default)]
pub struct History {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    serial: u64,
    writes: Vec<Write>,
    reads: Vec<Read>,
    arrivals: Vec<Arrival>,
}

impl History {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a serial number for the next record.
    pub(super) fn next_serial(&self) -> u64 {
        let mut state = self.lock();
        state.serial += 1;
        state.serial
    }

    pub(super) fn committed(&self, write: Write) {
        self.lock().writes.push(write);
    }

    pub(super) fn confirmed(&self, serial: u64, confirmation: Confirmation) {
        self.update(serial, |write| write.confirmation = confirmation);
    }

    pub(super) fn acknowledged(&self, serial: u64) {
        self.update(serial, |write| write.acknowledged = Some(Instant::now()));
    }

    fn update(&self, serial: u64, change: impl FnOnce(&mut Write)) {
        let mut state = self.lock();
        // The writes are sorted, because the record and the entry of a commit are created together.
        if let Ok(index) = state.writes.binary_search_by_key(&serial, |write| write.serial) {
            change(&mut state.writes[index]);
        }
    }

    pub(super) fn read(&self, read: Read) {
        self.lock().reads.push(read);
    }

    pub(super) fn arrived(&self, arrival: Arrival) {
        self.lock().arrivals.push(arrival);
    }

    /// Returns the arrivals of all statements with a comment, in their order.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrival> {
        self.lock().arrivals.clone()
    }

    /// Returns all commits, in the order of their serial numbers.
    #[must_use]
    pub fn writes(&self) -> Vec<Write> {
        self.lock().writes.clone()
    }

    /// Returns all reads, in the order of their execution.
    #[must_use]
    pub fn reads(&self) -> Vec<Read> {
        self.lock().reads.clone()
    }
}
