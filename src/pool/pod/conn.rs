//! The pooled connection, the pool's outside handle to it, and the permit that limits how many a Pod has.

use std::{ops::Deref, sync::Arc};

use deadpool_postgres::ClientWrapper;
use tokio::task::AbortHandle;

use super::{Pod, counters::Label, metrics::UseTimer};
use crate::wire::{
    CancelToken,
    dial::Dialled,
    record::{Record, RecordOwner},
};

/// An open connection. deadpool stores it boxed, because deadpool moves its objects several times.
#[derive(Debug)]
pub(crate) struct Conn {
    /// Dropped before the client, so that the driver can distinguish a close by the pool from a lost connection.
    pub(crate) record: RecordOwner,
    pub(crate) wrapper: ClientWrapper,
    driver: AbortHandle,
    encrypted: bool,
    /// The pool's clock at the end of the connection's lifetime, in milliseconds.
    expires_at: u64,
    /// The Pod's generation when the connection was opened.
    pub(crate) generation: u64,
    /// The pool's clock when the connection was opened or returned last, in milliseconds.
    pub(crate) idle_since: u64,
    /// Number of requests sent up to the last session reset. No reset is needed while it has not grown.
    pub(crate) sent_at_reset: u64,
    /// Number of parsed statements up to which the statement cache cannot exceed its limit.
    pub(crate) cache_fits_until: u64,
    /// True if the statement cache was cleared because the server did not have a cached statement.
    pub(crate) cleared_for_missing: bool,
    /// Measures the current use.
    pub(crate) use_timer: UseTimer,
    /// Dropped last: the permit is released after the connection has been closed.
    pub(crate) permit: Permit,
}

impl Conn {
    pub(crate) fn new(dialled: Dialled, permit: Permit, generation: u64, expires_at: u64) -> Box<Self> {
        let Dialled { client, record, driver, encrypted } = dialled;
        let idle_since = permit.shared().clock.now();
        // The wrapper aborts its task when it is dropped. The driver must go on to send Terminate and then ends on its
        // own, so the wrapper gets a task that has nothing to do.
        let wrapper = ClientWrapper::new(client, tokio::spawn(std::future::ready(())));
        let sent_at_reset = record.sent();
        let cache_fits_until = record.parsed() + permit.shared().limits.statement_cache_size as u64;
        Box::new(Self {
            record,
            wrapper,
            driver,
            encrypted,
            expires_at,
            generation,
            idle_since,
            sent_at_reset,
            cache_fits_until,
            cleared_for_missing: false,
            use_timer: UseTimer::default(),
            permit,
        })
    }

    /// Returns the connection's Pod.
    #[inline]
    pub(crate) fn pod(&self) -> &Arc<Pod> {
        &self.permit.0
    }

    /// Returns true if the connection is alive and its Pod was not purged since it was opened.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        !self.record.has_ended() && self.generation == self.pod().generation()
    }

    /// Returns a token that cancels the running statement.
    pub(crate) fn cancel_token(&self) -> CancelToken {
        let pod = self.pod();
        let shared = pod.shared();
        CancelToken::new(
            self.wrapper.cancel_token(),
            pod.endpoint.clone(),
            self.encrypted,
            shared.dialer.clone(),
            shared.runtime.clone(),
        )
    }

    /// Ends the use by a caller, if one has begun.
    #[inline]
    pub(crate) fn end_use(&mut self) {
        self.use_timer.end(&self.permit.0.use_times);
    }

    /// Returns true if the connection has reached the end of its lifetime.
    #[inline]
    pub(crate) fn is_expired(&self) -> bool {
        self.pod().shared().clock.now() >= self.expires_at
    }

    /// Returns a handle that can observe and close the connection while it is checked out.
    pub(crate) fn handle(&self) -> ConnHandle {
        ConnHandle { record: self.record.shared(), driver: self.driver.clone(), token: self.cancel_token() }
    }
}

/// The reason why a connection is closed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reason {
    /// The connection could not be recycled, failed a ping, had a server of the wrong role, or exceeded the Pod's size.
    Discarded,
    /// The Pod is being drained, or the pool is closed.
    Drained,
    /// The Pod was ejected or fenced.
    Ejected,
    /// The server or the network ended the connection.
    Ended,
    /// The connection reached `idle_timeout`.
    Idle,
    /// The connection reached `max_lifetime`.
    Lifetime,
}

impl Label for Reason {
    #[cfg(any(feature = "metrics", test))]
    const ALL: &[Self] = &[Self::Discarded, Self::Drained, Self::Ejected, Self::Ended, Self::Idle, Self::Lifetime];

    fn index(self) -> usize {
        self as usize
    }

    #[cfg(any(feature = "metrics", test))]
    fn label(self) -> &'static str {
        match self {
            Self::Discarded => "discarded",
            Self::Drained => "drained",
            Self::Ejected => "ejected",
            Self::Ended => "ended",
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
        }
    }
}

impl Conn {
    /// Infers from the connection's state why it is being closed.
    fn reason(&self) -> Reason {
        let shared = self.pod().shared();
        let idle = u128::from(shared.clock.now().saturating_sub(self.idle_since));
        if self.record.has_ended() {
            Reason::Ended
        } else if self.pod().slot.is_closed() {
            Reason::Drained
        } else if self.generation != self.pod().generation() {
            Reason::Ejected
        } else if self.is_expired() {
            Reason::Lifetime
        } else if idle > shared.limits.idle_timeout.as_millis() && self.record.is_clean() {
            Reason::Idle
        } else {
            Reason::Discarded
        }
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.pod().shared().counters.closed_for.increment(self.reason());
    }
}

/// A handle to an open connection, kept by the Pod to observe and close it.
#[derive(Debug)]
pub(crate) struct ConnHandle {
    pub(crate) record: Arc<Record>,
    driver: AbortHandle,
    token: CancelToken,
}

impl ConnHandle {
    /// Returns a cancel token if the connection waits for a response.
    pub(crate) fn cancel_token_if_busy(&self) -> Option<CancelToken> {
        (!self.record.has_ended() && self.record.outstanding() > 0).then(|| self.token.clone())
    }

    /// Closes the socket without sending Terminate.
    pub(crate) fn abort(&self) {
        self.driver.abort();
    }
}

/// A permit to open one connection to a Pod. Taken before the dial, and released when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Pod>);

impl Permit {
    /// Takes a permit if the Pod has one left.
    pub(crate) fn take(pod: &Arc<Pod>) -> Option<Self> {
        pod.take_permit().then(|| Self(pod.clone()))
    }
}

impl Deref for Permit {
    type Target = Arc<Pod>;

    fn deref(&self) -> &Arc<Pod> {
        &self.0
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.release_permit();
    }
}
