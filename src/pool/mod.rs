//! The pool: one pool of connections to each Pod, the directory that manages them, and the checkout that chooses a Pod.
//!
//! The [`directory`] is the only writer. It receives lookup results from the [`refresher`](upkeep::refresher), probe
//! results from the [probers](pod::prober) and evidence from the connections, and publishes one immutable
//! [view](pod::view) of all Pods. A [`checkout`] reads its thread's copy of the view, lets the balancing policy pick a
//! Pod, and takes an idle connection. All slower work, such as a dial, runs in background tasks of the pool.

mod builder;
pub(crate) mod checkout;
pub(crate) mod directory;
mod inner;
mod owner;
mod pod;
mod status;
#[cfg(all(test, not(podpool_loom)))]
mod tests;
mod upkeep;

use std::{fmt, future::Future, sync::Arc, time::Duration};

pub use builder::Builder;
pub use checkout::retry::RETRIES;
pub use pod::client::Client;
pub use status::{CounterStatus, EndpointStatus, ResolveStatus, Status};

use self::{checkout::retry::Repeat, owner::Owner};
use crate::{
    config::{Config, Target},
    error::{BoxError, Error},
    event::Events,
    time::Instant,
};

/// Replacement for a deadline that is too far away to be represented: one year.
const FAR_FUTURE: Duration = Duration::from_secs(365 * 86_400);

