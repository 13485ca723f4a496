//! The transaction that the pool passes to the caller's work, and its options.

use std::{fmt, ops::Deref};

use deadpool_postgres::ClientWrapper;

use super::pod::client::Client;
use crate::{
    config::{Checkout, Target},
    endpoint::{Endpoint, Role},
    wire::{CancelToken, IsolationLevel},
};

/// The options of [`Pool::transaction`](crate::Pool::transaction). The default is a transaction on the primary, with
/// the session's default isolation level and access mode.
///
/// ```
/// use podpool::{Target, TransactionOptions, tokio_postgres::IsolationLevel};
///
/// let transfer = TransactionOptions::default().isolation_level(IsolationLevel::Serializable);
/// let report = TransactionOptions::new(Target::PreferStandby).read_only(true);
/// # drop((transfer, report));
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct TransactionOptions {
    pub(crate) checkout: Checkout,
    isolation_level: Option<IsolationLevel>,
    pub(crate) read_only: Option<bool>,
    deferrable: Option<bool>,
}

impl TransactionOptions {
    /// Creates options for a transaction on a Pod that fits the target, or with these options for the call.
    pub fn new(checkout: impl Into<Checkout>) -> Self {
        Self { checkout: checkout.into(), isolation_level: None, read_only: None, deferrable: None }
    }

    /// Sets the isolation level. The default is the session's `default_transaction_isolation`.
    pub fn isolation_level(mut self, level: IsolationLevel) -> Self {
        self.isolation_level = Some(level);
        self
    }

    /// Sets whether the transaction is read-only. The default is the session's `default_transaction_read_only`.
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = Some(read_only);
        self
    }

    /// Sets whether the transaction is deferrable. If it is also serializable and read-only, its begin may wait, but
    /// then the transaction cannot fail because of a conflict.
    pub fn deferrable(mut self, deferrable: bool) -> Self {
        self.deferrable = Some(deferrable);
        self
    }

    /// Returns the statement that begins the transaction.
    pub(crate) fn begin(&self) -> String {
        let level = self.isolation_level.map(|level| match level {
            IsolationLevel::ReadUncommitted => "ISOLATION LEVEL READ UNCOMMITTED",
            IsolationLevel::ReadCommitted => "ISOLATION LEVEL READ COMMITTED",
            IsolationLevel::RepeatableRead => "ISOLATION LEVEL REPEATABLE READ",
            // The strictest level also replaces a level that a later version of the driver may add.
            _ => "ISOLATION LEVEL SERIALIZABLE",
        });
        let access = self.read_only.map(|read_only| if read_only { "READ ONLY" } else { "READ WRITE" });
        let deferrable = self.deferrable.map(|deferrable| if deferrable { "DEFERRABLE" } else { "NOT DEFERRABLE" });
        let modes: Vec<_> = [level, access, deferrable].into_iter().flatten().collect();
        match modes.is_empty() {
            true => "START TRANSACTION".into(),
            false => format!("START TRANSACTION {}", modes.join(", ")),
        }
    }
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self::new(Target::Primary)
    }
}

impl From<Target> for TransactionOptions {
    fn from(target: Target) -> Self {
        Self::new(target)
    }
}

impl From<Checkout> for TransactionOptions {
    fn from(checkout: Checkout) -> Self {
        Self::new(checkout)
    }
}

/// An open transaction, which [`Pool::transaction`](crate::Pool::transaction) passes to the caller's work.
///
/// Dereferences to deadpool-postgres's [`ClientWrapper`] and through it to `tokio_postgres::Client`, which provide
/// `query`, `execute`, `prepare_cached`, `copy_in` and so on. The pool commits the transaction if the work returns
/// `Ok`, and rolls it back if the work returns an error or is dropped. The work must drop the transaction before it
/// returns, and must not send `COMMIT`, `END`, `PREPARE TRANSACTION`, `ROLLBACK` or `ABORT` itself. Savepoints can be
/// used as SQL statements: `SAVEPOINT`, `ROLLBACK TO SAVEPOINT`, `RELEASE SAVEPOINT`.
pub struct Transaction(Client);

impl Transaction {
    pub(crate) fn new(client: Client) -> Self {
        Self(client)
    }

    /// Returns the Pod on which the transaction runs.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        self.0.endpoint()
    }

    /// Returns the role that the server last reported on this connection.
    #[must_use]
    pub fn role(&self) -> Role {
        self.0.role()
    }

    /// Returns a token that cancels the in-flight statement of this transaction. See
    /// [`Client::cancel_token`](crate::Client::cancel_token).
    #[must_use]
    pub fn cancel_token(&self) -> CancelToken {
        self.0.cancel_token()
    }
}

impl Deref for Transaction {
    type Target = ClientWrapper;

    fn deref(&self) -> &ClientWrapper {
        &self.0
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction").field("endpoint", self.endpoint()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn begins_with_the_options_that_are_set() {
        let options = TransactionOptions::default();
        assert_eq!((options.checkout.target, options.begin().as_str()), (Target::Primary, "START TRANSACTION"));
        let options = TransactionOptions::from(Target::Any).read_only(false);
        assert_eq!((options.checkout.target, options.begin().as_str()), (Target::Any, "START TRANSACTION READ WRITE"));
        let options = options.isolation_level(IsolationLevel::Serializable).read_only(true).deferrable(true);
        assert_eq!(options.begin(), "START TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE");
        let options = TransactionOptions::default().isolation_level(IsolationLevel::RepeatableRead).deferrable(false);
        assert_eq!(options.begin(), "START TRANSACTION ISOLATION LEVEL REPEATABLE READ, NOT DEFERRABLE");
    }
}
