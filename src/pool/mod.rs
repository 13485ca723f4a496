//! The pool: a set of connections per Pod, the directory that maintains the set of Pods, and the checkout that chooses
//! a Pod.
//!
//! Only the [`directory`] changes the set of Pods and their state. The directory receives lookup results from the
//! [`refresher`](upkeep::refresher), probe results from the [probers](pod::prober), and evidence of failures and role
//! changes from the connections. It publishes an immutable [view](pod::view) of all Pods. A [`checkout`] reads its
//! thread's copy of the view, lets the balancing policy pick a Pod, and takes an idle connection. Slower work, such as
//! dialing, runs in background tasks.

mod build;
mod builder;
pub(crate) mod checkout;
pub(crate) mod directory;
mod group;
pub(crate) mod hook;
mod inner;
mod listener;
mod name;
mod opener;
mod owned;
mod owner;
mod pipeline;
mod pod;
mod resolvers;
mod status;
mod supervise;
#[cfg(all(test, not(podpool_loom)))]
mod tests;
mod transaction;
mod upkeep;
mod user_code;

use std::{fmt, future::Future, sync::Arc, time::Duration};

pub use builder::Builder;
pub use checkout::retry::RETRIES;
pub use hook::{HookClient, HookFuture};
pub use listener::{LISTENER_CAPACITY, Listener, ListenerEvent};
pub use name::MAX_POOL_NAME;
pub use owned::OwnedConnection;
pub use pipeline::{SharedClient, SharedResponse};
pub use pod::client::Client;
pub use status::{CounterStatus, EndpointStatus, ResolveStatus, Status};
pub use transaction::{Transaction, TransactionOptions};

use self::{checkout::retry::Repeat, owner::Owner, pod::message::Message};
use crate::{
    config::{Checkout, Config, Target},
    error::{BoxError, Error},
    event::Events,
};

/// A health-checked, load-balanced pool of connections to every Pod behind one name.
///
/// Cloning creates another handle to the same pool and costs one atomic increment. When the last handle is dropped, the
/// pool closes: idle connections are closed immediately, connections in use are closed when they are returned, and the
/// pool's tasks end. For a graceful shutdown that waits for connections in use, call [`close`](Pool::close) first.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use podpool::{Pool, Target};
///
/// let pool = Pool::connect("postgres://app:secret@postgresql-svc.k8s-training.svc.cluster.local/shop").await?;
/// let client = pool.get().await?;
/// let row = client.query_one("SELECT count(*) FROM orders", &[]).await?;
/// println!("{} orders, counted by {}", row.get::<_, i64>(0), client.endpoint());
///
/// // A read that is retried on another Pod if its connection fails.
/// let orders: i64 = pool
///     .retry(Target::PreferStandby, |client| async move {
///         client.query_one("SELECT count(*) FROM orders", &[]).await.map(|row| row.get(0))
///     })
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Pool(Arc<Owner>);

impl Pool {
    fn new(owner: Owner) -> Self {
        Self(Arc::new(owner))
    }

    /// Returns a builder for a pool with this configuration.
    pub fn builder(config: Config) -> Builder {
        Builder::new(config)
    }

    /// Builds a pool from a URL, and waits until a connection can be checked out for the URL's `target_session_attrs`
    /// (`any` by default).
    ///
    /// Waits for at most `acquire_timeout` (5 s by default). Cancel-safe: dropping the future closes the pool.
    ///
    /// # Errors
    ///
    /// - [`Kind::Config`](crate::Kind::Config) if the URL is invalid, or if no tokio runtime is running.
    /// - The errors of [`get`](Pool::get) if no Pod can serve the target in time. The pool is then closed. To get a
    ///   pool that keeps trying to reach the Pods, use [`Pool::builder`].
    pub async fn connect(url: &str) -> Result<Self, Error> {
        let config: Config = url.parse()?;
        let (target, within) = (config.target(), config.limits().acquire_timeout);
        let pool = Self::builder(config).build()?;
        pool.wait_ready(target, within).await?;
        Ok(pool)
    }

