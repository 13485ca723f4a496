//! Defines the record: the state of one connection, as observed on the wire. The driver task writes the record, and the
//! pool reads it when a caller returns the connection.
//!
//! # Orderings
//!
//! The driver and the tap (the stream that it reads and writes) run in one task. Therefore each plain value has a
//! single writer and is updated with a store instead of a read-modify-write. A caller receives a response through a
//! channel from that task, and the channel orders all earlier writes of the task before the receive. The loads of these
//! values are therefore relaxed.
//!
//! The channel does not show whether the driver is being polled or is about to be polled. The flags in the field
//! `driver` show this state:
//!
//! * [`Record::wake`] sets `WOKEN` in the thread that sends a request, after the request is in the driver's channel. By
//!   program order, the flag is visible to this thread when it returns the connection.
//! * [`Record::begin_poll`] sets `POLLING` and only then clears `WOKEN`, so at least one of the two is always set.
//!   [`Record::end_poll`] clears `POLLING` and keeps a `WOKEN` that was set during the poll. Both release the writes of
//!   the task; [`Record::is_clean`] acquires them.
//! * [`Record::wait_until_idle`] sets `WATCHED` in the field `driver` too. No wakeup is lost: a poll that ends later
//!   reads the flag and notifies the waiter, and the result of a poll that ended earlier is visible to the waiter.
//!
//! While `POLLING` and `WOKEN` are both clear, the driver has taken and counted every request of the returning thread:
//! a request that is still in the channel has set `WOKEN`, or the poll that will take it has not ended.

mod cleanup;
mod latency;
mod owner;
mod reported;

use std::{pin::pin, task::Waker};

use tokio::sync::Notify;

pub(crate) use self::{cleanup::SessionChange, owner::RecordOwner};
pub(crate) use super::stale_statements::StaleStatements;
use super::{notifications::Notifications, outcome::Outcome};
use crate::sync::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Mutex, Ordering, lock};

/// The driver is being polled.
const POLLING: u8 = 1;
/// The driver was woken and has not been polled since.
const WOKEN: u8 = 2;
/// A task is waiting for the end of a poll.
const WATCHED: u8 = 4;

/// The transaction status of ReadyForQuery when no transaction is open (PostgreSQL manual, "Message Formats").
pub(crate) const IDLE: u8 = b'I';

/// The state of one connection, as observed by its driver and its tap.
///
/// A "request" is a message that the server completes with a ReadyForQuery.
#[derive(Debug, Default)]
pub(crate) struct Record {
    /// `POLLING`, `WOKEN` and `WATCHED`.
    driver: AtomicU8,
    /// Notified at the end of a poll if `WATCHED` is set, and at the end of the driver.
    poll_ended: Notify,
    /// The status byte of the last ReadyForQuery; 0 before the first one.
    status: AtomicU8,
    /// Number of requests that were written and that the server has not completed.
    outstanding: AtomicU32,
    /// True while a COPY from the client is in progress.
    copying: AtomicBool,
    /// True if the last poll did not drain the socket: the driver may hold a response that the caller has not received.
    undelivered: AtomicBool,
    /// True if the socket did not accept all bytes of the last write or flush.
    write_blocked: AtomicBool,
    /// True if the driver has ended or is about to end, so that no further response will arrive.
    ended: AtomicBool,
    /// True if the tap has lost the connection.
    lost: AtomicBool,
    /// True if the pool has dropped the connection.
    released: AtomicBool,
    /// Wakes the driver's task.
    waker: Mutex<Option<Waker>>,
    /// True if the connection is available to callers, whose queries may have large responses.
    in_service: AtomicBool,
    /// Total number of requests written.
    sent: AtomicU64,
    /// True while a probe uses the connection. Its requests are not counted as the callers' statements.
    probing: AtomicBool,
    /// The part of `sent` that probes have sent.
    sent_by_probes: AtomicU64,
    /// Total number of reads that returned bytes.
    reads: AtomicU64,
    /// Total number of completed requests. A sequence of pipelined requests counts as one request, which is complete
    /// when its last response arrives.
    answered: AtomicU64,
    /// The part of `answered` that executed at least one statement.
    executed: AtomicU64,
    /// Total time from sending a request to receiving its ReadyForQuery, over all requests in `executed` except the
    /// first [`COLD`](latency::COLD), in microseconds.
    warm_micros: AtomicU64,
    /// True if the current checkout has the target `any`, which accepts every Pod regardless of its role.
    any_pod: AtomicBool,
    /// The part of `executed`, without the first [`COLD`](latency::COLD) requests, from checkouts with the target
    /// `any`.
    warm_any: AtomicU64,
    /// The part of `warm_micros` from checkouts with the target `any`.
    warm_any_micros: AtomicU64,
    /// Total number of requests that failed through a fault of the server.
    failed: AtomicU64,
    /// Number of consecutive requests, up to the last completed request, that failed through a fault of the server.
    consecutive_failures: AtomicU32,
    /// 0 if the role is unknown, 1 for a primary, 2 for a standby. Plus 4 if the server reports it (`in_hot_standby`).
    standby: AtomicU8,
    /// True if `default_transaction_read_only` is on.
    read_only: AtomicBool,
    /// True while the pool rolls back the transaction of a caller that has returned the connection.
    #[cfg(feature = "otel")]
    is_rolling_back: AtomicBool,
    /// The process ID that the server has announced at login; 0 before.
    process_id: AtomicU32,
    /// Total number of Parse messages written: one for each statement, named or unnamed, that the driver prepares.
    parsed: AtomicU64,
    /// The reasons why the connection needs a cleanup before its next use; see [`cleanup`].
    cleanup: AtomicU8,
    /// The receiver of the notifications.
    pub(crate) notifications: Notifications,
    /// True while the application's hook `after_connect` sets up the session.
    in_setup: AtomicBool,
    /// True if a hook has set up the session, so that undoing session state may undo a part of the setup.
    was_set_up: AtomicBool,
    /// True if several callers share the connection, and pipeline their statements on it.
    pipelined: AtomicBool,
    /// The part of the state that shows whether work may have been applied.
    pub(crate) outcome: Outcome,
}

