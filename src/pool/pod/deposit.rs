//! A place for a connection that a caller's work has dropped, so that the outcome of the work can be judged before the
//! connection is recycled or another caller uses it.

use std::{fmt, sync::Arc};

use deadpool::unmanaged::Object;

use super::{client, conn::Conn};
use crate::sync::{Mutex, lock};

/// A place for one connection. If the deposit is dropped, the connection is returned to its pool.
pub(crate) struct Deposit(Mutex<Option<Object<Box<Conn>>>>);

impl Deposit {
    /// Creates an empty deposit.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(None)))
    }

    /// Deposits a connection.
    pub(super) fn put(&self, object: Object<Box<Conn>>) {
        *lock(&self.0) = Some(object);
    }

    /// Takes the connection. Returns `None` if the work has not dropped it.
    pub(crate) fn take(&self) -> Option<client::Client> {
        lock(&self.0).take().map(client::Client::new)
    }
}

impl Drop for Deposit {
    fn drop(&mut self) {
        drop(self.take());
    }
}

impl fmt::Debug for Deposit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deposit").finish_non_exhaustive()
    }
}
