//! The guard of a checked-out connection, and the decision at its return: keep, recycle or close.

use std::{fmt, ops::Deref};

use deadpool::unmanaged::Object;
use deadpool_postgres::{ClientWrapper, Transaction, TransactionBuilder};

use super::{Pod, conn::Conn, recycle, reset};
use crate::{
    endpoint::{Endpoint, Role},
    wire::{CancelToken, record::Record},
};

/// A connection to one Pod, checked out until the guard is dropped.
///
/// The guard derefs to deadpool-postgres's [`ClientWrapper`] and through it to [`tokio_postgres::Client`], which
/// provide `query`, `execute`, `prepare_cached`, `copy_in` and so on. Both offer transactions through a mutable
/// reference, which the guard does not give out; use [`transaction`](Client::transaction) and
/// [`build_transaction`](Client::build_transaction) instead.
///
/// Dropping the guard returns the connection to the pool. Dropping is allowed on any thread, inside or outside of a
/// runtime, and never blocks. A clean connection, with no open transaction and no outstanding request, is available to
/// the next caller immediately. Any other connection is recycled in the background first: the pool waits 100 ms for a
/// running statement, then cancels it on the server, and rolls an open transaction back. A connection that is not clean
/// after that is closed.
///
/// Session state that outlives a transaction is kept, unless [`Reset`](crate::config::Reset) is configured. Statements
/// of `prepare_cached` stay with the connection, up to `statement_cache_size` (256 by default) of them. A connection
/// that is returned with more is cleared of all of them, as is one whose server has reported a cached statement as
/// outdated or missing.
pub struct Client {
    /// `None` only after a method that ends the guard has taken the connection.
    object: Option<Object<Box<Conn>>>,
}

impl Client {
    #[inline]
    pub(crate) fn new(object: Object<Box<Conn>>) -> Self {
        Self { object: Some(object) }
    }

    #[inline]
    fn conn(&self) -> &Conn {
        self.object.as_ref().expect("taken only by `drop` and `retire`, which end the guard")
    }

    /// Returns the Pod of this connection.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.conn().pod().endpoint
    }

    /// Returns the server's role as the server reported it last.
    ///
    /// PostgreSQL 14 and later report a change with the response to the first statement after it. With earlier versions
    /// the role is that of the time when the connection was opened.
    #[must_use]
    pub fn role(&self) -> Role {
        self.record().role()
    }

    /// Begins a transaction. The transaction is rolled back if it is dropped without a commit.
    ///
    /// # Errors
    ///
    /// Returns the driver's error if `BEGIN` fails.
    pub async fn transaction(&mut self) -> Result<Transaction<'_>, tokio_postgres::Error> {
        self.wrapper_mut().transaction().await
    }

    /// Returns a builder for a transaction with options, such as its isolation level.
    pub fn build_transaction(&mut self) -> TransactionBuilder<'_> {
        self.wrapper_mut().build_transaction()
    }

    /// Returns a token that cancels the statement that runs on this connection, over a separate socket.
    ///
    /// Use this instead of the driver's method of the same name, whose token does not contain the Pod's address.
    #[must_use]
    pub fn cancel_token(&self) -> CancelToken {
        self.conn().cancel_token()
    }

    // Not public: `mem::swap` on two wrappers would separate each connection from its record.
    fn wrapper_mut(&mut self) -> &mut ClientWrapper {
        let object = self.object.as_mut().expect("taken only by `drop` and `retire`, which end the guard");
        &mut object.wrapper
    }

    #[inline]
    pub(crate) fn record(&self) -> &Record {
        &self.conn().record
    }

    #[inline]
    pub(crate) fn pod(&self) -> &Pod {
        self.conn().pod()
    }

    /// Returns the record, which can be read after the guard has been dropped.
    pub(crate) fn shared_record(&self) -> std::sync::Arc<Record> {
        self.conn().record.shared()
    }

    /// Returns true if the connection was idle for longer than `ping_after`.
    #[inline]
    pub(crate) fn is_stale(&self) -> bool {
        let shared = self.pod().shared();
        shared.clock.now().saturating_sub(self.conn().idle_since) > shared.ping_after
    }

    /// Returns true if the connection can be used as it is: it is clean and needs no ping.
    #[inline]
    pub(crate) fn is_fresh(&self) -> bool {
        self.record().is_clean() && !self.is_stale()
    }

    /// Begins a use by a caller. `any` is true if the caller accepts every Pod.
    #[inline]
    pub(crate) fn begin_use(&mut self, any: bool) {
        let conn = &mut **self.object.as_mut().expect("taken only by `drop` and `retire`, which end the guard");
        conn.record.set_any_pod(any);
        conn.use_timer.begin(conn.pod().shared().clock.now());
    }

    /// Ends the guard and returns the connection, still checked out.
    pub(crate) fn into_object(mut self) -> Object<Box<Conn>> {
        self.object.take().expect("taken only by a method that ends the guard")
    }

    /// Closes the connection instead of returning it to the pool.
    pub(crate) fn retire(mut self) {
        if let Some(mut object) = self.object.take() {
            object.end_use();
            Pod::close_checked_out(object);
        }
    }
}

impl Deref for Client {
    type Target = ClientWrapper;

    #[inline]
    fn deref(&self) -> &ClientWrapper {
        &self.conn().wrapper
    }
}

impl Drop for Client {
    #[inline]
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            return_to_pool(object);
        }
    }
}

#[inline]
fn return_to_pool(mut object: Object<Box<Conn>>) {
    let conn = &mut **object;
    conn.end_use();
    let conn = &*conn;
    if conn.record.is_clean() {
        if !conn.is_current() || conn.is_expired() || conn.pod().is_over_size() {
            Pod::close_checked_out(object);
        } else if reset::is_due(conn) {
            recycle::recycle(object);
        } else {
            Pod::check_in(object);
        }
    } else if conn.record.has_ended() {
        Pod::close_checked_out(object);
    } else {
        recycle::recycle(object);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("endpoint", self.endpoint()).field("role", &self.role()).finish_non_exhaustive()
    }
}
