//! A place for the outcome of a caller's work that has dropped its connection, so that the outcome can be judged
//! before the connection is recycled or another caller uses it.

use std::{fmt, sync::Arc};

use deadpool::unmanaged::Object;

use super::{client::Client, conn::Conn};
use crate::{
    sync::{Mutex, lock},
    wire::outcome::{Settled, WorkMark},
};

/// A place for the outcome of the work on one connection. If it is dropped, a connection in it is returned to its pool.
pub(crate) struct Deposit(Mutex<Dropped>);

/// The connection that the work has dropped.
pub(crate) enum Dropped {
    /// The work has not dropped the connection.
    No,
    /// Responses are outstanding.
    Unsettled(Client),
    /// The connection has returned to its pool. The outcome was known then.
    Settled(Settled),
    /// The connection has ended. The work began at the mark.
    Ended(WorkMark),
}

impl Deposit {
    /// Creates an empty deposit.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Dropped::No)))
    }

    /// Deposits a connection that is being returned. Gives it back if it need not wait for its outcome.
    pub(super) fn put(&self, object: Object<Box<Conn>>) -> Option<Object<Box<Conn>>> {
        let since = object.work_since();
        let (dropped, object) = if object.record.has_ended() {
            (Dropped::Ended(since), Some(object))
        } else if object.record.is_clean() {
            (Dropped::Settled(object.record.settle(since)), Some(object))
        } else {
            (Dropped::Unsettled(Client::new(object)), None)
        };
        *lock(&self.0) = dropped;
        object
    }

    /// Takes the outcome.
    pub(crate) fn take(&self) -> Dropped {
        std::mem::replace(&mut *lock(&self.0), Dropped::No)
    }
}

impl fmt::Debug for Deposit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deposit").finish_non_exhaustive()
    }
}
