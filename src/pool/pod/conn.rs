//! A pooled connection, the handle through which its Pod observes it while it is checked out, and the permit for
//! opening it.

use std::{ops::Deref, sync::Arc};

use deadpool_postgres::ClientWrapper;
use tokio::task::AbortHandle;

use super::{Pod, counters::Label, deposit::Deposit, metrics::UseTimer, shared::count};
use crate::{
    endpoint::Endpoint,
    pool::{hook::HookClient, owned::Owned},
    sync::{AtomicU64, Ordering},
    system::spawn,
    wire::{
        CancelToken,
        dial::{Dialer, Dialled},
        outcome::WorkMark,
        record::{Record, RecordOwner},
    },
};

/// The generation of a connection that the application may have replaced. No Pod reaches it.
const INVALID: u64 = u64::MAX;

/// An open connection. Boxed in the Pod's deadpool, because the deadpool moves its objects several times.
#[derive(Debug)]
pub(crate) struct Conn {
    /// The owner of the state read from the wire. Dropped before the client, so that the driver can distinguish a close
    /// by the pool from a lost connection.
    pub(crate) record: RecordOwner,
    pub(crate) wrapper: ClientWrapper,
    driver: AbortHandle,
    /// The dialer for cancel requests. Stored here because the connection can outlive its pool.
    dialer: Arc<Dialer>,
    /// The Pod, with only the address that is connected.
    endpoint: Endpoint,
    encrypted: bool,
    /// End of the connection's lifetime, in milliseconds of the pool's clock.
    expires_at: u64,
    /// The Pod's generation when the connection was opened.
    pub(crate) generation: u64,
    /// Time when the connection was opened or last used, in milliseconds of the pool's clock.
    pub(crate) idle_since: u64,
    /// True if a caller has received the connection since the connection was last idle.
    pub(crate) was_used: bool,
    /// Number of requests sent up to the last session reset. If this is also the current number, no reset is needed.
    pub(crate) sent_at_reset: u64,
    /// The statement cache is certain to be within its size limit until this number of statements has been parsed.
    pub(crate) cache_fits_until: u64,
    /// True if the statement cache was already cleared once because a cached statement was missing on the server.
    pub(crate) cleared_for_missing: bool,
    /// The bits of the [`WorkMark`] at the current checkout. The work since then is the
    /// caller's.
    pub(crate) work: AtomicU64,
    /// The place where the connection is deposited instead of being returned to the pool.
    pub(crate) deposit: Option<Arc<Deposit>>,
    /// True if a hook of the application has rejected the connection, so that it is closed.
    pub(crate) is_rejected: bool,
    /// True while the pool commits a transaction. A cancel request would make a commit that waits for a synchronous
    /// standby return without it.
    pub(crate) is_committing: bool,
    /// True once the connection is counted as opened. It is then also counted when it is closed.
    is_counted: bool,
    /// Measures how long the current caller uses the connection.
    pub(crate) use_timer: UseTimer,
    /// Dropped last: the permit is released after the connection has been closed.
    pub(crate) permit: Permit,
}

impl Conn {
    pub(crate) fn new(
        dialled: Dialled,
        dialer: Arc<Dialer>,
        permit: Permit,
        generation: u64,
        expires_at: u64,
    ) -> Box<Self> {
        let Dialled { endpoint, client, record, driver, security } = dialled;
        let idle_since = permit.shared().clock.now();
        // The wrapper aborts its task when it is dropped, but the driver must still send Terminate. The wrapper
        // therefore gets a dummy task, and the driver's own task ends after it has sent Terminate.
        let wrapper = ClientWrapper::new(client, spawn(std::future::ready(())));
        let sent_at_reset = record.sent();
        let cache_fits_until = record.parsed() + permit.shared().limits.statement_cache_size as u64;
        Box::new(Self {
            record,
            wrapper,
            driver: driver.abort_handle(),
            dialer,
            endpoint,
            encrypted: security.is_encrypted(),
            expires_at,
            generation,
            idle_since,
            was_used: false,
            sent_at_reset,
            cache_fits_until,
            cleared_for_missing: false,
            work: AtomicU64::new(0),
            deposit: None,
            is_rejected: false,
            is_committing: false,
            is_counted: false,
            use_timer: UseTimer::default(),
            permit,
        })
    }

    /// Returns the Pod that this connection is connected to.
    #[inline]
    pub(crate) fn pod(&self) -> &Arc<Pod> {
        &self.permit.0
    }