// Orderings are relaxed unless a comment gives a reason; see the module documentation.
impl Record {
    /// Marks the beginning of a poll of the driver.
    pub(super) fn begin_poll(&self) {
        // This poll handles the cause of the last wake. If no other flag is set, one operation is enough.
        if self.driver.compare_exchange(WOKEN, POLLING, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            self.driver.fetch_or(POLLING, Ordering::AcqRel);
            self.driver.fetch_and(!WOKEN, Ordering::AcqRel);
        }
    }

    /// Marks the end of a poll of the driver.
    pub(super) fn end_poll(&self) {
        if self.driver.fetch_and(!POLLING, Ordering::AcqRel) & WATCHED != 0 {
            self.poll_ended.notify_waiters();
        }
    }

    /// Marks the driver as woken.
    pub(super) fn wake(&self) {
        self.driver.fetch_or(WOKEN, Ordering::AcqRel);
    }

    /// Returns true if the next caller can use the connection as it is: no transaction is open, no response is
    /// outstanding, and no request is in transit.
    #[inline]
    pub(crate) fn is_clean(&self) -> bool {
        // The acquire load in `is_driver_idle` pairs with the releases in `begin_poll` and `end_poll`, so the relaxed
        // loads below read the values that the last poll wrote.
        self.is_driver_idle()
            && self.is_answered()
            && self.status.load(Ordering::Relaxed) == IDLE
            && !self.ended.load(Ordering::Relaxed)
    }

    /// Returns true if every response has arrived and the driver holds none that its caller has not received. A request
    /// that is only partly written is not counted as outstanding yet.
    #[inline]
    fn is_answered(&self) -> bool {
        self.outstanding.load(Ordering::Relaxed) == 0
            && !self.is_write_blocked()
            && !self.copying.load(Ordering::Relaxed)
            && !self.undelivered.load(Ordering::Relaxed)
    }

    /// Returns true if the driver holds requests that the socket has not accepted.
    #[inline]
    pub(crate) fn is_write_blocked(&self) -> bool {
        self.write_blocked.load(Ordering::Relaxed)
    }

    /// Returns true if the driver is not being polled and has not been woken.
    #[inline]
    pub(crate) fn is_driver_idle(&self) -> bool {
        self.driver.load(Ordering::Acquire) & (POLLING | WOKEN) == 0
    }

    /// Waits until no request is outstanding or in transit, or until the connection has ended. Cancel-safe.
    pub(crate) async fn wait_until_idle(&self) {
        self.wait_until(|record| record.is_driver_idle() && record.is_answered()).await;
    }

    /// Waits until the connection is [clean](Self::is_clean), or until it has ended. Cancel-safe.
    pub(crate) async fn wait_until_clean(&self) {
        self.wait_until(Self::is_clean).await;
    }

    /// Waits until the connection has ended. Cancel-safe.
    pub(crate) async fn wait_until_ended(&self) {
        self.wait_until(|_| false).await;
    }

    async fn wait_until(&self, is_reached: impl Fn(&Self) -> bool) {
        loop {
            let mut poll_ended = pin!(self.poll_ended.notified());
            // Registers this waiter before the check, so that the end of a later poll wakes it.
            poll_ended.as_mut().enable();
            self.driver.fetch_or(WATCHED, Ordering::AcqRel);
            if is_reached(self) || self.has_ended() {
                return;
            }
            poll_ended.await;
        }
    }

    /// Returns true if the connection has ended.
    pub(crate) fn has_ended(&self) -> bool {
        // Acquire pairs with `set_ended`.
        self.ended.load(Ordering::Acquire)
    }

    pub(crate) fn set_ended(&self) {
        self.ended.store(true, Ordering::Release);
        self.poll_ended.notify_waiters();
    }

    /// Returns true if the connection was lost: the peer closed it without an error message, an I/O operation failed,
    /// or the tap found a violation of the protocol. Other errors of the driver, such as a message that it cannot
    /// parse, end this connection only, and are no evidence against the Pod.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    pub(super) fn set_lost(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }

