//! A connection that belongs to the application, and the pool's part of it.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

use tokio::sync::Notify;
use tokio_postgres::Client;

use crate::{
    config::Target,
    endpoint::{Endpoint, slot::Slot},
    pool::pod::{conn::Reason, view::PodHealth},
    wire::CancelToken,
};

/// A connection that never enters the pool, from [`Pool::connect_owned`](crate::Pool::connect_owned).
///
/// Move the client out of this struct, for example into another pool. Dropping the client closes the connection.
#[derive(Debug)]
#[non_exhaustive]
pub struct OwnedConnection {
    /// The driver's client. Its task is already running. The driver's `cancel_token` does not work on this client,
    /// because it does not contain the Pod's address; use the field `cancel_token`.
    pub client: Client,
    /// Cancels the in-flight statement of this connection.
    pub cancel_token: CancelToken,
    /// The Pod that the connection is connected to.
    pub endpoint: Endpoint,
}

/// The pool's part of a connection that belongs to the application, or that several callers share.
#[derive(Debug)]
pub(crate) struct Owned {
    target: Target,
    /// True if transactions of the session were read-only by default when it was opened.
    read_only: bool,
    /// True if the Pod's role does not fit the target, but the Pod replaces lagging standbys.
    replaces_standbys: bool,
    /// True if the connection is shared by several callers and does not belong to the application.
    shared: bool,
    /// The reason why the pool closes the connection. Set once.
    closing: OnceLock<Reason>,
    /// True if the connection must be closed as soon as it is clean.
    when_clean: AtomicBool,
    /// Wakes the task that supervises the connection.
    pub(crate) changed: Notify,
}

impl Owned {
    pub(super) fn new(target: Target, read_only: bool, replaces_standbys: bool) -> Self {
        let (closing, when_clean, changed) = (OnceLock::new(), AtomicBool::new(false), Notify::new());
        Self { target, read_only, replaces_standbys, shared: false, closing, when_clean, changed }
    }

    /// Creates the pool's part of a connection that several callers share.
    pub(crate) fn shared(target: Target) -> Self {
        Self { shared: true, ..Self::new(target, false, false) }
    }

    /// Returns true if the connection is shared by several callers and does not belong to the application.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared
    }

    /// Records why the connection is closed, unless a reason is already known.
    pub(crate) fn set_reason(&self, reason: Reason) {
        let _ = self.closing.set(reason); // the first reason is kept
    }

    /// Returns the reason why the pool has closed the connection, if it has.
    pub(crate) fn reason(&self) -> Option<Reason> {
        self.closing.get().copied()
    }

    /// Makes the supervising task close the connection as soon as no transaction is open and no response is
    /// outstanding.
    pub(crate) fn close_when_clean(&self, reason: Reason) {
        self.set_reason(reason);
        // Relaxed: `Notify` orders the store before the task's load.
        self.when_clean.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Returns true if the connection must be closed as soon as it is clean.
    pub(crate) fn closes_when_clean(&self) -> bool {
        self.when_clean.load(Ordering::Relaxed)
    }

    /// Returns true if the Pod no longer serves the connection's target: the Pod is fenced, its role has changed, its
    /// data is too old, or the Pod has replaced standbys of which one has caught up. While the role is unknown, it has
    /// not changed.
    pub(crate) fn is_unfit(&self, health: &PodHealth, slot: &Slot) -> bool {
        use crate::endpoint::Role;
        let is_replacement = || self.replaces_standbys && slot.serves(self.target.bit());
        health.fence.is_some()
            || health.late
            || health.role != Role::Unknown && !self.target.accepts(health.role, self.read_only) && !is_replacement()
    }
}
