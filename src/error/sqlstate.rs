//! The SQLSTATE of an error.

use std::{error::Error as StdError, iter::successors};

use tokio_postgres::error::{DbError, SqlState};

use super::Error;

impl Error {
    /// Returns the SQLSTATE with which the server has rejected the work or the connection: that of the
    /// [source](std::error::Error::source), or else of the last [attempt](Error::attempts) that has one. `None` if no
    /// server has sent an error (PostgreSQL manual, "PostgreSQL Error Codes").
    ///
    /// ```
    /// # async fn example(pool: podpool::Pool) -> Result<(), podpool::Error> {
    /// use podpool::{Target, tokio_postgres::error::SqlState};
    ///
    /// let insert = |client: podpool::Client| async move { client.execute("INSERT INTO t VALUES (1)", &[]).await };
    /// match pool.retry_unapplied(Target::Primary, insert).await {
    ///     Err(error) if error.sqlstate() == Some(&SqlState::UNIQUE_VIOLATION) => println!("the row exists"),
    ///     result => drop(result?),
    /// }
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn sqlstate(&self) -> Option<&SqlState> {
        let source = self.source().and_then(sqlstate_of);
        source.or_else(|| self.attempts().iter().rev().find_map(|attempt| sqlstate_of(attempt.cause()?)))
    }
}

/// Returns the SQLSTATE of the first driver error with one in a chain of causes.
fn sqlstate_of<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a SqlState> {
    server_error(error).map(DbError::code)
}

/// Returns the first error that a server has sent, in a chain of causes.
pub(super) fn server_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a DbError> {
    let chain = successors(Some(error), |&error| error.source());
    chain.filter_map(|error| error.downcast_ref::<tokio_postgres::Error>()).find_map(tokio_postgres::Error::as_db_error)
}