    /// Checks out a connection for the configured `target_session_attrs` (`any` by default).
    ///
    /// The balancing policy chooses among the Pods that fit the target. If such a Pod has an idle connection, the call
    /// does not wait. If none has, the call waits in a FIFO queue until a connection is returned or opened, for at most
    /// `acquire_timeout` (5 s by default).
    ///
    /// A connection is pinged first if it was idle for longer than `ping_after` (1 s by default) or if its server's
    /// last known role does not fit the target. The connection is closed if the ping fails or if the role still does
    /// not fit. If the Pod has not responded within 1 ms, the call also tries another Pod and takes the first
    /// connection that is ready.
    ///
    /// Cancel-safe: if the future is dropped, no connection is lost. A connection that is being opened for the call
    /// goes to the next caller.
    ///
    /// # Errors
    ///
    /// The error lists every Pod with the reason why it could not be used. The call fails before its deadline if there
    /// has been no healthy Pod for longer than `acquire_timeout`, and in the cases marked "returned immediately".
    ///
    /// - [`Kind::PoolTimeout`](crate::Kind::PoolTimeout): all connections to Pods that fit the target stayed in use
    ///   until the deadline.
    /// - [`Kind::Connect`](crate::Kind::Connect): no connection to any Pod could be opened.
    /// - [`Kind::Connecting`](crate::Kind::Connecting): connections to Pods are still being opened.
    /// - [`Kind::NoEndpoints`](crate::Kind::NoEndpoints): the name has no Pods, or none fits the target.
    /// - [`Kind::Dns`](crate::Kind::Dns): the name has not been resolved yet.
    /// - [`Kind::Auth`](crate::Kind::Auth): every Pod rejects the login. Returned immediately if every rejection has a
    ///   permanent reason.
    /// - [`Kind::Tls`](crate::Kind::Tls): every Pod refuses connections for a permanent reason, and at least one of
    ///   them refuses because of TLS. Returned immediately.
    /// - [`Kind::Shutdown`](crate::Kind::Shutdown): the pool is closed. Returned immediately.
    pub async fn get(&self) -> Result<Client, Error> {
        self.0.inner.checkout(self.0.inner.config.target(), None).await
    }

    /// Checks out a connection for this target, or with these options. See [`get`](Pool::get).
    ///
    /// # Errors
    ///
    /// Returns the errors of [`get`](Pool::get).
    pub async fn get_for(&self, checkout: impl Into<Checkout>) -> Result<Client, Error> {
        self.0.inner.checkout_with(checkout.into(), None).await
    }

    /// Checks out a connection, and waits for it for at most `within`. See [`get`](Pool::get).
    ///
    /// # Errors
    ///
    /// Returns the errors of [`get`](Pool::get), with `within` as the timeout. The call fails earlier if there has been
    /// no healthy Pod for longer than `acquire_timeout`.
    pub async fn get_within(&self, checkout: impl Into<Checkout>, within: Duration) -> Result<Client, Error> {
        self.0.inner.checkout_with(checkout.into().deadline(within), None).await
    }

    /// Checks out a connection to the primary. See [`get`](Pool::get).
    ///
    /// # Errors
    ///
    /// Returns the errors of [`get`](Pool::get).
    pub async fn primary(&self) -> Result<Client, Error> {
        self.0.inner.checkout(Target::Primary, None).await
    }

