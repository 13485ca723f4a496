//! The guard of a checked-out connection. When it is dropped, the connection is checked in, recycled or closed.

use std::{fmt, mem, ops::Deref};

use deadpool::unmanaged::Object;
use deadpool_postgres::{ClientWrapper, Transaction, TransactionBuilder};
use tokio::select;

use super::{Pod, conn::Conn, deposit::Deposit, recycle, reset};
use crate::{
    endpoint::{Endpoint, Role},
    pool::hook::{self, HookClient},
    sync::{Arc, Ordering},
    time::Instant,
    wire::{CancelToken, Verdict, outcome::WorkMark, record::Record},
};

/// A connection to one Pod, checked out until the guard is dropped.
///
/// The guard derefs to deadpool-postgres's [`ClientWrapper`] and through it to [`tokio_postgres::Client`], which
/// provide `query`, `execute`, `prepare_cached`, `copy_in` and so on. Their methods for transactions need a mutable
/// reference, which the guard does not provide. Use [`transaction`](Client::transaction) and
/// [`build_transaction`](Client::build_transaction) instead.
///
/// Dropping the guard returns the connection to the pool. Dropping is allowed on any thread, inside or outside of a
/// runtime, and never blocks. A connection is clean if it has no open transaction and no outstanding request. A clean
/// connection is available to the next caller immediately. A connection that is not clean is first recycled in the
/// background: the pool waits 100 ms for an in-flight statement to finish, then cancels the statement on the server,
/// and rolls back an open transaction. If the connection is still not clean after that, it is closed.
///
/// Session state that outlives a transaction is reset in the background if the pool notices that the caller may have
/// changed it; see [`Reset`](crate::config::Reset). Each connection caches the statements of `prepare_cached`. The
/// cache is cleared if the connection is returned with more than `statement_cache_size` statements (256 by default), or
/// after the server has reported that a cached statement is stale or missing.
pub struct Client {
    /// The pooled connection. `None` only after a method that ends the guard has taken the connection.
    object: Option<Object<Box<Conn>>>,
}

/// The reason why the guard has a connection until it ends.
const TAKEN: &str = "the connection is taken only by a method that ends the guard";

impl Client {
    #[inline]
    pub(crate) fn new(object: Object<Box<Conn>>) -> Self {
        Self { object: Some(object) }
    }

    #[inline]
    fn conn(&self) -> &Conn {
        self.object.as_ref().expect(TAKEN)
    }

