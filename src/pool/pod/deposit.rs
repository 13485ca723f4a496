//! A place for the outcome of a caller's work that has dropped its connection, so that the outcome can be judged
//! before the connection is recycled or another caller uses it.

use std::{fmt, mem, sync::Arc};

use deadpool::unmanaged::Object;
use tokio::runtime::Handle;

use super::{client::Client, conn::Conn};
use crate::{
    sync::{Mutex, lock},
    system::spawn_on,
    wire::{
        outcome::{Settled, WorkMark},
        record::Record,
    },
};

/// A place for the outcome of the work on one connection. If it is dropped, a connection in it is returned to its pool.
pub(crate) struct Deposit {
    dropped: Mutex<Dropped>,
    /// True if a connection stays in the deposit even if its outcome is known.
    keeps: bool,
}

/// The connection that the work has dropped.
pub(crate) enum Dropped {
    /// The work has not dropped the connection.
    No,
    /// Responses are outstanding, or the deposit keeps the connection.
    Unsettled(Client),
    /// The connection has returned to its pool. The outcome was known then.
    Settled(Settled),
    /// The connection has ended. The work began at the mark.
    Ended(WorkMark),
}

impl Dropped {
    /// Returns the outcome of the work that began at the mark, or `None` while responses are outstanding or a
    /// transaction is open.
    fn known(record: &Record, since: WorkMark) -> Option<Self> {
        if record.has_ended() {
            return Some(Self::Ended(since));
        }
        record.is_clean().then(|| Self::Settled(record.settle(since)))
    }
}

impl Deposit {
    /// Creates an empty deposit.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { dropped: Mutex::new(Dropped::No), keeps: false })
    }

    /// Creates an empty deposit that keeps the connection until it is [taken](Self::take_kept).
    pub(crate) fn keeping() -> Arc<Self> {
        Arc::new(Self { dropped: Mutex::new(Dropped::No), keeps: true })
    }

    /// Deposits a connection that is being returned. Gives it back if it need not wait for its outcome.
    pub(super) fn put(&self, object: Object<Box<Conn>>) -> Option<Object<Box<Conn>>> {
        let (dropped, object) = match Dropped::known(&object.record, object.work_since()) {
            Some(dropped) if !self.keeps => (dropped, Some(object)),
            _ => (Dropped::Unsettled(Client::new(object)), None),
        };
        *lock(&self.dropped) = dropped;
        object
    }

    /// Returns a deposited connection to its pool when all responses have arrived, because the work may be waiting for
    /// another connection. Does nothing after the deposit has been dropped, or if the deposit keeps its connection.
    pub(super) fn settle_later(self: &Arc<Self>, record: Arc<Record>, runtime: &Handle) {
        if self.keeps {
            return;
        }
        let deposit = Arc::downgrade(self);
        drop(spawn_on(runtime, async move {
            record.wait_until_idle().await;
            if let Some(deposit) = deposit.upgrade() {
                deposit.settle();
            }
        }));
    }

    fn settle(&self) {
        let mut dropped = lock(&self.dropped);
        let Dropped::Unsettled(client) = &*dropped else { return };
        let Some(known) = Dropped::known(client.record(), client.work_since()) else { return };
        let client = mem::replace(&mut *dropped, known);
        // Unlocks the deposit before the connection is returned to its pool.
        drop(dropped);
        drop(client);
    }

    /// Takes the outcome.
    pub(crate) fn take(&self) -> Dropped {
        mem::replace(&mut *lock(&self.dropped), Dropped::No)
    }

    /// Takes a kept connection. Returns `None` if the work has not dropped it.
    pub(crate) fn take_kept(&self) -> Option<Client> {
        match self.take() {
            Dropped::Unsettled(client) => Some(client),
            Dropped::No | Dropped::Settled(_) | Dropped::Ended(_) => None,
        }
    }
}

impl fmt::Debug for Deposit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deposit").finish_non_exhaustive()
    }
}
