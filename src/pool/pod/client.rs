//! The guard that a caller holds.

use std::{fmt, ops::Deref};

use deadpool::unmanaged::Object;
use deadpool_postgres::{ClientWrapper, Transaction, TransactionBuilder};

use super::{Pod, conn::Conn, recycle, reset};
use crate::{
    endpoint::{Endpoint, Role},
    wire::{CancelToken, record::Record},
};

/// A connection to one Pod, lent out until it is dropped.
///
/// It derefs to deadpool-postgres's [`ClientWrapper`] and on to [`tokio_postgres::Client`], so every method of both is
/// there: `query`, `execute`, `prepare_cached`, `copy_in`, … [`transaction`](Client::transaction) and
/// [`build_transaction`](Client::build_transaction) are here.
///
/// Dropping it gives the connection back, from any thread, in or out of a runtime, and never blocks. A connection on
/// which nothing is open or under way is lent out again at once. Any other is recycled in the background first: what
/// still runs may finish for a moment, is then cancelled on the server, and an open transaction is rolled back. Only a
/// connection that came clean is lent out again.
///
/// What a session keeps beyond its transactions stays, unless [`Reset`](crate::config::Reset) says otherwise. The
/// statements of `prepare_cached` stay with the connection: `statement_cache_size` of them at most, and none after the
/// server has found one outdated or missing.
pub struct Client {
    /// Taken when the connection is given back, and not before.
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

    /// The Pod on the other end.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.conn().pod().endpoint
    }

    /// What the server on the other end is, as it said last: when the connection was opened, and with the answer to
    /// the first statement after a change (PostgreSQL 14 and newer; before, as of the opening).
    #[must_use]
    pub fn role(&self) -> Role {
        self.record().role()
    }

    /// Begins a transaction, which rolls back when it is dropped without a commit.
    ///
    /// # Errors
    ///
    /// What the driver says.
    pub async fn transaction(&mut self) -> Result<Transaction<'_>, tokio_postgres::Error> {
        self.wrapper_mut().transaction().await
    }

    /// Begins a transaction with options.
    pub fn build_transaction(&mut self) -> TransactionBuilder<'_> {
        self.wrapper_mut().build_transaction()
    }

    /// A token that cancels what runs on this connection, over a socket of its own. Hides the driver's method of the
    /// same name, whose token does not know the Pod's address.
    #[must_use]
    pub fn cancel_token(&self) -> CancelToken {
        self.conn().cancel_token()
    }

    // A mutable deref would let a swap part a connection from its record.
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

    /// A look at the record that outlives the guard.
    pub(crate) fn watch(&self) -> std::sync::Arc<Record> {
        self.conn().record.shared()
    }

    /// Whether nobody has used it for so long that it wants a ping.
    #[inline]
    pub(crate) fn is_stale(&self) -> bool {
        let shared = self.pod().shared();
        shared.clock.now().saturating_sub(self.conn().parked) > shared.ping_after
    }

    /// Whether it can be handed out as it is: nothing is under way on it, and it wants no ping.
    #[inline]
    pub(crate) fn is_fresh(&self) -> bool {
        self.record().is_clean() && !self.is_stale()
    }

    /// The connection without the guard.
    pub(crate) fn into_object(mut self) -> Object<Box<Conn>> {
        self.object.take().expect("taken only by what ends the guard")
    }

    /// Closes the connection instead of giving it back.
    pub(crate) fn retire(mut self) {
        if let Some(object) = self.object.take() {
            Pod::check_out_for_good(object);
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
            give_back(object);
        }
    }
}

#[inline]
fn give_back(object: Object<Box<Conn>>) {
    let conn = &**object;
    if conn.record.is_clean() {
        if !conn.is_current() || conn.is_old() || conn.pod().is_over() {
            Pod::check_out_for_good(object);
        } else if reset::is_due(conn) {
            recycle::recycle(object);
        } else {
            Pod::check_in(object);
        }
    } else if conn.record.has_ended() {
        Pod::check_out_for_good(object);
    } else {
        recycle::recycle(object);
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("endpoint", self.endpoint()).field("role", &self.role()).finish_non_exhaustive()
    }
}
