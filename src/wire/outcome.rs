//! Judges whether failed work may have been applied, from the messages of its connection.
//!
//! [`classify`](super::classify::classify) knows only the error, so it covers a single statement. Work may consist of
//! several statements. The [`tap`](super::tap) therefore counts the statements that were sent, and the responses after
//! which something may be committed:
//!
//! - each CommandComplete of `COMMIT`, `COMMIT PREPARED` and `PREPARE TRANSACTION`, whatever the transaction status is
//!   afterwards (`COMMIT AND CHAIN`);
//! - each other CommandComplete, except for `ROLLBACK`, if the next ReadyForQuery reports that no transaction is open,
//!   even if an error came between: an autocommitted statement;
//! - each error that leaves open whether its statement was applied, for example from a connection pooler that has lost
//!   its server.
//!
//! The driver's type look-ups are not counted, nor are `SELECT`s on a server that reports that it is a standby.
//!
//! The work was not applied if the error is this connection's last one, nothing was committed since the work began, and
//! no other response is outstanding: the failed statement has aborted its transaction.

use std::fmt;

use tokio_postgres::Error;

use super::{
    classify::{Verdict, classify, io_cause, is_dial_error},
    record::Record,
};
use crate::{
    error::Applied,
    sync::{AtomicU64, Mutex, Ordering, lock},
};

/// An ErrorResponse that was received.
#[derive(Clone, Eq, PartialEq)]
pub(super) struct ReceivedError {
    pub(super) sqlstate: [u8; 5],
    /// The start of the message's text.
    pub(super) message: Vec<u8>,
}

impl fmt::Debug for ReceivedError {
    /// Omits the text, which may contain the caller's data.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReceivedError({})", String::from_utf8_lossy(&self.sqlstate))
    }
}

impl ReceivedError {
    /// Returns true if the driver's error was made from this ErrorResponse.
    fn is(&self, error: &Error) -> bool {
        error.as_db_error().is_some_and(|error| {
            error.code().code().as_bytes() == self.sqlstate && error.message().as_bytes().starts_with(&self.message)
        })
    }
}

/// The numbers of statements sent and of commits, at some time.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct WorkMark(u64);

impl WorkMark {
    pub(super) fn new(executed: u32, committed: u32) -> Self {
        Self(u64::from(executed) << 32 | u64::from(committed))
    }

    /// Returns the number of statements that were sent. It may wrap around.
    pub(super) fn executed(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Returns the number of statements after which something may be committed. It may wrap around.
    pub(crate) fn committed(self) -> u32 {
        (self.0 & u64::from(u32::MAX)) as u32
    }

    /// Returns a mark since which, by declaration, something was committed.
    pub(crate) fn before_a_commit(self) -> Self {
        Self(self.0 & !u64::from(u32::MAX) | u64::from(self.committed().wrapping_sub(1)))
    }

    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    pub(crate) fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// The part of a [`Record`] that shows whether work may have been applied. The tap is the single writer.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// The bits of the current [`WorkMark`].
    work: AtomicU64,
    last_error: Mutex<Option<ReceivedError>>,
}

impl Outcome {
    /// Returns the current numbers.
    #[inline]
    pub(crate) fn work(&self) -> WorkMark {
        WorkMark(self.work.load(Ordering::Relaxed))
    }

    pub(super) fn set_work(&self, work: WorkMark) {
        self.work.store(work.0, Ordering::Relaxed);
    }

    pub(super) fn set_last_error(&self, error: ReceivedError) {
        *lock(&self.last_error) = Some(error);
    }

    /// Returns the SQLSTATE of the last ErrorResponse.
    pub(crate) fn last_sqlstate(&self) -> Option<String> {
        lock(&self.last_error).as_ref().map(|error| String::from_utf8_lossy(&error.sqlstate).into_owned())
    }

