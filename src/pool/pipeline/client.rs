use std::fmt;

use tokio_postgres::{Row, types::ToSql};

use super::{flight::Rows, run::Call};
use crate::{
    config::Checkout,
    endpoint::Endpoint,
    error::{Applied, Attempt, Error, Kind},
    pool::Pool,
};

/// Runs single statements on connections that several callers share, from [`Pool::shared`].
///
/// Many callers need few connections: the statements of all callers are sent without waiting for the responses of the
/// others (pipelining). Each Pod has one shared connection (`shared_connections`), with at most 32 statements in flight
/// (`shared_depth`), or more if callers send [batches](Self::batch); further statements wait in the pool, in FIFO
/// order. If the round trip limits the rate, because all connections to a Pod are full but its server has capacity
/// left, more are opened, up to half of `pool_size`, and closed when they are unused.
///
/// # Statements
///
/// Accepted is one `SELECT`, `INSERT`, `UPDATE`, `DELETE`, `MERGE`, `VALUES`, `TABLE`, `WITH` or `SHOW`, which is its
/// own transaction. Everything else fails with [`Kind::NotShareable`] before anything is sent: use
/// [`get`](Pool::get) for transactions, `SET`, `LISTEN`, `COPY`, `CALL`, DDL and several statements. The statement is
/// prepared once per connection, for all callers.
///
/// A function that changes the session, such as `set_config` with session effect, `pg_advisory_lock`, or one that
/// creates a temporary table, changes it for all callers of the connection. With `reset=auto`, the pool closes the
/// connection as soon as it notices such a change, but other statements may have run on it by then. Do not call such
/// functions here.
///
/// # Slow statements
///
/// The server executes the statements of a connection one after the other, so a slow one delays those that were sent
/// after it. While a statement runs for longer than `shared_slow`, no further statement is sent on its connection, and
/// another connection is opened if all are slow, up to `pool_size`. Statements that were sent before wait, unless they
/// are [`repeatable`](Self::repeatable). Use [`get`](Pool::get) for statements that are known to be slow, and for large
/// results.
///
/// # Failures
///
/// A statement that has certainly not been applied runs again on another connection, up to
/// [`RETRIES`](crate::RETRIES) times: it was not sent before the connection ended, a Pod refused it as read-only, or
/// its [plan was stale](crate::Class::StalePlan). If the response to a statement is lost, the error has
/// [`Applied::Unknown`].
///
/// # Cancellation
///
/// If the future of a call is dropped, a statement that was not sent is not sent. A statement that was sent continues,
/// and is cancelled on the server if it runs for longer than 100 ms. [`Checkout::deadline`] limits the whole call.
/// Without it, `acquire_timeout` (5 s by default) limits the wait until the statement is sent.
///
/// ```no_run
/// # async fn example(pool: podpool::Pool) -> Result<(), podpool::Error> {
/// use podpool::Target;
///
/// let reads = pool.shared(Target::PreferStandby).repeatable();
/// let row = reads.query_one("SELECT count(*) FROM orders WHERE item = $1", &[&"lamp"]).await?;
/// let orders: i64 = row.get(0);
/// let added = pool.shared(Target::Primary).execute("INSERT INTO orders (item) VALUES ($1)", &[&"lamp"]).await?;
/// println!("{orders} orders, {added} added");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy)]
#[must_use]
pub struct SharedClient<'a> {
    pool: &'a Pool,
    options: Checkout,
    repeatable: bool,
}

/// The response to a statement on a shared connection, from [`SharedClient::send`].
#[derive(Debug)]
#[non_exhaustive]
pub struct SharedResponse {
    /// The rows.
    pub rows: Vec<Row>,
    /// Number of rows that the statement has changed, or that a query has returned.
    pub affected: u64,
    /// The Pod that has executed the statement.
    pub endpoint: Endpoint,
    /// The attempts that failed before, oldest first. Empty if the first one succeeded.
    pub attempts: Vec<Attempt>,
}

impl SharedResponse {
    pub(super) fn new(rows: Rows, endpoint: Endpoint, attempts: Vec<Attempt>) -> Self {
        let Rows { rows, affected } = rows;
        Self { rows, affected, endpoint, attempts }
    }
}

impl Pool {
    /// Returns a client that runs single statements on connections that several callers share. The balancing policy
    /// chooses the Pod of each statement among those that fit the target.
    ///
    /// The shared connections are opened when they are needed, and count towards `pool_size` and `max_connections`.
    /// `pool_size` must be larger than `shared_connections` if [`get`](Self::get) is used too. The hook
    /// [`after_connect`](crate::Builder::after_connect) runs on each of them once; the other hooks do not run.
    pub fn shared(&self, checkout: impl Into<Checkout>) -> SharedClient<'_> {
        SharedClient { pool: self, options: checkout.into(), repeatable: false }
    }
}

