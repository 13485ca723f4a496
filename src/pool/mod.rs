//! The pool itself: a deadpool to every Pod, one directory that keeps them, and the checkout that chooses among them.
//!
//! The directory is the only writer. It hears from the [`refresher`] who exists, from each Pod's [`prober`] and from
//! every connection who serves, and publishes one view of it all. A checkout reads its thread's copy of that view,
//! picks, and takes an idle connection; everything slower than that happens in a task of the pool.

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

/// In the place of a deadline that is too far away to be told: a year.
const LONG: Duration = Duration::from_secs(365 * 86_400);

/// A health-checked, load-balanced pool of connections to every Pod behind one name.
///
/// A clone is another handle to the same pool and costs one reference count. When the last handle is dropped, the pool
/// closes: idle connections at once, borrowed ones when they come back, and every task of it ends.
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
/// // A read that is done again on another Pod if its Pod dies under it.
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

    /// Begins a pool with this configuration.
    pub fn builder(config: Config) -> Builder {
        Builder::new(config)
    }

    /// Makes a pool from a URL and waits, for `acquire_timeout` (5 s by default), until a Pod serves the URL's
    /// `target_session_attrs`.
    ///
    /// # Errors
    ///
    /// [`Kind::Config`](crate::Kind::Config) for a URL that cannot be used, else what
    /// [`wait_ready`](Pool::wait_ready) says. To have a pool that outlives a bad start, use [`Pool::builder`].
    pub async fn connect(url: &str) -> Result<Self, Error> {
        let config: Config = url.parse()?;
        let (target, within) = (config.target(), config.limits().acquire_timeout);
        let pool = Self::builder(config).build()?;
        pool.wait_ready(target, within).await?;
        Ok(pool)
    }

    /// A connection to the best Pod for the configured `target_session_attrs` (`any` by default).
    ///
    /// Takes an idle connection at once where a fitting Pod has one. Waits otherwise, for `acquire_timeout` (5 s by
    /// default), for the first connection that comes back or is opened on any fitting Pod, in the order of the callers.
    /// A connection that was idle for more than a second is pinged first; what fails the ping is closed and the next
    /// one taken. A ping that is not answered within a millisecond is left to the pool, and another Pod's connection is
    /// taken, or whichever answers first.
    ///
    /// Cancel-safe at every await: nothing is lost, and a connection on its way goes to the next caller.
    ///
    /// # Errors
    ///
    /// Names every Pod that was tried and why each did not do. [`Kind::PoolTimeout`](crate::Kind::PoolTimeout) if
    /// fitting Pods are up and busy; [`Kind::Connect`](crate::Kind::Connect) if none could be connected to;
    /// [`Kind::NoEndpoints`](crate::Kind::NoEndpoints) if none has the role, or none exists;
    /// [`Kind::Dns`](crate::Kind::Dns) if the name never resolved; [`Kind::Auth`](crate::Kind::Auth) at once if every
    /// Pod refuses the session, and [`Kind::Tls`](crate::Kind::Tls) if TLS fails with some in a way that time does not
    /// mend; [`Kind::Shutdown`](crate::Kind::Shutdown) if the pool is closed. Fails before the
    /// deadline also where no Pod has passed a probe for longer than `acquire_timeout`.
    pub async fn get(&self) -> Result<Client, Error> {
        self.get_for(self.0.inner.config.target()).await
    }

    /// A connection to the best Pod for this target. See [`get`](Pool::get).
    ///
    /// # Errors
    ///
    /// As [`get`](Pool::get).
    pub async fn get_for(&self, target: Target) -> Result<Client, Error> {
        self.0.inner.checkout(target, None).await
    }

    /// A connection to the primary. See [`get`](Pool::get).
    ///
    /// # Errors
    ///
    /// As [`get`](Pool::get).
    pub async fn primary(&self) -> Result<Client, Error> {
        self.get_for(Target::Primary).await
    }

    /// Does work that is **safe to do twice** (reads, and writes that are idempotent), and does it again on another
    /// Pod when it failed with the connection, until `acquire_timeout` is up, [`RETRIES`] times at most.
    ///
    /// The work gets the connection by value. It is done again when the chain of causes of its error holds an error of
    /// the driver that is of a [connection class](crate::Verdict::is_connection_class), when a prepared statement
    /// [is of no use any more](crate::Class::StalePlan), and when a Pod turned out to have another role than the target
    /// probe_factory for. Any other error is returned as it is, as the
    /// [source](std::error::Error::source) of the error, to be had back with [`Error::downcast`].
    ///
    /// # Errors
    ///
    /// [`Kind::Query`](crate::Kind::Query) with the last error of the work, every earlier attempt, and whether the last
    /// one can have been applied; else as [`get`](Pool::get).
    pub async fn retry<T, E, F, Fut>(&self, target: Target, work: F) -> Result<T, Error>
    where
        F: FnMut(Client) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        self.0.inner.retry(target, Repeat::Always, work).await
    }

    /// Does work that **must not be done twice**, one statement or one transaction, and does it again only when it is
    /// certain that nothing was applied: no connection could be had, nothing had been sent, or a standby refused to
    /// write.
    ///
    /// Otherwise as [`retry`](Pool::retry). An error with [`Applied::Unknown`](crate::Applied::Unknown) means that the
    /// work was sent and its fate is not known.
    ///
    /// # Errors
    ///
    /// As [`retry`](Pool::retry).
    pub async fn retry_unapplied<T, E, F, Fut>(&self, target: Target, work: F) -> Result<T, Error>
    where
        F: FnMut(Client) -> Fut,
        Fut: Future<Output = Result<T, E>>,
        E: Into<BoxError>,
    {
        self.0.inner.retry(target, Repeat::Unapplied, work).await
    }

    /// Waits until a Pod that serves the target has given a connection. Cancel-safe.
    ///
    /// # Errors
    ///
    /// As [`get`](Pool::get), with `within` in the place of `acquire_timeout`.
    pub async fn wait_ready(&self, target: Target, within: Duration) -> Result<(), Error> {
        let now = Instant::now();
        let deadline = now.checked_add(within).unwrap_or(now + LONG);
        let client = self.0.inner.checkout(target, Some(deadline)).await?;
        drop(client);
        Ok(())
    }

    /// Every Pod with its state and its connections, the name's resolution, and the counters.
    #[must_use]
    pub fn status(&self) -> Status {
        self.0.inner.status()
    }

    /// What happens to the set of Pods, from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        self.0.inner.shared.events.subscribe()
    }

    /// The configuration.
    pub fn config(&self) -> &Config {
        &self.0.inner.config
    }

    /// Closes the pool for all handles: from now on [`get`](Pool::get) fails, idle connections are closed, and borrowed
    /// ones are waited for until `close_timeout` (30 s by default). Gives how many were still out then, and were cut.
    ///
    /// Cancel-safe: once begun, the closing goes on without its caller.
    pub async fn close(&self) -> usize {
        self.0.close().await
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("config", &self.0.inner.config).finish_non_exhaustive()
    }
}
