//! Every bound of the pool in one plain value: how long, how many, how often.

mod defaults;
mod validate;

use std::time::Duration;

use super::{LagFallback, Reset};

/// How long, how many and how often: plain data, with a default for each field that is a constant of this type.
///
/// Every stage ends:
///
/// | stage | ends after | constant |
/// |---|---|---|
/// | resolve the name | 2 s; another name server is asked beside after 300 ms | [`DNS_TIMEOUT`](Self::DNS_TIMEOUT), [`DNS_HEDGE`](Self::DNS_HEDGE) |
/// | dial: TCP, TLS, start-up, authentication together | 2 s | [`CONNECT_TIMEOUT`](Self::CONNECT_TIMEOUT) |
/// | wait for a connection, with every dial and ping in it | 5 s | [`ACQUIRE_TIMEOUT`](Self::ACQUIRE_TIMEOUT) |
/// | ping a connection that has rested; a probe | 1 s | [`PROBE_TIMEOUT`](Self::PROBE_TIMEOUT) |
/// | settle: let a statement end, cancel it, roll back | 100 ms, then twice 2 s for the request and 0.5 s, then 1 s | [`RECYCLE_QUIET`](Self::RECYCLE_QUIET), [`CONNECT_TIMEOUT`](Self::CONNECT_TIMEOUT), [`RECYCLE_CANCELLED`](Self::RECYCLE_CANCELLED) |
/// | say goodbye | 2 s | [`FAREWELL`](Self::FAREWELL) |
/// | drain a Pod that left the Service | 60 s, then what runs is cancelled and the connection cut | [`DRAIN_TIMEOUT`](Self::DRAIN_TIMEOUT) |
/// | close the pool | 30 s, then the same, in 4.1 s more | [`CLOSE_TIMEOUT`](Self::CLOSE_TIMEOUT), [`CONNECT_TIMEOUT`](Self::CONNECT_TIMEOUT) |
/// | notice a peer that says nothing: something was sent and not acknowledged | 3 s | [`TCP_USER_TIMEOUT`](Self::TCP_USER_TIMEOUT) |
/// | the same, nothing was sent | 8 s | [`KEEPALIVES_IDLE`](Self::KEEPALIVES_IDLE), [`KEEPALIVES_INTERVAL`](Self::KEEPALIVES_INTERVAL), [`KEEPALIVES_COUNT`](Self::KEEPALIVES_COUNT) |
///
/// The last two are the kernel's to keep. Where it has no TCP user time-out (everything but Linux, Android and Fuchsia),
/// and where no program may set the interval and the number of keepalives (OpenBSD), the system's own hold. On every
/// platform the probes find a Pod that is silent as a whole, and what still waits there is cut 3 s after.
///
/// The range of each field is checked by [`Config::validate`](crate::Config::validate). A field that a URL can set has
/// the same name there.
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
    /// The deadline of one check-out, everything in it included. 1 ms to 1 h; default
    /// [`ACQUIRE_TIMEOUT`](Self::ACQUIRE_TIMEOUT), 5 s.
    pub acquire_timeout: Duration,
    /// How long one dial may take, from getting the password until the server has authenticated us. 1 ms to 1 h;
    /// default [`CONNECT_TIMEOUT`](Self::CONNECT_TIMEOUT), 2 s. libpq's parameter of this name bounds the same, but its
    /// zero (no bound) is refused.
    pub connect_timeout: Duration,
    /// How long sent data may stay without acknowledgement before the kernel gives the connection up. 1 ms to 1 h, or
    /// zero for the system's own, as in libpq; default [`TCP_USER_TIMEOUT`](Self::TCP_USER_TIMEOUT), 3 s. In a URL a
    /// number without a unit counts milliseconds, as in libpq. Linux, Android and Fuchsia only: elsewhere it has no effect.
    pub tcp_user_timeout: Duration,
    /// How long a connection is silent before the first TCP keepalive. Whole seconds, 1 s to 32767 s (Linux's bound),
    /// or zero for the system's own, as in libpq; default [`KEEPALIVES_IDLE`](Self::KEEPALIVES_IDLE), 5 s.
    pub keepalives_idle: Duration,
    /// How long a keepalive may stay without an answer before the next. Whole seconds, 1 s to 32767 s, or zero for the
    /// system's own, as in libpq; default [`KEEPALIVES_INTERVAL`](Self::KEEPALIVES_INTERVAL), 1 s. No effect on OpenBSD.
    pub keepalives_interval: Duration,
    /// How many keepalives may stay without an answer. 1 to 127 (Linux's bound), or zero for the system's own, as in
    /// libpq; default [`KEEPALIVES_COUNT`](Self::KEEPALIVES_COUNT), 3. No effect on OpenBSD.
    pub keepalives_count: u32,
    /// The most connections to one Pod, without the one of its probe. 1 to 1000; default
    /// [`POOL_SIZE`](Self::POOL_SIZE), 8.
    pub pool_size: usize,
    /// The most connections of this client to all Pods together, those of the probes counted. 3 to 1,000,000; no bound
    /// of its own by default. What the probes leave is divided evenly among the Pods in use, so it also bounds how many
    /// those are: see [`subset_size`](Self::subset_size).
    pub max_connections: Option<usize>,
    /// How many Pods this client uses, where there are more. Which ones follows from `client_id`, so that many clients
    /// spread evenly over all Pods; one that fails or is full is replaced. 1 to 100,000; all of them by default, and no
    /// more than `max_connections` has room for.
    pub subset_size: Option<usize>,
    /// How many clients like this one there are: only for the arithmetic whose result is told at the start, see
    /// [`Event::BudgetExceeded`](crate::Event::BudgetExceeded). 1 to 1,000,000; unknown by default.
    pub clients: Option<usize>,
    /// The most prepared statements that a connection keeps for `prepare_cached`. One that comes back with more is
    /// relieved of all of them. 0 to 1,000,000; default
    /// [`STATEMENT_CACHE_SIZE`](Self::STATEMENT_CACHE_SIZE), 256.
    pub statement_cache_size: usize,
    /// What becomes of a session's own state when its connection is given back. [`Reset::None`] by default.
    pub reset: Reset,
    /// How many connections to each Pod are kept open and idle. 0 to `pool_size`; default
    /// [`MIN_IDLE`](Self::MIN_IDLE), 1.
    pub min_idle: usize,
    /// How old a connection grows; each lives up to 10 % shorter, at random, so that they do not all end together. 1 s
    /// to 365 d; default [`MAX_LIFETIME`](Self::MAX_LIFETIME), 30 min.
    pub max_lifetime: Duration,
    /// How long a connection above `min_idle` stays unused before it is closed. 1 s to 365 d; default
    /// [`IDLE_TIMEOUT`](Self::IDLE_TIMEOUT), 10 min.
    pub idle_timeout: Duration,
    /// A connection that was idle for longer answers a ping before it is handed out. 0 (always) to 1 h; default
    /// [`PING_AFTER`](Self::PING_AFTER), 1 s.
    pub ping_after: Duration,
    /// The most handshakes at once with one Pod. 1 to 1000; default
    /// [`HANDSHAKES_PER_POD`](Self::HANDSHAKES_PER_POD), 2.
    pub handshakes_per_pod: usize,
    /// The most handshakes at once with all Pods together, the probes' not counted. 1 to 1000; default
    /// [`HANDSHAKES`](Self::HANDSHAKES), 32.
    pub handshakes: usize,
    /// The name is resolved again when its records' TTL is over, but never sooner than this. 10 ms to 1 h; default
    /// [`REFRESH_MIN`](Self::REFRESH_MIN), 1 s.
    pub refresh_min: Duration,
    /// The name is resolved again at the latest after this, however long the records' TTL. `refresh_min` to 1 h;
    /// default [`REFRESH_MAX`](Self::REFRESH_MAX), 10 s.
    pub refresh_max: Duration,
    /// How long one resolution may take. 1 ms to 1 min; default [`DNS_TIMEOUT`](Self::DNS_TIMEOUT), 2 s.
    pub dns_timeout: Duration,
    /// When a name server has not answered for this long, the next is asked beside it. 1 ms to 1 min, `dns_timeout` or
    /// longer for never; default [`DNS_HEDGE`](Self::DNS_HEDGE), 300 ms.
    pub dns_hedge: Duration,
    /// How often a healthy Pod is probed. 10 ms to 1 h; default [`PROBE_INTERVAL`](Self::PROBE_INTERVAL), 5 s.
    pub probe_interval: Duration,
    /// How long one probe may take. 1 ms to 1 min; default [`PROBE_TIMEOUT`](Self::PROBE_TIMEOUT), 1 s.
    pub probe_timeout: Duration,
    /// That many failures in a row eject a Pod. 1 to 1000; default
    /// [`OUTLIER_CONSECUTIVE`](Self::OUTLIER_CONSECUTIVE), 5.
    pub outlier_consecutive: u32,
    /// A Pod whose share of successes within `outlier_window` is lower is ejected. 0 (never) to 1; default
    /// [`OUTLIER_SUCCESS_RATE`](Self::OUTLIER_SUCCESS_RATE), 0.8.
    pub outlier_success_rate: f64,
    /// The time over which the share of successes is counted. 1 s to 1 h; default
    /// [`OUTLIER_WINDOW`](Self::OUTLIER_WINDOW), 30 s.
    pub outlier_window: Duration,
    /// A standby gets no reads while what it has replayed is older than this, unless it has replayed everything. 1 ms to
    /// 24 h; none by default. A standby that nobody sends to is too late under any limit, while a primary serves.
    pub max_lag: Option<Duration>,
    /// A standby gets no reads while it is more than this many bytes of write-ahead log behind. None by default.
    pub max_lag_bytes: Option<u64>,
    /// What `standby` and `read-only` get when every standby is too late. [`LagFallback::Fail`] by default.
    pub lag_fallback: LagFallback,
    /// How long the borrowed connections of a Pod that left the Service are waited for. 0 to 24 h; default
    /// [`DRAIN_TIMEOUT`](Self::DRAIN_TIMEOUT), 60 s.
    pub drain_timeout: Duration,
    /// How long closing the pool waits for borrowed connections. 0 to 24 h; default
    /// [`CLOSE_TIMEOUT`](Self::CLOSE_TIMEOUT), 30 s.
    pub close_timeout: Duration,
}