    /// Returns the Pod that this connection is connected to.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.conn().pod().endpoint
    }

    /// Returns the role that the server last reported on this connection.
    ///
    /// PostgreSQL 14 and later report a change of role with the response to the next statement. Earlier versions report
    /// the role only once, when the connection is opened.
    #[must_use]
    pub fn role(&self) -> Role {
        self.record().role()
    }

    /// Returns the process ID of the session as the server has announced it at login, if it has (BackendKeyData in the
    /// PostgreSQL manual, "Message Formats"). `pg_stat_activity` has a row with this `pid`.
    ///
    /// PgBouncer and other connection poolers announce a number of their own. If the number differs from
    /// `pg_backend_pid()`, a pooler is between the client and the server.
    #[must_use]
    pub fn process_id(&self) -> Option<u32> {
        self.record().process_id()
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

    /// Returns the driver's client itself, for libraries that need a mutable reference to it, such as migrations.
    ///
    /// The connection is closed when the guard is dropped, and never returned to the pool, because the client may have
    /// been replaced (`mem::swap`): the pool's observations may then be those of another connection. For the same
    /// reason, a failure of the work after a statement was sent is classified as
    /// [`Applied::Unknown`](crate::Applied::Unknown). For a client without a guard, use
    /// [`Pool::connect_owned`](crate::Pool::connect_owned).
    pub fn raw_mut(&mut self) -> &mut tokio_postgres::Client {
        self.declare_commits_inside();
        let conn = self.object.as_mut().expect(TAKEN);
        conn.invalidate();
        &mut conn.wrapper
    }

    /// Returns a token that cancels the in-flight statement of this connection, over a separate socket.
    ///
    /// Use this instead of the driver's `cancel_token`: the driver's token does not contain the Pod's address.
    #[must_use]
    pub fn cancel_token(&self) -> CancelToken {
        self.conn().cancel_token()
    }

    /// Classifies an error of work on this connection, like [`classify`](crate::classify()), but judges everything that
    /// was sent since the checkout: several statements, a transaction, or concurrent statements.
    ///
    /// [`Applied::No`](crate::Applied::No) means that nothing of this work was committed: the error is the last one of
    /// this connection, no statement since the checkout was committed, and no response is outstanding. Waits for
    /// outstanding responses, for at most `acquire_timeout`. Every statement that succeeded outside of a transaction
    /// counts as committed, even a `SELECT`, because its functions may write; on a standby, a `SELECT` does not count.
    ///
    /// Statements that commit before they fail cannot be detected; see
    /// [`declare_commits_inside`](Client::declare_commits_inside). Nor can work on other connections.
    ///
    /// ```
    /// # async fn example(client: podpool::Client) -> Result<(), Box<dyn std::error::Error>> {
    /// use podpool::Applied;
    ///
    /// let work = async {
    ///     client.execute("INSERT INTO t VALUES (1)", &[]).await?;
    ///     client.execute("INSERT INTO t VALUES (2)", &[]).await
    /// };
    /// if let Err(error) = work.await {
    ///     match client.classify_work(&error).await.applied {
    ///         Applied::No => println!("neither row was inserted: {error}"),
    ///         Applied::Unknown => println!("check the data before a retry: {error}"),
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn classify_work(&self, error: &tokio_postgres::Error) -> Verdict {
        let shared = self.pod().shared();
        let limit = Instant::now() + shared.limits.acquire_timeout;
        self.judge(error, limit).await
    }

    /// Declares that a statement of the work on this connection can commit before it fails: for example `CALL` and `DO`
    /// with a `COMMIT` inside, `VACUUM`, `CREATE INDEX CONCURRENTLY`, or `REINDEX DATABASE`. Until the connection is
    /// returned, a failure after a statement was sent is therefore classified as
    /// [`Applied::Unknown`](crate::Applied::Unknown), and
    /// [`Pool::retry_unapplied`](crate::Pool::retry_unapplied) does not repeat the work.
    pub fn declare_commits_inside(&self) {
        self.conn().work.store(self.conn().work_since().before_a_commit().to_bits(), Ordering::Relaxed);
    }

    /// Classifies an error of the work since the checkout. Waits until `limit` for outstanding responses.
    pub(crate) async fn judge(&self, error: &tokio_postgres::Error, limit: Instant) -> Verdict {
        let (record, since) = (self.record(), self.conn().work_since());
        if record.may_settle(since, error) {
            let settled = record.wait_until_idle();
            select! {
                biased;
                () = settled => {}
                () = self.pod().shared().alarms.at(limit) => {}
            }
        }
        record.judge(since, error, true)
    }

    /// Makes the guard deposit the connection when it is dropped, instead of returning it to the pool.
    pub(crate) fn deposit_in(&mut self, deposit: Arc<Deposit>) {
        if let Some(object) = &mut self.object {
            object.deposit = Some(deposit);
        }
    }

    // Private: swapping two wrappers with `mem::swap` would associate each connection with the other one's `Record`.
    fn wrapper_mut(&mut self) -> &mut ClientWrapper {
        let object = self.object.as_mut().expect(TAKEN);
        &mut object.wrapper
    }

    #[inline]
    pub(crate) fn record(&self) -> &Record {
        &self.conn().record
    }

    /// Returns the mark of the current checkout.
    pub(super) fn work_since(&self) -> WorkMark {
        self.conn().work_since()
    }

    #[inline]
    pub(crate) fn pod(&self) -> &std::sync::Arc<Pod> {
        self.conn().pod()
    }

    /// Marks the beginning or the end of the pool's own `COMMIT`, which is never cancelled.
    pub(crate) fn set_committing(&mut self, is_committing: bool) {
        self.object.as_mut().expect(TAKEN).is_committing = is_committing;
    }

    /// Returns true if something may have been committed since the checkout.
    pub(crate) fn has_committed(&self) -> bool {
        self.record().outcome.work().committed() != self.conn().work_since().committed()
    }

    /// Returns the Pod that this connection is connected to.
    pub(crate) fn shared_pod(&self) -> std::sync::Arc<Pod> {
        self.conn().pod().clone()
    }

    /// Returns a reference to the connection's [`Record`], the state read from the wire. It stays valid after the guard
    /// has been dropped.
    pub(crate) fn shared_record(&self) -> std::sync::Arc<Record> {
        self.conn().record.shared()
    }

    /// Returns true if the connection was idle for longer than `ping_after`.
    #[inline]
    pub(crate) fn is_stale(&self, now: u64, ping_after: u64) -> bool {
        now.saturating_sub(self.conn().idle_since) > ping_after
    }

    /// Returns true if the connection is clean, was idle for too short a time to need a ping, and its server fits.
    #[inline]
    pub(crate) fn is_ready(&self, now: u64, slow_from: u64, fits: impl FnOnce(&Record) -> bool) -> bool {
        // Read once: this is on the path of each checkout.
        let conn = self.conn();
        conn.record.is_clean() && now.saturating_sub(conn.idle_since) < slow_from && fits(&conn.record)
    }

    /// Marks the start of a caller's use of the connection. `any` is true if the caller's target is `any`, so that the
    /// choice of the Pod did not depend on roles.
    #[inline]
    pub(crate) fn begin_use(&mut self, any: bool, now: u64) {
        let conn = &mut **self.object.as_mut().expect(TAKEN);
        conn.record.set_any_pod(any);
        conn.was_used = true;
        conn.work.store(conn.record.outcome.work().to_bits(), Ordering::Relaxed);
        conn.use_timer.begin(now);
    }

    /// Ends the guard and returns the connection, which is still checked out.
    pub(crate) fn into_object(mut self) -> Object<Box<Conn>> {
        self.object.take().expect(TAKEN)
    }

    /// Returns the session for a call of the application's hook.
    pub(crate) fn for_hook(&self) -> HookClient<'_> {
        self.conn().for_hook()
    }

    /// Closes the connection because the application's hook has rejected it. Cancels a statement of the hook first.
    pub(crate) fn reject(mut self) {
        let Some(mut object) = self.object.take() else { return };
        object.end_use();
        object.is_rejected = true;
        if object.record.is_clean() || object.record.has_ended() {
            Pod::close_checked_out(object);
        } else {
            recycle::recycle(object, false);
        }
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
    if conn.deposit.is_some() {
        return put_in_deposit(object);
    }
    // False if the waiter that was sent the connection no longer exists. The connection then keeps its idle time.
    let was_used = mem::take(&mut conn.was_used);
    if conn.record.is_clean() {
        let now = conn.pod().shared().clock.now();
        if !conn.is_reusable(now) {
            Pod::close_checked_out(object);
        } else if reset::has_changed(conn) || conn.pod().shared().acts_after_use && acts_after_use(conn, was_used) {
            recycle::recycle(object, was_used);
        } else {
            if was_used {
                conn.idle_since = now;
            }
            Pod::check_in(object);
        }
    } else if conn.record.has_ended() {
        Pod::close_checked_out(object);
    } else {
        recycle::recycle(object, was_used);
    }
}

/// Returns true if the pool has something to do after this use of a connection.
#[cold]
fn acts_after_use(conn: &Conn, was_used: bool) -> bool {
    reset::was_used_with_discard(conn) || was_used && conn.pod().shared().hooks.has(hook::Kind::AfterCheckin)
}

#[cold]
fn put_in_deposit(mut object: Object<Box<Conn>>) {
    let Some(deposit) = object.deposit.take() else { return };
    let (record, runtime) = (object.record.shared(), object.pod().shared().runtime.clone());
    match deposit.put(object) {
        Some(object) => return_to_pool(object),
        None => deposit.settle_later(record, &runtime),
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("endpoint", self.endpoint()).field("role", &self.role()).finish_non_exhaustive()
    }
}
