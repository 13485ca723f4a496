//! Queries that clorinde has generated, outside of a transaction, with the statement cache of the connection.
//!
//! The generated trait `GenericClient` is implemented for deadpool's and the driver's clients, but with the latter,
//! each call prepares its statement again. The newtype implements the trait with `prepare_cached`.

use clorinde::client::GenericClient;
use podpool::{
    Client,
    tokio_postgres::{
        Error, Row, RowStream, Statement, ToStatement,
        types::{BorrowToSql, ToSql},
    },
};

/// A checked-out client whose generated queries are prepared once for each connection.
pub struct Cached<'a>(pub &'a Client);

impl GenericClient for Cached<'_> {
    fn stmt_cache() -> bool {
        true
    }

    async fn prepare(&self, query: &str) -> Result<Statement, Error> {
        self.0.prepare_cached(query).await
    }

    async fn execute<T>(&self, query: &T, params: &[&(dyn ToSql + Sync)]) -> Result<u64, Error>
    where
        T: ?Sized + ToStatement + Sync + Send,
    {
        self.0.execute(query, params).await
    }

    async fn query_one<T>(&self, statement: &T, params: &[&(dyn ToSql + Sync)]) -> Result<Row, Error>
    where
        T: ?Sized + ToStatement + Sync + Send,
    {
        self.0.query_one(statement, params).await
    }

    async fn query_opt<T>(&self, statement: &T, params: &[&(dyn ToSql + Sync)]) -> Result<Option<Row>, Error>
    where
        T: ?Sized + ToStatement + Sync + Send,
    {
        self.0.query_opt(statement, params).await
    }

    async fn query<T>(&self, query: &T, params: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error>
    where
        T: ?Sized + ToStatement + Sync + Send,
    {
        self.0.query(query, params).await
    }

    async fn query_raw<T, I>(&self, statement: &T, params: I) -> Result<RowStream, Error>
    where
        T: ?Sized + ToStatement + Sync + Send,
        I: IntoIterator + Sync + Send,
        I::IntoIter: ExactSizeIterator,
        I::Item: BorrowToSql,
    {
        self.0.query_raw(statement, params).await
    }
}
