//! The limits of the pool: timeouts, counts and intervals in one plain value.

mod defaults;
mod validate;

use std::time::Duration;

use super::{LagFallback, Reset};

/// Timeouts, counts and intervals. Each field has a default, which is a constant of this type.
///
/// Every stage is bounded:
///
#[doc = include_str!("stages.md")]
///
/// The kernel enforces the last two. The operating system's own settings apply where a kernel has no TCP user timeout
/// (all but Linux, Android and Fuchsia) or where the interval and the number of keepalives cannot be set (OpenBSD). On
/// every platform, the probes detect a Pod that is completely unresponsive, and operations that still wait for it are
/// aborted 3 s later.
///
/// [`Config::validate`](crate::Config::validate) checks the range of each field. A parameter of a URL has the same name
/// as its field.
///
/// ```
/// # use podpool::{Config, config::Limits};
/// # fn main() -> Result<(), podpool::ConfigError> {
/// let mut limits = Limits::default();
/// limits.pool_size = 4;
/// let config = Config::new("postgresql-svc.k8s-training.svc.cluster.local")?.with_limits(limits);
/// # assert_eq!(config.limits().pool_size, 4);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// Deadline of a checkout, including every dial and ping. 1 ms to 1 h; default
    /// [`ACQUIRE_TIMEOUT`](Self::ACQUIRE_TIMEOUT), 5 s.
    pub acquire_timeout: Duration,
    /// Time limit of a dial, from reading the password to the end of authentication. 1 ms to 1 h; default
    /// [`CONNECT_TIMEOUT`](Self::CONNECT_TIMEOUT), 2 s. Same as in libpq, except that zero (no limit) is rejected.
    pub connect_timeout: Duration,
    /// Time that sent data may stay unacknowledged before the kernel closes the connection. 1 ms to 1 h, or zero for
    /// the system's default, as in libpq; default [`TCP_USER_TIMEOUT`](Self::TCP_USER_TIMEOUT), 3 s. In a URL, a number
    /// without a unit is in milliseconds, as in libpq. Only effective on Linux, Android and Fuchsia.
    pub tcp_user_timeout: Duration,
    /// Time without traffic before the first TCP keepalive. Whole seconds from 1 s to 32767 s (Linux's limit), or zero
    /// for the system's default, as in libpq; default [`KEEPALIVES_IDLE`](Self::KEEPALIVES_IDLE), 5 s.
    pub keepalives_idle: Duration,
    /// Time between an unacknowledged keepalive and the next one. Whole seconds from 1 s to 32767 s, or zero for the
    /// system's default, as in libpq; default [`KEEPALIVES_INTERVAL`](Self::KEEPALIVES_INTERVAL), 1 s. No effect on
    /// OpenBSD.
    pub keepalives_interval: Duration,
    /// Number of unacknowledged keepalives after which the connection is closed. 1 to 127 (Linux's limit), or zero for
    /// the system's default, as in libpq; default [`KEEPALIVES_COUNT`](Self::KEEPALIVES_COUNT), 3. No effect on
    /// OpenBSD.
    pub keepalives_count: u32,
    /// Maximum number of connections to each Pod, not counting the probe's connection. 1 to 1000; default
    /// [`POOL_SIZE`](Self::POOL_SIZE), 8.
    pub pool_size: usize,
    /// Maximum number of connections of this client to all Pods together, including the probes' connections. 3 to
    /// 1,000,000; no limit by default. The connections that remain after the probes' are divided evenly among the Pods
    /// in use, so this field also limits the number of those Pods: see [`subset_size`](Self::subset_size).
    pub max_connections: Option<usize>,
    /// Maximum number of Pods that this client uses. The selection depends on `client_id`, so many clients spread
    /// evenly over all Pods. A Pod that fails or is full is replaced by another. 1 to 100,000; by default all Pods, or
    /// as many as `max_connections` allows.
    pub subset_size: Option<usize>,
    /// Number of clients with this configuration. Used only to check whether the servers have enough connections for
    /// all of them: see [`Event::ServerOversubscribed`](crate::Event::ServerOversubscribed). 1 to 1,000,000; unknown by
    /// default.
    pub clients: Option<usize>,
    /// Maximum number of prepared statements that a connection keeps for `prepare_cached`. If a connection is returned
    /// with more, its statement cache is cleared. 0 to 1,000,000; default
    /// [`STATEMENT_CACHE_SIZE`](Self::STATEMENT_CACHE_SIZE), 256.
    pub statement_cache_size: usize,
    /// Treatment of session state when a connection is returned. [`Reset::None`] by default.
    pub reset: Reset,
    /// Number of idle connections kept open to each Pod. 0 to `pool_size`; default [`MIN_IDLE`](Self::MIN_IDLE), 1.
    pub min_idle: usize,
    /// Maximum age of a connection. The actual maximum of each connection is up to 10 % shorter, at random, so that
    /// connections opened together are not closed together. 1 s to 365 d; default
    /// [`MAX_LIFETIME`](Self::MAX_LIFETIME), 30 min.
    pub max_lifetime: Duration,
    /// Time after which an idle connection in excess of `min_idle` is closed. 1 s to 365 d; default
    /// [`IDLE_TIMEOUT`](Self::IDLE_TIMEOUT), 10 min.
    pub idle_timeout: Duration,
    /// Idle time after which a connection is pinged before it is checked out. 0 (always) to 1 h; default
    /// [`PING_AFTER`](Self::PING_AFTER), 1 s.
    pub ping_after: Duration,
    /// Maximum number of concurrent handshakes with each Pod. 1 to 1000; default
    /// [`HANDSHAKES_PER_POD`](Self::HANDSHAKES_PER_POD), 2.
    pub handshakes_per_pod: usize,
    /// Maximum number of concurrent handshakes with all Pods together, not counting those of the probes. 1 to 1000;
    /// default [`HANDSHAKES`](Self::HANDSHAKES), 32.
    pub handshakes: usize,
    /// Minimum time between two resolutions of the Service name, even if the TTL of the records is shorter. 10 ms to 1
    /// h; default [`REFRESH_MIN`](Self::REFRESH_MIN), 1 s.
    pub refresh_min: Duration,
    /// Maximum time between two resolutions of the Service name, even if the TTL of the records is longer.
    /// `refresh_min` to 1 h; default [`REFRESH_MAX`](Self::REFRESH_MAX), 10 s.
    pub refresh_max: Duration,
    /// Time limit of one resolution. 1 ms to 1 min; default [`DNS_TIMEOUT`](Self::DNS_TIMEOUT), 2 s.
    pub dns_timeout: Duration,
    /// Time without a response after which the next name server is queried concurrently. 1 ms to 1 min; `dns_timeout`
    /// or longer disables it; default [`DNS_HEDGE`](Self::DNS_HEDGE), 300 ms.
    pub dns_hedge: Duration,
    /// Interval between two probes of a healthy Pod. 10 ms to 1 h; default [`PROBE_INTERVAL`](Self::PROBE_INTERVAL), 5
    /// s.
    pub probe_interval: Duration,
    /// Time limit of a probe. 1 ms to 1 min; default [`PROBE_TIMEOUT`](Self::PROBE_TIMEOUT), 1 s.
    pub probe_timeout: Duration,
    /// Number of consecutive failures after which a Pod is ejected. 1 to 1000; default
    /// [`OUTLIER_CONSECUTIVE`](Self::OUTLIER_CONSECUTIVE), 5.
    pub outlier_consecutive: u32,
    /// Success rate within `outlier_window` below which a Pod is ejected. 0 (never) to 1; default
    /// [`OUTLIER_SUCCESS_RATE`](Self::OUTLIER_SUCCESS_RATE), 0.8.
    pub outlier_success_rate: f64,
    /// Time window of the success rate. 1 s to 1 h; default [`OUTLIER_WINDOW`](Self::OUTLIER_WINDOW), 30 s.
    pub outlier_window: Duration,
    /// Maximum replication lag of a standby that receives reads, measured as the age of its last replayed transaction.
    /// A standby that has replayed everything has no lag. While a primary is serving, a standby without a running WAL
    /// receiver exceeds every limit. 1 ms to 24 h; none by default.
    pub max_lag: Option<Duration>,
    /// Maximum replication lag of a standby that receives reads, in bytes of write-ahead log. None by default.
    pub max_lag_bytes: Option<u64>,
    /// Behavior of the targets `standby` and `read-only` while every standby exceeds its lag limit.
    /// [`LagFallback::Fail`] by default.
    pub lag_fallback: LagFallback,
    /// Time that the checked-out connections of a Pod that left the Service may still be used. 0 to 24 h; default
    /// [`DRAIN_TIMEOUT`](Self::DRAIN_TIMEOUT), 60 s.
    pub drain_timeout: Duration,
    /// Time that closing the pool waits for checked-out connections. 0 to 24 h; default
    /// [`CLOSE_TIMEOUT`](Self::CLOSE_TIMEOUT), 30 s.
    pub close_timeout: Duration,
}
