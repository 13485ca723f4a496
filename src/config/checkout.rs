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
    pub(crate) max_lag: Option<Duration>,
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

    /// Sets the maximum age of the data that this call may read from a standby, in addition to the pool's `max_lag`.
    /// Rounded down to 0, 250 ms, 1 s, 3 s, 10 s or 60 s; only a primary fulfills a limit of 0.
    ///
    /// A standby's data is current as of the time at which the primary reported a position in its write-ahead log that
    /// the standby has replayed. A standby is used only while this time is known to be within the limit. With
    /// [`Target::PreferStandby`], and with `lag_fallback=primary`, the primary serves the call if no standby fulfills
    /// the limit at that moment; otherwise, the call waits until one does. [`Target::Primary`], [`Target::ReadWrite`]
    /// and [`Target::PreferPrimary`] are served by a primary, whatever the limit.
    ///
    /// While a limit is used, and for 5 s after that, each Pod is probed at least four times in the time of the limit,
    /// but a fleet of clients (`clients`) sends a server no more than about 480 of these probes per second. The limit
    /// should be well above the usual replication lag plus two probe intervals, or no standby can fulfill it.
    pub fn max_lag(mut self, max_lag: Duration) -> Self {
        self.max_lag = Some(max_lag);
        self
    }
}

impl From<Target> for Checkout {
    fn from(target: Target) -> Self {
        Self::new(target)
    }
}