impl SharedClient<'_> {
    /// Declares that the statements are safe to run twice, like the work of [`retry`](Pool::retry).
    ///
    /// A statement whose response is lost then runs again on another connection, as does one that was sent but waits
    /// behind a slow statement.
    pub fn repeatable(self) -> Self {
        Self { repeatable: true, ..self }
    }

    /// Runs a statement. Returns its rows, the Pod, and the attempts that failed before.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`query`](Self::query).
    pub async fn send(&self, statement: &str, params: &[&(dyn ToSql + Sync)]) -> Result<SharedResponse, Error> {
        self.run(statement, params, true).await
    }

    /// Runs a statement, and returns its rows.
    ///
    /// # Errors
    ///
    /// - [`Kind::NotShareable`] if the statement is not accepted. Nothing was sent.
    /// - [`Kind::Query`] if the statement failed. The driver's error is the [source](std::error::Error::source), and
    ///   [`applied`](Error::applied) returns whether the statement may have been applied.
    /// - [`Kind::Timeout`] if the deadline of the call passed after the statement had got a connection.
    /// - The errors of [`get`](Pool::get) if the statement got no connection.
    pub async fn query(&self, statement: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        Ok(self.run(statement, params, true).await?.rows)
    }

    /// Runs a statement that returns at most one row.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`query`](Self::query), and [`Kind::Query`] with [`Applied::Unknown`] if there is more
    /// than one row.
    pub async fn query_opt(&self, statement: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, Error> {
        let mut rows = self.query(statement, params).await?;
        let row = rows.pop();
        if rows.is_empty() { Ok(row) } else { Err(self.wrong_number(rows.len() + 1, "at most one row")) }
    }

    /// Runs a statement that returns one row.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`query`](Self::query), and [`Kind::Query`] with [`Applied::Unknown`] if there is not
    /// exactly one row.
    pub async fn query_one(&self, statement: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Row, Error> {
        let mut rows = self.query(statement, params).await?;
        match rows.pop() {
            Some(row) if rows.is_empty() => Ok(row),
            row => Err(self.wrong_number(rows.len() + usize::from(row.is_some()), "one row")),
        }
    }

    /// Runs a statement, and returns the number of rows that it has changed, or that a query has returned.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`query`](Self::query).
    pub async fn execute(&self, statement: &str, params: &[&(dyn ToSql + Sync)]) -> Result<u64, Error> {
        Ok(self.run(statement, params, false).await?.affected)
    }

    /// Runs several statements in one round trip, and returns their results in the same order.
    ///
    /// They are sent on one connection of one Pod without waiting for responses, and the server executes them in their
    /// order. If there are more than `shared_depth` (32 by default), each part of that size takes a round trip, and may
    /// run on another Pod. Each statement is its own transaction: if one fails, the others are executed nevertheless. A
    /// statement that [runs again](Self#failures) may run after later ones of its part. For statements that belong
    /// together, use [`transaction`](Pool::transaction).
    ///
    /// The deadline of the call limits the whole batch. Without it, `acquire_timeout` limits the wait until each part
    /// is sent. If the future is dropped, those statements that were sent continue, as described
    /// [above](Self#cancellation).
    ///
    /// ```no_run
    /// # async fn example(pool: podpool::Pool) -> Result<(), podpool::Error> {
    /// use podpool::Target;
    ///
    /// let add = "INSERT INTO orders (item) VALUES ($1)";
    /// let results = pool.shared(Target::Primary).batch(&[(add, &[&"lamp"]), (add, &[&"chair"])]).await?;
    /// let added = results.iter().filter(|result| result.is_ok()).count();
    /// println!("{added} of {} orders added", results.len());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns [`Kind::NotShareable`] if one of the statements is not accepted. Nothing was sent then. The errors of
    /// the statements are those of [`query`](Self::query).
    pub async fn batch(
        &self,
        statements: &[(&str, &[&(dyn ToSql + Sync)])],
    ) -> Result<Vec<Result<SharedResponse, Error>>, Error> {
        let calls: Vec<_> = statements.iter().map(|(text, params)| self.call(text, params, true)).collect();
        let pool = self.pool;
        let results = Box::pin(pool.0.inner.run_shared_batch(&calls)).await.map_err(|error| pool.named(error))?;
        Ok(results.into_iter().map(|result| result.map_err(|error| pool.named(error))).collect())
    }

    async fn run(&self, text: &str, params: &[&(dyn ToSql + Sync)], keeps_rows: bool) -> Result<SharedResponse, Error> {
        let call = self.call(text, params, keeps_rows);
        // Boxed to keep the caller's future small.
        Box::pin(self.pool.0.inner.run_shared(call)).await.map_err(|error| self.pool.named(error))
    }

    fn call<'c>(&self, text: &'c str, params: &'c [&'c (dyn ToSql + Sync)], keeps_rows: bool) -> Call<'c> {
        let Self { options, repeatable, .. } = *self;
        Call { text, params, keeps_rows, repeatable, options }
    }

    fn wrong_number(&self, got: usize, expected: &str) -> Error {
        let message = format!("the statement returned {got} rows instead of {expected}");
        self.pool.named(Error::new(Kind::Query, message).with_applied(Applied::Unknown))
    }
}

impl fmt::Debug for SharedClient<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pool, options, repeatable } = self;
        let mut out = f.debug_struct("SharedClient");
        out.field("pool", &pool.name()).field("options", options).field("repeatable", repeatable).finish()
    }
}
