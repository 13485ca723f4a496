//! The limits of a pool: timeouts, counts and intervals.

mod defaults;
mod validate;

use std::time::Duration;

use super::{AbsentPods, LagFallback, Reset};

/// Timeouts, counts and intervals. The associated constants are the defaults.
///
/// Every stage of the pool's work has a time limit:
///
/// [`ACQUIRE_TIMEOUT`]: Self::ACQUIRE_TIMEOUT
/// [`CLOSE_TIMEOUT`]: Self::CLOSE_TIMEOUT
/// [`CONNECT_TIMEOUT`]: Self::CONNECT_TIMEOUT
/// [`DNS_HEDGE`]: Self::DNS_HEDGE
/// [`DNS_TIMEOUT`]: Self::DNS_TIMEOUT
/// [`DRAIN_TIMEOUT`]: Self::DRAIN_TIMEOUT
/// [`KEEPALIVES_COUNT`]: Self::KEEPALIVES_COUNT
/// [`KEEPALIVES_IDLE`]: Self::KEEPALIVES_IDLE
/// [`KEEPALIVES_INTERVAL`]: Self::KEEPALIVES_INTERVAL
/// [`PROBE_TIMEOUT`]: Self::PROBE_TIMEOUT
/// [`RECYCLE_GRACE`]: Self::RECYCLE_GRACE
/// [`RECYCLE_TIMEOUT`]: Self::RECYCLE_TIMEOUT
/// [`TCP_USER_TIMEOUT`]: Self::TCP_USER_TIMEOUT
/// [`TERMINATE_TIMEOUT`]: Self::TERMINATE_TIMEOUT
///
#[doc = include_str!("stages.md")]
///
/// The kernel enforces the last two limits of the table on platforms that support them. Only Linux, Android and Fuchsia
/// have a TCP user timeout, and OpenBSD cannot set the interval and the number of keepalives per connection. Where a
/// setting is not supported, the operating system's own value applies. On every platform, probes detect a Pod that is
/// completely unresponsive, and operations that still wait for that Pod are aborted 3 s later.
///
/// [`Config::validate`](crate::Config::validate) checks the range of each field. In a URL, the parameter for each field
/// has the name of the field.
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
    /// Time limit for a checkout, including every dial and ping. 1 ms to 1 h; default
    /// [`ACQUIRE_TIMEOUT`](Self::ACQUIRE_TIMEOUT), 5 s.
    pub acquire_timeout: Duration,
    /// Time limit for a dial, from reading the password to the end of authentication. 1 ms to 1 h; default
    /// [`CONNECT_TIMEOUT`](Self::CONNECT_TIMEOUT), 2 s. Same as in libpq, except that zero (no limit) is rejected.
    /// Building a pool logs a warning if this and `acquire_timeout` are set, and `acquire_timeout` is shorter.
    pub connect_timeout: Duration,
    /// Time that sent data may stay unacknowledged before the kernel closes the connection. 1 ms to 1 h, or zero for
    /// the system's default, as in libpq; default [`TCP_USER_TIMEOUT`](Self::TCP_USER_TIMEOUT), 3 s. In a URL, a number
    /// without a unit is in milliseconds, as in libpq. Takes effect only on Linux, Android and Fuchsia.
    pub tcp_user_timeout: Duration,
    /// Time without traffic before the first TCP keepalive. Whole seconds from 1 s to 32767 s (Linux's limit), or zero
    /// for the system's default, as in libpq; default [`KEEPALIVES_IDLE`](Self::KEEPALIVES_IDLE), 5 s.
    pub keepalives_idle: Duration,
    /// Time between two TCP keepalives while the peer does not acknowledge them. Whole seconds from 1 s to 32767 s, or
    /// zero for the system's default, as in libpq; default [`KEEPALIVES_INTERVAL`](Self::KEEPALIVES_INTERVAL), 1 s. No
    /// effect on OpenBSD.
    pub keepalives_interval: Duration,
    /// Number of unacknowledged keepalives after which the connection is closed. 1 to 127 (Linux's limit), or zero for
    /// the system's default, as in libpq; default [`KEEPALIVES_COUNT`](Self::KEEPALIVES_COUNT), 3. No effect on
    /// OpenBSD.
    pub keepalives_count: u32,
    /// Maximum number of connections to each Pod, not counting the probe's connection. A connection that is in use
    /// while its address falls out of use is closed when it is returned, and does not count until then: callers need
    /// not wait for it if the Pod is named by DNS again after it was removed, or if a dual-stack Pod is used over its
    /// other IP family. `max_connections` counts it. 1 to 1000; default [`POOL_SIZE`](Self::POOL_SIZE), 8.
    pub pool_size: usize,
    /// Maximum number of this client's connections to all Pods together, including one connection per Pod for its
    /// probes. 3 to 1,000,000; no limit by default. The remaining connections are divided evenly among the Pods in use.
    /// Each Pod needs at least one, so this field also limits the number of Pods, like
    /// [`subset_size`](Self::subset_size).
    pub max_connections: Option<usize>,
    /// Maximum number of Pods that this client uses. Each client selects a different subset, depending on its
    /// `client_id`, so many clients spread evenly over all Pods. A Pod that fails or has no free connection slots is
    /// replaced by another. If no Pod of the subset has a role that callers request, such as the primary, the client
    /// also uses a Pod with this role, but only for callers that need the role. 1 to 100,000; by default all Pods, or
    /// as many as `max_connections` allows.
    pub subset_size: Option<usize>,
    /// Number of clients with this configuration. Used to check that the servers allow enough connections for all
    /// clients: see [`Event::ServerOversubscribed`](crate::Event::ServerOversubscribed). From 21 clients, it also
    /// lengthens the intervals at which each client checks and dials the Pods while no Pod serves a requested role. 1
    /// to 1,000,000; unknown by default.
    pub clients: Option<usize>,
    /// Maximum number of prepared statements that a connection keeps for `prepare_cached`. If a connection is returned
    /// with more prepared statements, its statement cache is cleared. 0 to 1,000,000; default
    /// [`STATEMENT_CACHE_SIZE`](Self::STATEMENT_CACHE_SIZE), 256.
    pub statement_cache_size: usize,
    /// Number of connections to each Pod that callers of [`Pool::shared`](crate::Pool::shared) share. One on which a
    /// statement is slow does not count, so more may be open, up to `pool_size`. If the round trip limits the rate,
    /// more are opened, up to half of `pool_size`. 1 to 1000; default
    /// [`SHARED_CONNECTIONS`](Self::SHARED_CONNECTIONS), 1.
    pub shared_connections: usize,
    /// Maximum number of statements in flight on a shared connection. A batch can exceed it. 1 to 1000; default
    /// [`SHARED_DEPTH`](Self::SHARED_DEPTH), 32.
    pub shared_depth: usize,
    /// Time after which a statement on a shared connection is slow, so that no further one is sent behind it. 1 ms to
    /// 1 h; by default four times the connection's 95th percentile, and at least 5 ms and two round trips.
    pub shared_slow: Option<Duration>,
    /// Handling of session state when a connection is returned. [`Reset::Auto`] by default.
    pub reset: Reset,
    /// Minimum number of open connections to each Pod, which stay open even if no caller uses them. More are opened
    /// when callers need them. 0 to `pool_size`; default [`MIN_IDLE`](Self::MIN_IDLE), 1.
    pub min_idle: usize,
    /// Maximum age of a connection. The maximum age of each connection is shortened by a random 0 to 10 %, so that
    /// connections that were opened together are not closed together. 1 s to 365 d; default
    /// [`MAX_LIFETIME`](Self::MAX_LIFETIME), 30 min.
    pub max_lifetime: Duration,
    /// Time after which an idle connection is closed if more than `min_idle` are idle. 1 s to 365 d; default
    /// [`IDLE_TIMEOUT`](Self::IDLE_TIMEOUT), 10 min.
    pub idle_timeout: Duration,
    /// Idle time after which a connection is pinged before it is checked out. 0 to 1 h; default
    /// [`PING_AFTER`](Self::PING_AFTER), 1 s. At 0, a connection is pinged as soon as the pool's clock, which ticks
    /// every 100 ms, has advanced since the connection was returned.
    pub ping_after: Duration,
    /// Maximum number of concurrent handshakes with each Pod. 1 to 1000; default
    /// [`HANDSHAKES_PER_POD`](Self::HANDSHAKES_PER_POD), 2.
    pub handshakes_per_pod: usize,
    /// Maximum number of concurrent handshakes with all Pods together, not counting probe connections. 1 to 1000;
    /// default [`HANDSHAKES`](Self::HANDSHAKES), 32.
    pub handshakes: usize,
    /// Minimum time between two resolutions of the Service name, even if the records have a shorter TTL. 10 ms to 1 h;
    /// default [`REFRESH_MIN`](Self::REFRESH_MIN), 1 s.
    pub refresh_min: Duration,
    /// Maximum time between two resolutions of the Service name, even if the records have a longer TTL. `refresh_min`
    /// to 1 h; default [`REFRESH_MAX`](Self::REFRESH_MAX), 10 s.
    pub refresh_max: Duration,
    /// Time limit for resolving the Service name once. 1 ms to 1 min; default [`DNS_TIMEOUT`](Self::DNS_TIMEOUT), 2 s.
    /// While lookups fail, at most four packets per second are sent. A lookup after a failed one waits for this limit
    /// before its time limit begins, for at most 1 s.
    pub dns_timeout: Duration,
    /// Time without a response after which the next name server is also queried. 1 ms to 1 min; a value of
    /// `dns_timeout` or more disables such hedged queries; default [`DNS_HEDGE`](Self::DNS_HEDGE), 300 ms.
    pub dns_hedge: Duration,
    /// Interval between two probes of a healthy Pod. 10 ms to 1 h; default [`PROBE_INTERVAL`](Self::PROBE_INTERVAL),
    /// 5 s.
    pub probe_interval: Duration,
    /// Time limit for a probe. 1 ms to 1 min; default [`PROBE_TIMEOUT`](Self::PROBE_TIMEOUT), 1 s.
    pub probe_timeout: Duration,
    /// Number of consecutive statements with a server error (SQLSTATE class 53, 58, F0 or XX) after which a Pod is
    /// ejected. 1 to 1000; default [`OUTLIER_CONSECUTIVE`](Self::OUTLIER_CONSECUTIVE), 5.
    pub outlier_consecutive: u32,
    /// Fraction of statements without a server error, within `outlier_window`, below which a Pod is ejected. 0 (never)
    /// to 1; default [`OUTLIER_SUCCESS_RATE`](Self::OUTLIER_SUCCESS_RATE), 0.8.
    pub outlier_success_rate: f64,
    /// Time window over which the success rate is measured. 1 s to 1 h; default
    /// [`OUTLIER_WINDOW`](Self::OUTLIER_WINDOW), 30 s.
    pub outlier_window: Duration,
    /// Maximum replication lag at which a standby is still used: the age of the WAL that it has not replayed, measured
    /// with the client's clock. The error is at most one probe interval. The age counts only while there is WAL at
    /// least 1 s old that the standby has not replayed. A standby without a running WAL receiver counts as exceeding
    /// any limit while a primary is in service, and as exceeding this limit after this time if none is. 1 ms to 24 h;
    /// none by default.
    pub max_lag: Option<Duration>,
    /// Maximum replication lag at which a standby is still used, in bytes of WAL that it has not replayed. None by
    /// default.
    pub max_lag_bytes: Option<u64>,
    /// Behavior of the targets `standby` and `read-only` while every standby exceeds `max_lag` or `max_lag_bytes`.
    /// [`LagFallback::Fail`] by default.
    pub lag_fallback: LagFallback,
    /// Treatment of Pods that are absent from DNS but pass their probes. [`AbsentPods::Drain`] by default.
    pub absent_pods: AbsentPods,
    /// Time for which the connections to an absent Pod that is not used stay open, so that a Pod that DNS names again
    /// needs no new handshakes. 0 to 24 h; default [`DETACH_LINGER`](Self::DETACH_LINGER), 30 s.
    pub detach_linger: Duration,
    /// Time for which checked-out connections may still be used after their Pod has left the Service. 0 to 24 h;
    /// default [`DRAIN_TIMEOUT`](Self::DRAIN_TIMEOUT), 60 s.
    pub drain_timeout: Duration,
    /// Maximum time for which closing the pool waits for checked-out connections to be returned. 0 to 24 h; default
    /// [`CLOSE_TIMEOUT`](Self::CLOSE_TIMEOUT), 30 s.
    pub close_timeout: Duration,
}