    /// Returns true if the connection has not ended and was not invalidated by [`Pod::purge`].
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        !self.record.has_ended() && self.generation == self.pod().generation()
    }

    /// Counts the connection as opened.
    pub(crate) fn count_opened(&mut self) {
        self.is_counted = true;
        count(&self.pod().shared().counters.opened);
    }

    /// Returns the session for a call of the application's hook.
    pub(crate) fn for_hook(&self) -> HookClient<'_> {
        HookClient::pooled(&self.wrapper, &self.pod().endpoint, &self.record)
    }

    /// Makes the connection be closed when it is returned.
    pub(crate) fn invalidate(&mut self) {
        self.generation = INVALID;
    }

    /// Returns a token that cancels the in-flight statement.
    pub(crate) fn cancel_token(&self) -> CancelToken {
        let pod = self.pod();
        let shared = pod.shared();
        CancelToken::new(
            self.wrapper.cancel_token(),
            self.endpoint.clone(),
            self.encrypted,
            self.dialer.clone(),
            shared.runtime.clone(),
        )
    }

    /// Returns the mark of the current checkout.
    pub(crate) fn work_since(&self) -> WorkMark {
        WorkMark::from_bits(self.work.load(Ordering::Relaxed))
    }

    /// Ends the measurement of the current use. Does nothing if no use has begun.
    #[inline]
    pub(crate) fn end_use(&mut self) {
        self.use_timer.end(&self.permit.0.use_times);
    }

    /// Returns true if the connection has reached the end of its lifetime.
    #[inline]
    pub(crate) fn is_expired(&self, now: u64) -> bool {
        now >= self.expires_at
    }

    /// Returns true if the connection may be used again: it is current, has not expired, and its Pod does not have more
    /// connections than its maximum. `now` is the current value of the pool's clock.
    #[inline]
    pub(crate) fn is_reusable(&self, now: u64) -> bool {
        self.is_current() && !self.is_expired(now) && !self.pod().is_over_size()
    }

    /// Returns a handle that can observe and close the connection while it is checked out.
    pub(crate) fn handle(&self) -> ConnHandle {
        ConnHandle {
            record: self.record.shared(),
            driver: self.driver.clone(),
            token: self.cancel_token(),
            expires_at: self.expires_at,
            last_use: (self.record.sent_by_callers(), self.pod().shared().clock.now()),
            owned: None,
        }
    }
}

/// The reason why a connection is closed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reason {
    /// A reason not listed below: recycling or a ping failed, the server had the wrong role, or the Pod had more
    /// connections than its maximum.
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
    /// A hook of the application has rejected the connection.
    Rejected,
    /// The application has dropped the client of a connection that belongs to it.
    Released,
}

impl Label for Reason {
    #[cfg(any(feature = "_metrics", test))]
    const ALL: &[Self] = &[
        Self::Discarded,
        Self::Drained,
        Self::Ejected,
        Self::Ended,
        Self::Idle,
        Self::Lifetime,
        Self::Rejected,
        Self::Released,
    ];

    fn index(self) -> usize {
        self as usize
    }

    #[cfg(any(feature = "_metrics", test))]
    fn label(self) -> &'static str {
        match self {
            Self::Discarded => "discarded",
            Self::Drained => "drained",
            Self::Ejected => "ejected",
            Self::Ended => "ended",
            Self::Idle => "idle",
            Self::Lifetime => "lifetime",
            Self::Rejected => "rejected",
            Self::Released => "released",
        }
    }
}

impl Conn {
    /// Infers from the connection's state why the connection is being closed.
    fn reason(&self) -> Reason {
        let shared = self.pod().shared();
        let now = shared.clock.now();
        let idle = u128::from(now.saturating_sub(self.idle_since));
        if self.is_rejected {
            Reason::Rejected
        } else if self.record.has_ended() {
            Reason::Ended
        } else if self.pod().slot.is_closed() {
            Reason::Drained
        } else if self.generation == INVALID {
            Reason::Discarded
        } else if self.generation != self.pod().generation() {
            Reason::Ejected
        } else if self.is_expired(now) {
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
        if self.is_counted {
            self.pod().shared().counters.closed_for.increment(self.reason());
        }
    }
}

/// A handle that the Pod keeps for each open connection, to observe and close it while it is checked out.
#[derive(Debug)]
pub(crate) struct ConnHandle {
    pub(crate) record: Arc<Record>,
    driver: AbortHandle,
    token: CancelToken,
    /// End of the connection's lifetime, in milliseconds of the pool's clock.
    pub(crate) expires_at: u64,
    /// Number of the callers' requests at the last check by the upkeep task, and the time of the check that first found
    /// this number.
    last_use: (u64, u64),
    /// Present if the connection belongs to the application.
    pub(crate) owned: Option<Arc<Owned>>,
}

impl ConnHandle {
    /// Creates the handle of a connection that belongs to the application. `now` is the time of the pool's clock.
    pub(crate) fn owned(
        record: Arc<Record>,
        driver: AbortHandle,
        token: CancelToken,
        owned: Arc<Owned>,
        now: u64,
    ) -> Self {
        let last_use = (record.sent_by_callers(), now);
        Self { record, driver, token, expires_at: u64::MAX, last_use, owned: Some(owned) }
    }

    /// Returns a cancel token if the connection is in use or waiting for a response. A caller may send the next
    /// statement at any moment, and without one, a cancel request has no effect.
    pub(crate) fn cancel_token_if_in_use(&self) -> Option<CancelToken> {
        let in_use = !self.record.is_released() || self.record.outstanding() > 0;
        (in_use && !self.record.has_ended()).then(|| self.token.clone())
    }

    /// Returns the time since a check by the upkeep task last found a new request on the connection.
    pub(crate) fn unused_for(&mut self, now: u64) -> u64 {
        let sent = self.record.sent_by_callers();
        if self.last_use.0 != sent {
            self.last_use = (sent, now);
        }
        now.saturating_sub(self.last_use.1)
    }

    /// Closes the socket without sending Terminate first.
    pub(crate) fn abort(&self) {
        self.driver.abort();
    }
}

/// A permit for one connection to a Pod. Taken before the dial and released after the connection has been closed.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Pod>);

impl Permit {
    /// Takes a permit. Returns `None` if the Pod or the pool has no permit left.
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
