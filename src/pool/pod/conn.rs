//! The pooled connection.

use std::{ops::Deref, sync::Arc};

use deadpool_postgres::ClientWrapper;
use tokio::task::AbortHandle;

use super::{Pod, counters::Label, shared::count};
use crate::wire::{
    CancelToken,
    dial::Dialled,
    record::{Record, RecordOwner},
};

/// One open connection: what deadpool keeps, boxed, because it moves its objects several times.
#[derive(Debug)]
pub(crate) struct Conn {
    /// Goes before the client does, so that the driver knows whose doing the end is.
    pub(crate) record: RecordOwner,
    pub(crate) wrapper: ClientWrapper,
    driver: AbortHandle,
    encrypted: bool,
    /// When it has lived long enough, by the pool's clock.
    dies: u64,
    /// The Pod's generation when it was opened.
    pub(crate) generation: u64,
    /// The pool's clock when it came back last.
    pub(crate) parked: u64,
    /// Requests sent when it was as it should be last.
    pub(crate) reset_at: u64,
    /// Up to so many statements parsed, its cache cannot be over its bound.
    pub(crate) uncounted: u64,
    /// It was cache_cleared of its statements because one was missing.
    pub(crate) cache_cleared: bool,
    /// Goes last: with it, the connection's place at the Pod is free.
    pub(crate) permit: Permit,
}

impl Conn {
    /// Pools a connection. `wrapper` wants a task that it ends when it goes; ours ends by itself, and says goodbye
    /// first, so it gets one that is over.
    pub(crate) fn new(dialled: Dialled, permit: Permit, generation: u64, dies: u64) -> Box<Self> {
        let Dialled { client, record, driver, encrypted } = dialled;
        let parked = permit.shared().clock.now();
        let wrapper = ClientWrapper::new(client, tokio::spawn(std::future::ready(())));
        let reset_at = record.sent();
        let uncounted = record.parsed() + permit.shared().limits.statement_cache_size as u64;
        Box::new(Self {
            record,
            wrapper,
            driver,
            encrypted,
            dies,
            generation,
            parked,
            reset_at,
            uncounted,
            cache_cleared: false,
            permit,
        })
    }

    /// The connection's Pod.
    #[inline]
    pub(crate) fn pod(&self) -> &Arc<Pod> {
        &self.permit.0
    }

    /// Whether it may be lent out again, clean or not.
    #[inline]
    pub(crate) fn is_current(&self) -> bool {
        !self.record.has_ended() && self.generation == self.pod().generation()
    }

    /// A token that cancels what runs on it.
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

    /// Whether it has lived long enough.
    #[inline]
    pub(crate) fn is_old(&self) -> bool {
        self.pod().shared().clock.now() >= self.dies
    }

    /// To cut the connection from outside, whoever holds it.
    pub(crate) fn handle(&self) -> ConnHandle {
        ConnHandle { record: self.record.shared(), driver: self.driver.clone(), token: self.cancel_token() }
    }
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reason {
    /// It did not come clean, failed a ping, turned out to be to a server of another role, or was more than its Pod may
    /// have.
    Discarded,
    /// Its Pod has left, or the pool is closed.
    Drained,
    /// Its Pod was ejected, or fenced.
    Ejected,
    /// The server or the network has ended it.
    Ended,
    /// It has been idle for too long.
    Idle,
    /// It has lived long enough.
    Lifetime,
}

impl Label for Reason {
    #[cfg(any(feature = "metrics", test))]
    const ALL: &[Self] = &[Self::Discarded, Self::Drained, Self::Ejected, Self::Ended, Self::Idle, Self::Lifetime];

    fn place(self) -> usize {
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
    /// Why it is closed now, as its state tells.
    fn reason(&self) -> Reason {
        let shared = self.pod().shared();
        let idle = u128::from(shared.clock.now().saturating_sub(self.parked));
        if self.record.has_ended() {
            Reason::Ended
        } else if self.pod().slot.is_closed() {
            Reason::Drained
        } else if self.generation != self.pod().generation() {
            Reason::Ejected
        } else if self.is_old() {
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
        let counters = &self.pod().shared().counters;
        count(&counters.closed);
        counters.closed_for.count(self.reason());
    }
}

/// A connection as the Pod remembers it, to be watched and to be cut.
#[derive(Debug)]
pub(crate) struct ConnHandle {
    pub(crate) record: Arc<Record>,
    driver: AbortHandle,
    token: CancelToken,
}

impl ConnHandle {
    /// What cancels the statement under way, if there is one.
    pub(crate) fn at_work(&self) -> Option<CancelToken> {
        (!self.record.has_ended() && self.record.outstanding() > 0).then(|| self.token.clone())
    }

    /// Closes the socket at once.
    pub(crate) fn cut(&self) {
        self.driver.abort();
    }
}

/// A place for one connection at a Pod, taken before the dial, free when dropped.
#[derive(Debug)]
pub(crate) struct Permit(Arc<Pod>);

impl Permit {
    /// A place, if the Pod has one left.
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