/// A health-checked, load-balanced pool of connections to every Pod behind one name.
///
/// A clone is a further handle to the same pool and costs one atomic increment. When the last handle is dropped, the
/// pool closes: idle connections are closed immediately, connections in use are closed when they are returned, and the
/// pool's tasks end. To wait for connections in use, call [`close`](Pool::close) instead.
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
/// // A read that is repeated on another Pod if its connection fails.
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

    /// Builds a pool from a URL, and waits until a connection for the URL's `target_session_attrs` (`any` by default)
    /// can be checked out.
    ///
    /// Waits for `acquire_timeout` (5 s by default) at most. Cancel-safe: dropping the future closes the pool.
    ///
    /// # Errors
    ///
    /// - [`Kind::Config`](crate::Kind::Config) if the URL is invalid, or if no tokio runtime is running.
    /// - The errors of [`get`](Pool::get) if no Pod serves the target in time. The pool is closed then. A pool from
    ///   [`Pool::builder`] keeps trying instead.
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
    /// does not wait. Otherwise it waits in FIFO order for the next connection that is returned or opened, for
    /// `acquire_timeout` (5 s by default) at most.
    ///
    /// A connection that was idle for longer than `ping_after` (1 s by default) is pinged first, and closed if the ping
    /// fails. If a Pod has not responded within 1 ms, the call tries another Pod as well and takes the first connection
    /// that is ready.
    ///
    /// Cancel-safe: if the future is dropped, no connection is lost. A connection that is being opened for the call
    /// goes to the next caller.
    ///
    /// # Errors
    ///
    /// The error lists every Pod with the reason why it could not be used. The call fails before its deadline if no Pod
    /// has been healthy for longer than `acquire_timeout`, or where noted.
    ///
    /// - [`Kind::PoolTimeout`](crate::Kind::PoolTimeout): all connections to the Pods that fit were in use until the
    ///   deadline.
    /// - [`Kind::Connect`](crate::Kind::Connect): no connection to any Pod could be opened.
    /// - [`Kind::NoEndpoints`](crate::Kind::NoEndpoints): no Pod exists, or none fits the target.
    /// - [`Kind::Dns`](crate::Kind::Dns): the name has not been resolved yet.
    /// - [`Kind::Auth`](crate::Kind::Auth): every Pod refuses the login. Returned immediately if the reasons are
    ///   permanent.
    /// - [`Kind::Tls`](crate::Kind::Tls): every Pod refuses connections for a permanent reason, which is TLS for at
    ///   least one of them. Returned immediately.
    /// - [`Kind::Shutdown`](crate::Kind::Shutdown): the pool is closed. Returned immediately.
    pub async fn get(&self) -> Result<Client, Error> {
        self.get_for(self.0.inner.config.target()).await
    }

    /// Checks out a connection for this target. See [`get`](Pool::get).
    ///
    /// # Errors
    ///
    /// Returns the errors of [`get`](Pool::get).
    pub async fn get_for(&self, target: Target) -> Result<Client, Error> {
        self.0.inner.checkout(target, None).await
    }

    /// Checks out a connection to the primary. See [`get`](Pool::get).
    ///
    /// # Errors
    ///
    /// Returns the errors of [`get`](Pool::get).
    pub async fn primary(&self) -> Result<Client, Error> {
        self.get_for(Target::Primary).await
    }

    /// Runs work that is **safe to repeat** (reads and idempotent writes), and repeats it on another connection,
    /// usually to another Pod, if its connection fails.
    ///
    /// The work gets the connection by value. It is repeated in three cases: its error is, or has as a source, an error
    /// of the driver of a [connection class](crate::Verdict::is_connection_class); a prepared statement [has become
    /// invalid](crate::Class::StalePlan); or the server's role no longer fits the target. Any other error is returned
    /// as the [source](std::error::Error::source) of this crate's error, from which [`Error::downcast`] extracts it.
    ///
    /// The work is repeated [`RETRIES`] times at most. `acquire_timeout` (5 s by default) limits all checkouts and
    /// pauses together: no repetition begins after it. It does not interrupt work that is running.
    ///
    /// If the future is dropped, the work is dropped with it. A statement that was already sent is cancelled on the
    /// server if it does not end within 100 ms, and may have been applied.
    ///
    /// # Errors
    ///
    /// - [`Kind::Query`](crate::Kind::Query) if the work failed. The error contains the work's last error, all earlier
    ///   attempts, and in [`applied`](Error::applied) whether the work may have been applied.
    /// - The errors of [`get`](Pool::get) if no connection could be checked out.
    pub async fn retry<T, E, F, Fut>(&self, target: Target, work: F) -> Result<T, Error>
    where
        F: FnMut(Client) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        self.0.inner.retry(target, Repeat::Always, work).await
    }

    /// Runs work that is **not safe to repeat**, which is one statement or one transaction, and repeats it only if it
    /// certainly was not applied: nothing had been sent, or a standby refused the write.
    ///
    /// In all other respects this is [`retry`](Pool::retry). An error with
    /// [`Applied::Unknown`](crate::Applied::Unknown) means that the work was sent and may have been applied.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`retry`](Pool::retry).
    pub async fn retry_unapplied<T, E, F, Fut>(&self, target: Target, work: F) -> Result<T, Error>
    where
        F: FnMut(Client) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        self.0.inner.retry(target, Repeat::Unapplied, work).await
    }

    /// Waits until a connection for the target can be checked out, for `within` at most. The connection is returned to
    /// the pool immediately. Cancel-safe.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`get`](Pool::get), with `within` as the timeout. If no Pod has been healthy for longer
    /// than `acquire_timeout`, the call fails even if `within` is longer.
    pub async fn wait_ready(&self, target: Target, within: Duration) -> Result<(), Error> {
        let now = Instant::now();
        let deadline = now.checked_add(within).unwrap_or(now + FAR_FUTURE);
        let client = self.0.inner.checkout(target, Some(deadline)).await?;
        drop(client);
        Ok(())
    }

    /// Returns the state and the connections of every Pod, the state of the name's resolution, and counters.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.inner.status()
    }

    /// Passes the current values of every metric to the recorder of the `metrics` facade.
    ///
    /// The pool does the same once a second. A handler that serves a scrape calls this before it renders the metrics,
    /// so that the scrape is exact. See [`metrics`](crate::metrics).
    #[cfg(feature = "metrics")]
    pub fn export_metrics(&self) {
        self.0.inner.export();
    }

    /// Subscribes to the pool's events, from now on. See [`Event`](crate::Event).
    #[must_use]
    pub fn events(&self) -> Events {
        self.0.inner.shared.events.subscribe()
    }

    /// Returns the configuration.
    pub fn config(&self) -> &Config {
        &self.0.inner.config
    }

    /// Closes the pool for all handles, and returns the number of connections that had to be closed while in use.
    ///
    /// From the start, every checkout fails with [`Kind::Shutdown`](crate::Kind::Shutdown) and idle connections are
    /// closed. Connections in use can be returned until `close_timeout` (30 s by default). After that, their statements
    /// are cancelled on the servers and the connections are closed, which takes a few seconds at most. Returns 0 if the
    /// pool was already closed.
    ///
    /// Once the future has been polled, the pool closes even if the future is dropped.
    pub async fn close(&self) -> usize {
        self.0.close().await
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("config", &self.0.inner.config).finish_non_exhaustive()
    }
}
