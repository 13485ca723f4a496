//! The session of one connection, as a hook receives it.

use std::{fmt, ops::Deref};

use deadpool_postgres::{ClientWrapper, StatementCache};
use tokio_postgres::{Client, Error, Statement};

use crate::{
    endpoint::{Endpoint, Role},
    wire::record::Record,
};

/// The session of one connection, as a hook receives it: [`after_connect`](crate::Builder::after_connect),
/// [`before_checkout`](crate::Builder::before_checkout) and [`after_checkin`](crate::Builder::after_checkin).
///
/// It derefs to [`tokio_postgres::Client`], which provides `batch_execute`, `query`, `prepare` and so on.
pub struct HookClient<'a> {
    client: &'a Client,
    /// The statement cache of a pooled connection.
    cache: Option<&'a StatementCache>,
    endpoint: &'a Endpoint,
    record: &'a Record,
}

impl<'a> HookClient<'a> {
    pub(crate) fn pooled(wrapper: &'a ClientWrapper, endpoint: &'a Endpoint, record: &'a Record) -> Self {
        Self { client: wrapper, cache: Some(&wrapper.statement_cache), endpoint, record }
    }

    pub(crate) fn owned(client: &'a Client, endpoint: &'a Endpoint, record: &'a Record) -> Self {
        Self { client, cache: None, endpoint, record }
    }

    /// Returns the Pod that this connection is connected to.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        self.endpoint
    }

    /// Returns the role that the server last reported on this connection.
    #[must_use]
    pub fn role(&self) -> Role {
        self.record.role()
    }

    /// Prepares a statement and adds it to the connection's statement cache, so that callers' `prepare_cached` with the
    /// same text sends nothing. An owned connection has no cache, so there the statement is only prepared.
    ///
    /// # Errors
    ///
    /// Returns the driver's error if the statement cannot be prepared.
    pub async fn prepare_cached(&self, query: &str) -> Result<Statement, Error> {
        match self.cache {
            Some(cache) => cache.prepare(self.client, query).await,
            None => self.client.prepare(query).await,
        }
    }

    pub(super) fn record(&self) -> &'a Record {
        self.record
    }
}

impl Deref for HookClient<'_> {
    type Target = Client;

    fn deref(&self) -> &Client {
        self.client
    }
}

impl fmt::Debug for HookClient<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HookClient")
            .field("endpoint", self.endpoint)
            .field("role", &self.role())
            .finish_non_exhaustive()
    }
}