    /// Runs work that is **safe to repeat** (reads and idempotent writes). If the work's connection fails, retries the
    /// work on another connection, usually to another Pod.
    ///
    /// The work receives the connection by value. It is retried in these cases:
    ///
    /// - The error, or one of its sources, is a driver error of a [connection
    ///   class](crate::Verdict::is_connection_class).
    /// - A prepared statement [has a stale plan](crate::Class::StalePlan).
    /// - The server's role no longer fits the target.
    ///
    /// Any other error becomes the [source](std::error::Error::source) of the returned error. [`Error::downcast`]
    /// extracts it.
    ///
    /// The work is retried at most [`RETRIES`] times. `acquire_timeout` (5 s by default) limits all checkouts and
    /// pauses together, so no retry begins after it has passed. Running work is not interrupted. A
    /// [`Checkout::deadline`] replaces `acquire_timeout` and covers the work too.
    ///
    /// If the future is dropped, the work is dropped with it. A statement that was already sent may have been applied.
    /// If the statement does not end within 100 ms, it is cancelled on the server.
    ///
    /// # Errors
    ///
    /// - [`Kind::Query`](crate::Kind::Query) if the work failed. The error contains the work's last error and all
    ///   earlier attempts. [`applied`](Error::applied) returns whether the work may have been applied.
    /// - [`Kind::Timeout`](crate::Kind::Timeout) if the deadline of the call passed while the work was running.
    /// - The errors of [`get`](Pool::get) if no connection could be checked out.
    pub async fn retry<T, E, F, Fut>(&self, checkout: impl Into<Checkout>, work: F) -> Result<T, Error>
    where
        F: FnMut(Client) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        self.0.inner.retry(checkout.into(), Repeat::Always, work).await.map_err(|error| self.named(error))
    }

    /// Runs work that is **not safe to repeat**, and retries it only if it is known not to have been applied: no
    /// statement had been sent, or a read-only server refused the write before anything was committed.
    ///
    /// The work can consist of several statements, but all of them must run on the connection that it receives. The
    /// outcome is judged as by [`Client::classify_work`]: work that has written once is never repeated. A `SELECT`
    /// outside of a transaction counts as a write, because a function may have written. Work that can commit inside a
    /// statement (`CALL`, `DO`) must call [`Client::declare_commits_inside`].
    ///
    /// In all other respects this behaves like [`retry`](Pool::retry). An error with
    /// [`Applied::Unknown`](crate::Applied::Unknown) means that the work was sent and may have been applied.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`retry`](Pool::retry).
    pub async fn retry_unapplied<T, E, F, Fut>(&self, checkout: impl Into<Checkout>, work: F) -> Result<T, Error>
    where
        F: FnMut(Client) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        self.0.inner.retry(checkout.into(), Repeat::Unapplied, work).await.map_err(|error| self.named(error))
    }

    /// Runs work in a transaction, and commits it. Repeats the transaction if it conflicts with another one or loses
    /// its connection, but only if it certainly had no effect.
    ///
    /// The work receives the open [`Transaction`] by value, and must drop it before it returns. If the work returns
    /// `Ok`, the pool commits the transaction, otherwise the pool rolls it back. The work runs again, in a new
    /// transaction, in these cases:
    ///
    /// - The work or the `COMMIT` failed because of a serialization failure (SQLSTATE 40001) or a deadlock (40P01). The
    ///   pause before each repetition is random, from 0 to at most 2 ms at first and 100 ms at last.
    /// - The connection failed before the `COMMIT` was sent, the server refused writes, or a prepared statement [has a
    ///   stale plan](crate::Class::StalePlan). This is repeated at most [`RETRIES`] times.
    ///
    /// A `COMMIT` whose response is lost is never repeated: the error has
    /// [`Applied::Unknown`](crate::Applied::Unknown). `acquire_timeout` (5 s by default) limits all checkouts and
    /// pauses together, so no repetition begins after it has passed. A [`Checkout::deadline`] replaces it and covers
    /// the work too.
    ///
    /// Effects of the work outside of the transaction, such as messages that it sends, are repeated too. Any error that
    /// does not lead to a repetition becomes the [source](std::error::Error::source) of the returned error, from which
    /// [`Error::downcast`] extracts it.
    ///
    /// If the future is dropped, the transaction is rolled back, unless its `COMMIT` was already sent.
    ///
    /// ```no_run
    /// # async fn example(pool: podpool::Pool) -> Result<(), podpool::Error> {
    /// use podpool::{TransactionOptions, tokio_postgres::IsolationLevel};
    ///
    /// let serializable = TransactionOptions::default().isolation_level(IsolationLevel::Serializable);
    /// let left: i64 = pool
    ///     .transaction(serializable, |transaction| async move {
    ///         let take = "UPDATE stock SET left = left - 1 WHERE item = 'lamp' RETURNING left";
    ///         transaction.query_one(take, &[]).await.map(|row| row.get(0))
    ///     })
    ///     .await?;
    /// println!("{left} lamps left");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`Kind::Query`](crate::Kind::Query) if the transaction failed. The error contains the last error of the work
    ///   or of the `COMMIT`, and up to [`RETRIES`] earlier attempts. [`applied`](Error::applied) is
    ///   [`Applied::No`](crate::Applied::No) if the transaction was rolled back. It also is if the work returned `Ok`
    ///   although one of its statements had failed, so that the server did not commit the transaction.
    /// - [`Kind::Timeout`](crate::Kind::Timeout) if the deadline of the call passed while the transaction was open. It
    ///   is rolled back, unless its `COMMIT` was already sent.
    /// - The errors of [`get`](Pool::get) if no connection could be checked out.
    pub async fn transaction<T, E, F, Fut>(&self, options: impl Into<TransactionOptions>, work: F) -> Result<T, Error>
    where
        F: FnMut(Transaction) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        self.0.inner.transaction(options.into(), work).await.map_err(|error| self.named(error))
    }

    /// Waits for at most `within` until a connection for the target can be checked out. The connection is returned to
    /// the pool immediately. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`get`](Pool::get), with `within` as the timeout. The call fails earlier if there has been
    /// no healthy Pod for longer than `acquire_timeout`.
    pub async fn wait_ready(&self, checkout: impl Into<Checkout>, within: Duration) -> Result<(), Error> {
        self.get_within(checkout, within).await.map(drop)
    }

    /// Returns the state of every Pod and its connections, the state of name resolution, and the pool's counters.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.inner.status()
    }

    /// Forgets the timelines and the cluster's system identifier that the pool has seen, so that it trusts what its
    /// Pods report from now on.
    ///
    /// The pool fences (does not use) a primary on a lower timeline than the highest one that it has seen. After a
    /// restore of an older backup, it forgets the highest timeline without this call if DNS names as many Pods as
    /// before, all of them pass their probes, and none has write-ahead log of that timeline. This call is needed if the
    /// pool cannot verify these conditions: fewer Pods run than before, `subset_size` leaves Pods unprobed, or the
    /// application's role cannot read the timelines of standbys (`pg_read_all_stats`).
    ///
    /// **Call this only when no server with the higher timeline will return.** If one does, the writes that the pool
    /// has made to the other primary until then are lost. The call returns immediately. The pool emits
    /// [`Event::FencingHistoryForgotten`](crate::Event::FencingHistoryForgotten).
    pub fn forget_history(&self) {
        self.0.inner.shared.send(Message::ForgetHistory);
    }

    /// Passes the current values of every metric to the recorder of the `metrics` facade.
    ///
    /// The pool also does this once a second. Call this method in a scrape handler before rendering the metrics, so
    /// that the scrape contains current values. See [`metrics`](crate::metrics).
    #[cfg(feature = "metrics")]
    pub fn export_metrics(&self) {
        self.0.inner.export();
    }

    /// Subscribes to the pool's future [events](crate::Event).
    #[must_use]
    pub fn events(&self) -> Events {
        self.0.inner.shared.events.subscribe()
    }

    /// Returns the pool's name, which is unique in the process; see [`Builder::name`].
    pub fn name(&self) -> &str {
        self.0.inner.shared.name()
    }

    /// Returns the configuration that the pool was built with.
    pub fn config(&self) -> &Config {
        &self.0.inner.config
    }

    /// Closes the pool for all handles, and returns the number of connections that had to be closed while they were in
    /// use.
    ///
    /// Idle connections are closed immediately, and every further checkout fails with
    /// [`Kind::Shutdown`](crate::Kind::Shutdown). Connections in use can be returned until `close_timeout` (30 s by
    /// default) has passed. After that, the pool cancels their statements on the servers and closes the connections,
    /// which takes a few seconds at most. Returns 0 if the pool was already closed.
    ///
    /// Once the future has been polled, the pool closes even if the future is then dropped.
    pub async fn close(&self) -> usize {
        self.0.close().await
    }

    /// Adds the pool's name to an error.
    fn named(&self, error: Error) -> Error {
        error.of_pool(self.0.inner.shared.name())
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("name", &self.name()).field("config", &self.0.inner.config).finish_non_exhaustive()
    }
}
