//! What is known of one connection: written by its driver's task, read by whoever gives the connection back.
//!
//! # Orderings
//!
//! The tap and the driver run in one task, so each plain value has one writer and is stored, not added to. A caller
//! that got an answer got it through a channel from that task, which orders everything the task wrote before; those
//! loads are relaxed. What a caller cannot know that way is whether the driver is in the middle of something. That is
//! the `driver` word, with a flag for "polling" and one for "woken":
//!
//! * [`Record::wake`] runs in the thread that sent a request, after the request stands in the driver's channel. Program
//!   order there lets the same thread see the flag when it gives the connection back.
//! * [`Record::begin`] sets "polling" and takes "woken", not before, so that one of them is always up; [`Record::end`] takes "polling" away and leaves a
//!   wake that came meanwhile. Both release what the task wrote; [`Record::is_clean`] acquires it.
//!
//! * [`Record::rest`] sets "watched" in the same word. A poll that ends after that sees it and says so; one that ended
//!   before is seen by it. So nobody waits for a poll that is over.
//!
//! With the first two flags down, no request of the returning thread can be on its way unseen: it woke the driver (woken), or
//! the driver was running and had not looked yet (polling), or it was taken in and counted.

use std::ops::Deref;

use tokio::sync::Notify;

use crate::{
    endpoint::Role,
    sync::{Arc, AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// What was heard against the prepared statements of a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Doubt {
    /// Plans no longer fit (0A000), or statements are gone for good (`DEALLOCATE ALL`, `DISCARD ALL`).
    Stale = 1,
    /// One was used that the server does not know (26000).
    Missing = 2,
}

const POLLING: u8 = 1;
const WOKEN: u8 = 2;
const WATCHED: u8 = 4;

/// The transaction status of ReadyForQuery when no transaction is open (PostgreSQL manual, "Message Formats").
pub(crate) const IDLE: u8 = b'I';

/// One connection's record.
#[derive(Debug, Default)]
pub(crate) struct Record {
    driver: AtomicU8,
    /// A poll has ended while somebody watched.
    polled: Notify,
    /// The status byte of the last ReadyForQuery; 0 before the first.
    status: AtomicU8,
    /// Requests written that have not been answered by a ReadyForQuery.
    outstanding: AtomicU32,
    /// A COPY from the client is under way.
    copying: AtomicBool,
    /// The driver stopped reading with an answer in its hands: whoever asked has not taken it.
    held: AtomicBool,
    /// The socket did not take all that was written.
    blocked: AtomicBool,
    /// The driver has ended, or is about to: nothing more will be answered.
    ended: AtomicBool,
    /// A FATAL announced the end.
    told: AtomicBool,
    /// Our side has let the connection go.
    released: AtomicBool,
    /// The connection is for callers, who may ask for much.
    trusted: AtomicBool,
    /// Requests written so far.
    sent: AtomicU64,
    /// Reads so far that brought something.
    reads: AtomicU64,
    /// Requests answered so far, and the microseconds from request to ReadyForQuery of all of them.
    answered: AtomicU64,
    answered_micros: AtomicU64,
    /// Whoever borrowed the connection would have taken any Pod; of the above, those requests.
    any: AtomicBool,
    answered_any: AtomicU64,
    answered_any_micros: AtomicU64,
    /// Requests that failed through the server's own fault, and how many of them in a row just now.
    failed: AtomicU64,
    run: AtomicU32,
    /// `in_hot_standby`: 0 not told, 1 off, 2 on.
    standby: AtomicU8,
    /// `default_transaction_read_only` is on.
    read_only: AtomicBool,
    /// Statements that the server was asked to prepare so far.
    parsed: AtomicU64,
    /// What was heard against them: 0, or a [`Doubt`].
    doubt: AtomicU8,
}

// Relaxed, where no other word is said: see the module's text.
impl Record {
    /// The driver begins to poll.
    pub(super) fn begin(&self) {
        // "Woken" goes: this poll sees whatever it stood for. In one step where nothing else stands there.
        if self.driver.compare_exchange(WOKEN, POLLING, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            self.driver.fetch_or(POLLING, Ordering::AcqRel);
            self.driver.fetch_and(!WOKEN, Ordering::AcqRel);
        }
    }

    /// The driver is done polling.
    pub(super) fn end(&self) {
        if self.driver.fetch_and(!POLLING, Ordering::AcqRel) & WATCHED != 0 {
            self.polled.notify_one();
        }
    }

    /// Somebody woke the driver.
    pub(super) fn wake(&self) {
        self.driver.fetch_or(WOKEN, Ordering::AcqRel);
    }

    /// Whether the connection can be handed to the next borrower as it is: no transaction open, nothing outstanding,
    /// nothing on the way.
    #[inline]
    pub(crate) fn is_clean(&self) -> bool {
        // Acquire pairs with the release in `begin` and `end`: what the last poll wrote is seen below.
        self.is_quiet()
            && self.is_answered()
            && self.status.load(Ordering::Relaxed) == IDLE
            && !self.blocked.load(Ordering::Relaxed)
            && !self.ended.load(Ordering::Relaxed)
    }

    /// Whether every answer has come, and been taken.
    #[inline]
    fn is_answered(&self) -> bool {
        self.outstanding.load(Ordering::Relaxed) == 0
            && !self.copying.load(Ordering::Relaxed)
            && !self.held.load(Ordering::Relaxed)
    }

    /// Whether the driver is between two polls with nothing to do.
    #[inline]
    pub(crate) fn is_quiet(&self) -> bool {
        self.driver.load(Ordering::Acquire) & (POLLING | WOKEN) == 0
    }

    /// Waits until nothing is outstanding or on the way, or the connection is over. One at a time may wait. Cancel-safe.
    pub(crate) async fn rest(&self) {
        self.driver.fetch_or(WATCHED, Ordering::AcqRel);
        while !(self.is_quiet() && self.is_answered() || self.has_ended()) {
            self.polled.notified().await;
        }
    }

    /// Whether the connection is over.
    pub(crate) fn has_ended(&self) -> bool {
        // Acquire pairs with `set_ended`.
        self.ended.load(Ordering::Acquire)
    }

    pub(crate) fn set_ended(&self) {
        self.ended.store(true, Ordering::Release);
    }

    /// Whether a FATAL announced the end.
    pub(super) fn was_told(&self) -> bool {
        self.told.load(Ordering::Relaxed)
    }

    pub(super) fn set_told(&self) {
        self.told.store(true, Ordering::Relaxed);
    }

    /// Whether our side has let go.
    pub(crate) fn is_released(&self) -> bool {
        // Acquire pairs with `release`.
        self.released.load(Ordering::Acquire)
    }

    /// Our side lets go: what ends from here on is no evidence against the Pod.
    fn release(&self) {
        self.released.store(true, Ordering::Release);
    }

    /// Whether what the server answers may be long.
    pub(super) fn is_trusted(&self) -> bool {
        self.trusted.load(Ordering::Relaxed)
    }

    /// From here on the connection is for callers. A relaxed store will do: whoever sends the first request does so
    /// after, and the driver reads that from a channel.
    pub(crate) fn trust(&self) {
        self.trusted.store(true, Ordering::Relaxed);
    }

    /// Whether a COPY from the client is under way.
    pub(super) fn is_copying(&self) -> bool {
        self.copying.load(Ordering::Relaxed)
    }

    /// The status byte of the last ReadyForQuery.
    pub(crate) fn status(&self) -> u8 {
        self.status.load(Ordering::Relaxed)
    }

    /// Requests written so far. Two equal readings around a piece of work prove that it sent nothing, provided the
    /// connection was clean before and nothing is on its way now.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Reads so far that brought something.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Requests answered so far and the time they took, together.
    pub(crate) fn answered(&self) -> (u64, Duration) {
        let micros = self.answered_micros.load(Ordering::Relaxed);
        (self.answered.load(Ordering::Relaxed), Duration::from_micros(micros))
    }

    /// Of those, the ones of borrowers that would have taken any Pod.
    pub(crate) fn answered_any(&self) -> (u64, Duration) {
        let micros = self.answered_any_micros.load(Ordering::Relaxed);
        (self.answered_any.load(Ordering::Relaxed), Duration::from_micros(micros))
    }

    /// The connection is lent out, to one who would have taken any Pod or not. Seldom a write: others read nearby.
    #[inline]
    pub(crate) fn lend(&self, any: bool) {
        if self.any.load(Ordering::Relaxed) != any {
            self.any.store(any, Ordering::Relaxed);
        }
    }

    /// Requests that failed through the server's own fault so far, and how many of them in a row just now.
    pub(crate) fn failed(&self) -> (u64, u32) {
        (self.failed.load(Ordering::Relaxed), self.run.load(Ordering::Relaxed))
    }

    /// Requests written that have not been answered.
    pub(crate) fn outstanding(&self) -> u32 {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// The server's role, as far as it was told.
    pub(crate) fn role(&self) -> Role {
        match self.standby.load(Ordering::Relaxed) {
            1 => Role::Primary,
            2 => Role::Standby,
            _ => Role::Unknown,
        }
    }

    pub(crate) fn set_standby(&self, standby: bool) {
        self.standby.store(1 + u8::from(standby), Ordering::Relaxed);
    }

    /// Whether sessions are read-only by default.
    pub(crate) fn read_only(&self) -> bool {
        self.read_only.load(Ordering::Relaxed)
    }

    pub(crate) fn set_read_only(&self, read_only: bool) {
        self.read_only.store(read_only, Ordering::Relaxed);
    }

    /// Statements that the server was asked to prepare so far, named or not.
    #[inline]
    pub(crate) fn parsed(&self) -> u64 {
        self.parsed.load(Ordering::Relaxed)
    }

    pub(super) fn set_parsed(&self, parsed: u64) {
        self.parsed.store(parsed, Ordering::Relaxed);
    }

    /// Whether anything was heard against the prepared statements.
    #[inline]
    pub(crate) fn doubts_statements(&self) -> bool {
        self.doubt.load(Ordering::Relaxed) != 0
    }

    /// What was heard against the prepared statements, which is forgotten with that.
    pub(crate) fn take_doubt(&self) -> Option<Doubt> {
        match self.doubt.swap(0, Ordering::Relaxed) {
            0 => None,
            1 => Some(Doubt::Stale),
            _ => Some(Doubt::Missing),
        }
    }

    pub(super) fn doubt_statements(&self, doubt: Doubt) {
        self.doubt.fetch_max(doubt as u8, Ordering::Relaxed);
    }

    pub(super) fn set_status(&self, status: u8) {
        self.status.store(status, Ordering::Relaxed);
    }

    pub(super) fn set_outstanding(&self, outstanding: u32) {
        self.outstanding.store(outstanding, Ordering::Relaxed);
    }

    pub(super) fn set_copying(&self, copying: bool) {
        self.copying.store(copying, Ordering::Relaxed);
    }

    pub(super) fn set_held(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }

    pub(super) fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    pub(super) fn count_sent(&self) {
        self.sent.store(self.sent() + 1, Ordering::Relaxed);
    }

    pub(super) fn count_read(&self) {
        self.reads.store(self.reads() + 1, Ordering::Relaxed);
    }

    pub(super) fn count_outcome(&self, failed: bool) {
        if failed {
            let (total, run) = self.failed();
            self.failed.store(total + 1, Ordering::Relaxed);
            self.run.store(run.saturating_add(1), Ordering::Relaxed);
        } else if self.run.load(Ordering::Relaxed) > 0 {
            self.run.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn count_answered(&self, took: Duration) {
        let add = |count: &AtomicU64, micros: &AtomicU64, (answered, total): (u64, Duration)| {
            micros.store(u64::try_from((total + took).as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
            count.store(answered + 1, Ordering::Relaxed);
        };
        add(&self.answered, &self.answered_micros, self.answered());
        if self.any.load(Ordering::Relaxed) {
            add(&self.answered_any, &self.answered_any_micros, self.answered_any());
        }
    }
}

/// Our side's hold on a connection's record. Letting go of it says so to the driver.
#[derive(Debug)]
pub(crate) struct RecordOwner(Arc<Record>);

impl RecordOwner {
    pub(super) fn new(record: Arc<Record>) -> Self {
        Self(record)
    }

    /// The record, to look at when the connection may be gone.
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
