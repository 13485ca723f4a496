use std::time::Duration;

use super::Target;

/// The options of one call: which Pods may serve it, and how long it may take. Every method that accepts a [`Target`]
/// also accepts a `Checkout`.
///
/// ```
/// # async fn example(pool: podpool::Pool) -> Result<(), podpool::Error> {
/// use std::time::Duration;
///
/// use podpool::{Checkout, Target};
///
/// let quick = Checkout::new(Target::PreferStandby).deadline(Duration::from_millis(200));
/// let orders: i64 = pool
///     .retry(quick, |client| async move {
///         client.query_one("SELECT count(*) FROM orders", &[]).await.map(|row| row.get(0))
///     })
///     .await?;
/// println!("{orders} orders");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[must_use]
pub struct Checkout {
    pub(crate) target: Target,
    pub(crate) deadline: Option<Duration>,
}

impl Checkout {
    /// Creates options with this target, and with the pool's settings for everything else.
    pub fn new(target: Target) -> Self {
        Self { target, ..Self::default() }
    }

    /// Sets the time within which the call must end. Replaces `acquire_timeout` for this call.
    ///
    /// For calls that run work ([`retry`](crate::Pool::retry), [`retry_unapplied`](crate::Pool::retry_unapplied),
    /// [`transaction`](crate::Pool::transaction)), the deadline covers checkouts, work and pauses. Work that has not
    /// ended by then is dropped, and the statement that it has left in flight is cancelled on the server. The call
    /// returns an error with [`Kind::Timeout`](crate::Kind::Timeout) as soon as the server has ended the statement, but
    /// at most 40 ms after the deadline; the rest happens in the background. Without this option, running work is not
    /// interrupted.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

impl From<Target> for Checkout {
    fn from(target: Target) -> Self {
        Self::new(target)
    }
}