    fn is_last_error(&self, error: &Error) -> bool {
        lock(&self.last_error).as_ref().is_some_and(|last| last.is(error))
    }
}

/// The facts that determine whether failed work may have been applied.
#[derive(Clone, Copy, Debug)]
struct Facts {
    /// True if a statement of the work was sent.
    executed: bool,
    /// True if something may have been committed since the work began.
    committed: bool,
    /// True if the error comes from this connection, and no later error does.
    own: bool,
    /// True if every request was answered, and no further one can be sent.
    settled: bool,
    /// True if the connection has ended.
    ended: bool,
}

impl Facts {
    /// Returns whether the work may have been applied. `statement` is the result for the failed statement only.
    fn applied(self, statement: Applied) -> Applied {
        let unapplied = if self.executed {
            self.settled && !self.committed && statement == Applied::No
        } else {
            self.settled || self.ended
        };
        if self.own && unapplied { Applied::No } else { Applied::Unknown }
    }
}

/// Returns true if the error is the loss of an established connection.
fn is_loss(error: &Error) -> bool {
    (error.is_closed() || io_cause(error).is_some()) && !is_dial_error(error)
}

impl Record {
    /// Returns true if [`judge`](Self::judge) may return `No` once all responses have arrived, and `Unknown` before.
    pub(crate) fn may_settle(&self, since: WorkMark, error: &Error) -> bool {
        let executed = self.outcome.work().executed() != since.executed();
        if executed { classify(error).applied == Applied::No } else { error.as_db_error().is_some() || is_loss(error) }
    }

    /// Classifies an error of work that began at the mark. `exclusive` is true if no other task can send a request.
    pub(crate) fn judge(&self, since: WorkMark, error: &Error, exclusive: bool) -> Verdict {
        let verdict = classify(error);
        // Read first: both acquire the tap's writes.
        let (ended, idle) = (self.has_ended(), self.is_driver_idle());
        let answered = self.outstanding() == 0 && !self.is_copying();
        let work = self.outcome.work();
        let facts = Facts {
            executed: work.executed() != since.executed(),
            committed: work.committed() != since.committed(),
            own: if error.as_db_error().is_some() {
                self.outcome.is_last_error(error)
            } else {
                ended && is_loss(error)
            },
            // A connection that has ended can no longer send the rest of a request.
            settled: answered && (ended || idle && exclusive && !self.is_write_blocked()),
            ended,
        };
        Verdict { applied: facts.applied(verdict.applied), ..verdict }
    }

    /// Returns whether interrupted work that began at the mark may have been applied. `settled` is true if no response
    /// is outstanding and no request can be sent any more.
    pub(crate) fn judge_interrupted(&self, since: WorkMark, settled: bool) -> Applied {
        let ended = self.has_ended();
        let work = self.outcome.work();
        let unapplied = work.executed() == since.executed() || !ended && work.committed() == since.committed();
        if settled && unapplied { Applied::No } else { Applied::Unknown }
    }

    /// Returns the final state of the work that began at the mark, on a connection that is clean and is about to be
    /// used by others.
    pub(crate) fn settle(&self, since: WorkMark) -> Settled {
        Settled { since, work: self.outcome.work(), last_error: lock(&self.outcome.last_error).clone() }
    }
}

/// The final state of work whose requests have all been answered.
#[derive(Clone, Debug)]
pub(crate) struct Settled {
    since: WorkMark,
    work: WorkMark,
    last_error: Option<ReceivedError>,
}

impl Settled {
    /// Returns whether the interrupted work may have been applied.
    pub(crate) fn judge_interrupted(&self) -> Applied {
        let unapplied =
            self.work.executed() == self.since.executed() || self.work.committed() == self.since.committed();
        if unapplied { Applied::No } else { Applied::Unknown }
    }

    /// Classifies an error of the work.
    pub(crate) fn judge(&self, error: &Error) -> Verdict {
        let verdict = classify(error);
        let facts = Facts {
            executed: self.work.executed() != self.since.executed(),
            committed: self.work.committed() != self.since.committed(),
            own: self.last_error.as_ref().is_some_and(|last| last.is(error)),
            settled: true,
            ended: false,
        };
        Verdict { applied: facts.applied(verdict.applied), ..verdict }
    }
}
