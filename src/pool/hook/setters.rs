//! The methods of the builder that set the hooks.

use super::{HookClient, HookFuture};
use crate::{pool::Builder, time::Duration};

impl Builder {
    /// Sets a hook that sets up the session of each new connection: a role, a search path, settings, prepared
    /// statements. It runs after the login, on pooled connections and on those of
    /// [`Pool::connect_owned`](crate::Pool::connect_owned), but not on connections that only health checks use.
    ///
    /// The session as the hook leaves it is an unchanged one: its statements are no reason for a
    /// [`reset`](crate::config::Reset), and after each reset the hook runs again, in the background, before the next
    /// caller gets the connection. With `reset=auto` and `reset=discard`, a caller therefore cannot leave another role
    /// or search path behind. With `reset=none`, the hook runs only once on each connection.
    ///
    /// If the hook returns an error, panics, leaves a transaction open, or does not end within
    /// [`hook_timeout`](Builder::hook_timeout), the connection is closed, and opening it counts as failed in
    /// [`Phase::AfterConnect`](crate::Phase::AfterConnect): the next attempt is delayed, the errors of waiting callers
    /// contain the hook's error and the Pod, and [`Event::SetupFailed`](crate::Event::SetupFailed) is emitted. The
    /// failure is no evidence against the Pod, which is not ejected.
    ///
    /// Health checks borrow idle connections, so they run with the hook's role and settings. The role needs the same
    /// [privileges](crate::guide::operators) as the login role. If the hook turns on `default_transaction_read_only`,
    /// no session fits a target that writes.
    ///
    /// ```
    /// # fn example(config: podpool::Config) -> Result<podpool::Pool, podpool::Error> {
    /// let pool = podpool::Pool::builder(config)
    ///     .after_connect(|client| {
    ///         Box::pin(async move {
    ///             client.batch_execute("SET ROLE app; SET search_path = app, public").await?;
    ///             client.prepare_cached("SELECT name FROM customers WHERE id = $1").await?;
    ///             Ok(())
    ///         })
    ///     })
    ///     .build()?;
    /// # Ok(pool)
    /// # }
    /// ```
    pub fn after_connect<F>(mut self, hook: F) -> Self
    where
        F: for<'a> Fn(HookClient<'a>) -> HookFuture<'a> + Send + Sync + 'static,
    {
        self.hooks.after_connect = Some(Box::new(hook));
        self
    }

    /// Sets a hook that runs at each checkout, before the caller gets the connection. If the hook returns an error, it
    /// has rejected the connection: the connection is closed, and the checkout tries another one. The same applies if
    /// the hook panics, leaves a transaction open, or does not end within [`hook_timeout`](Builder::hook_timeout) or by
    /// the deadline of the checkout. After eight rejections, the checkout fails with
    /// [`Kind::Other`](crate::Kind::Other). Its error lists each rejection with the Pod, in
    /// [`Phase::BeforeCheckout`](crate::Phase::BeforeCheckout).
    ///
    /// The hook runs in the caller's task, which may run on any executor. If the caller cancels the checkout, the hook
    /// is cancelled too. The time of the hook is a part of the checkout's waiting time, and each checkout counts as one
    /// that waits. Statements of the hook count as the caller's for [`reset`](crate::config::Reset), but not for
    /// [`Client::classify_work`](crate::Client::classify_work) and [`Pool::retry`](crate::Pool::retry).
    pub fn before_checkout<F>(mut self, hook: F) -> Self
    where
        F: for<'a> Fn(HookClient<'a>) -> HookFuture<'a> + Send + Sync + 'static,
    {
        self.hooks.before_checkout = Some(Box::new(hook));
        self
    }

    /// Sets a hook that runs in the background after a caller has returned a connection, when the connection is clean
    /// and before its session is reset. If the hook returns an error, it has rejected the connection, which is closed.
    /// The same applies if the hook panics, leaves a transaction open, or does not end within
    /// [`hook_timeout`](Builder::hook_timeout). A rejection is counted in the metric
    /// `podpool_connections_closed_total` with the reason `rejected`, and logged at the level `DEBUG`.
    ///
    /// The hook does not run for a connection that is closed anyway.
    pub fn after_checkin<F>(mut self, hook: F) -> Self
    where
        F: for<'a> Fn(HookClient<'a>) -> HookFuture<'a> + Send + Sync + 'static,
    {
        self.hooks.after_checkin = Some(Box::new(hook));
        self
    }

    /// Sets the maximum duration of each call of a hook. The default is `connect_timeout` (2 s by default). The call of
    /// [`after_connect`](Builder::after_connect) begins after the login, so its time is not a part of
    /// `connect_timeout`.
    pub fn hook_timeout(mut self, limit: Duration) -> Self {
        self.hooks.timeout = Some(limit);
        self
    }
}