    /// Returns true if the pool has dropped the connection. Errors after the release are not evidence against the Pod.
    pub(crate) fn is_released(&self) -> bool {
        // Acquire pairs with `release`.
        self.released.load(Ordering::Acquire)
    }

    /// Marks the connection as released after the driver has sent Terminate.
    pub(super) fn set_terminated(&self) {
        self.released.store(true, Ordering::Release);
    }

    /// Marks the connection as released, and wakes the driver. A driver whose write is blocked would otherwise not
    /// notice that its client is gone, and would not close the socket in time.
    pub(super) fn release(&self) {
        self.released.store(true, Ordering::Release);
        let waker = lock(&self.waker).take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Stores the waker of the driver's task, before the driver checks whether the connection is released.
    pub(super) fn set_waker(&self, waker: Waker) {
        *lock(&self.waker) = Some(waker);
    }

    /// Returns true if the connection is available to callers.
    pub(super) fn is_in_service(&self) -> bool {
        self.in_service.load(Ordering::Relaxed)
    }

    /// Makes the connection available to callers, which raises the limits on the size of responses. Relaxed ordering is
    /// enough, because the first request of a caller reaches the driver later through a channel, which orders both.
    pub(crate) fn set_in_service(&self) {
        self.in_service.store(true, Ordering::Relaxed);
    }

    /// Marks the connection as shared by several callers. The connection must be clean. Relaxed ordering is enough,
    /// because the first request of a caller reaches the driver through a channel, which orders both.
    pub(crate) fn set_pipelined(&self) {
        self.pipelined.store(true, Ordering::Relaxed);
    }

    /// Returns true if several callers share the connection.
    #[inline]
    pub(super) fn is_pipelined(&self) -> bool {
        self.pipelined.load(Ordering::Relaxed)
    }

    /// Returns the number of statements that were written, at least in part, except for the driver's type look-ups. It
    /// wraps around.
    pub(crate) fn statements_written(&self) -> u32 {
        self.outcome.work().executed()
    }

    /// Returns true if a COPY from the client is in progress.
    pub(super) fn is_copying(&self) -> bool {
        self.copying.load(Ordering::Relaxed)
    }

    /// Returns the status byte of the last ReadyForQuery.
    pub(crate) fn status(&self) -> u8 {
        self.status.load(Ordering::Relaxed)
    }

    /// Returns the total number of requests written. If the number is the same before and after an operation, the
    /// operation sent no request, provided that the connection was clean before it and the driver is idle after it.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Returns the number of requests that callers have sent.
    pub(crate) fn sent_by_callers(&self) -> u64 {
        self.sent().saturating_sub(self.sent_by_probes.load(Ordering::Relaxed))
    }

    /// Sets whether a probe uses the connection. The connection must be clean. Relaxed ordering is enough, because the
    /// first request of the probe reaches the driver through a channel, which orders both.
    pub(crate) fn set_probing(&self, probing: bool) {
        self.probing.store(probing, Ordering::Relaxed);
    }

    /// Returns true while a probe uses the connection.
    pub(crate) fn is_probing(&self) -> bool {
        self.probing.load(Ordering::Relaxed)
    }

    /// Returns the total number of reads that returned bytes.
    pub(crate) fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }

    /// Returns the total number of requests that failed through a fault of the server, and the number of consecutive
    /// failures up to the last request.
    pub(crate) fn failed(&self) -> (u64, u32) {
        (self.failed.load(Ordering::Relaxed), self.consecutive_failures.load(Ordering::Relaxed))
    }

    /// Returns the number of requests that the server has not completed.
    pub(crate) fn outstanding(&self) -> u32 {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// Returns the total number of Parse messages written: one for each statement that the driver prepares.
    #[inline]
    pub(crate) fn parsed(&self) -> u64 {
        self.parsed.load(Ordering::Relaxed)
    }

    pub(super) fn set_parsed(&self, parsed: u64) {
        self.parsed.store(parsed, Ordering::Relaxed);
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

    pub(super) fn set_undelivered(&self, undelivered: bool) {
        self.undelivered.store(undelivered, Ordering::Relaxed);
    }

    pub(super) fn set_write_blocked(&self, blocked: bool) {
        self.write_blocked.store(blocked, Ordering::Relaxed);
    }

    pub(super) fn count_sent(&self) {
        self.sent.store(self.sent() + 1, Ordering::Relaxed);
        if self.is_probing() {
            let probes = self.sent_by_probes.load(Ordering::Relaxed);
            self.sent_by_probes.store(probes + 1, Ordering::Relaxed);
        }
    }

    pub(super) fn count_read(&self) {
        self.reads.store(self.reads() + 1, Ordering::Relaxed);
    }

    pub(super) fn count_outcome(&self, failed: bool) {
        if self.is_used_by_pool() {
            return;
        }
        if failed {
            let (total, consecutive) = self.failed();
            self.failed.store(total + 1, Ordering::Relaxed);
            self.consecutive_failures.store(consecutive.saturating_add(1), Ordering::Relaxed);
        } else if self.consecutive_failures.load(Ordering::Relaxed) > 0 {
            self.consecutive_failures.store(0, Ordering::Relaxed);
        }
    }
}
