use std::time::Duration;

use super::{LagFallback, Limits, Reset};

impl Limits {
    /// 5 s: a request of a web page that waits longer has lost its reader.
    pub const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
    /// 2 s: shorter than the acquire deadline, so that another Pod can still be tried.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
    /// 3 s: about four retransmissions within a cluster.
    pub const TCP_USER_TIMEOUT: Duration = Duration::from_secs(3);
    /// 5 s: with three keepalives a second apart, a silent peer is found in 8 s.
    pub const KEEPALIVES_IDLE: Duration = Duration::from_secs(5);
    /// 1 s: see [`KEEPALIVES_IDLE`](Self::KEEPALIVES_IDLE).
    pub const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(1);
    /// 3: see [`KEEPALIVES_IDLE`](Self::KEEPALIVES_IDLE).
    pub const KEEPALIVES_COUNT: u32 = 3;
    /// 8: a dozen clients fit into PostgreSQL's 100 `max_connections`.
    pub const POOL_SIZE: usize = 8;
    /// 256: pgJDBC's `preparedStatementCacheQueries`.
    pub const STATEMENT_CACHE_SIZE: usize = 256;
    /// 1: the first request after a pause does not wait for a handshake.
    pub const MIN_IDLE: usize = 1;
    /// 30 min: bounds the memory that a backend's caches gather.
    pub const MAX_LIFETIME: Duration = Duration::from_secs(30 * 60);
    /// 10 min: longer than the pauses within a working day's traffic.
    pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 60);
    /// 1 s: a busy pool never pings, a quiet one hands out no dead connection.
    pub const PING_AFTER: Duration = Duration::from_secs(1);
    /// 2: a Pod that comes back is not met by every handshake at once.
    pub const HANDSHAKES_PER_POD: usize = 2;
    /// 32: at some milliseconds of processor time for each, no storm; and sixteen Pods in a black hole, until they are
    /// ejected, hold up no other.
    pub const HANDSHAKES: usize = 32;
    /// 1 s: a TTL of zero does not make a storm of queries.
    pub const REFRESH_MIN: Duration = Duration::from_secs(1);
    /// 10 s: a long TTL does not hide a new Pod for half a minute.
    pub const REFRESH_MAX: Duration = Duration::from_secs(10);
    /// 2 s: time for every name server of resolv.conf in turn.
    pub const DNS_TIMEOUT: Duration = Duration::from_secs(2);
    /// 300 ms: far above a cluster's answer times, far below the DNS deadline.
    pub const DNS_HEDGE: Duration = Duration::from_millis(300);
    /// 5 s: traffic finds a failure sooner, the probe finds it without traffic.
    pub const PROBE_INTERVAL: Duration = Duration::from_secs(5);
    /// 1 s: a probe is one round trip.
    pub const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
    /// 5: fewer can be one client's bad luck.
    pub const OUTLIER_CONSECUTIVE: u32 = 5;
    /// 0.8: one failure in five.
    pub const OUTLIER_SUCCESS_RATE: f64 = 0.80;
    /// 30 s: long enough for a rate to mean something, short enough to forget.
    pub const OUTLIER_WINDOW: Duration = Duration::from_secs(30);
    /// 60 s: twice Kubernetes' default `terminationGracePeriodSeconds`.
    pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
    /// 30 s: Kubernetes' default `terminationGracePeriodSeconds`.
    pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);
    /// 100 ms: how long a statement that nobody waits for any more may still run before it is cancelled. Fixed.
    pub const RECYCLE_QUIET: Duration = Duration::from_millis(100);
    /// 1 s: how long a cancelled statement, and then a rollback, may take before the connection is closed. Fixed.
    pub const RECYCLE_CANCELLED: Duration = Duration::from_secs(1);
    /// 2 s: how long a connection that is closed may take to say goodbye before it is cut. Fixed.
    pub const FAREWELL: Duration = Duration::from_secs(2);
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            acquire_timeout: Self::ACQUIRE_TIMEOUT,
            connect_timeout: Self::CONNECT_TIMEOUT,
            tcp_user_timeout: Self::TCP_USER_TIMEOUT,
            keepalives_idle: Self::KEEPALIVES_IDLE,
            keepalives_interval: Self::KEEPALIVES_INTERVAL,
            keepalives_count: Self::KEEPALIVES_COUNT,
            pool_size: Self::POOL_SIZE,
            max_connections: None,
            subset_size: None,
            clients: None,
            statement_cache_size: Self::STATEMENT_CACHE_SIZE,
            reset: Reset::default(),
            min_idle: Self::MIN_IDLE,
            max_lifetime: Self::MAX_LIFETIME,
            idle_timeout: Self::IDLE_TIMEOUT,
            ping_after: Self::PING_AFTER,
            handshakes_per_pod: Self::HANDSHAKES_PER_POD,
            handshakes: Self::HANDSHAKES,
            refresh_min: Self::REFRESH_MIN,
            refresh_max: Self::REFRESH_MAX,
            dns_timeout: Self::DNS_TIMEOUT,
            dns_hedge: Self::DNS_HEDGE,
            probe_interval: Self::PROBE_INTERVAL,
            probe_timeout: Self::PROBE_TIMEOUT,
            outlier_consecutive: Self::OUTLIER_CONSECUTIVE,
            outlier_success_rate: Self::OUTLIER_SUCCESS_RATE,
            outlier_window: Self::OUTLIER_WINDOW,
            max_lag: None,
            max_lag_bytes: None,
            lag_fallback: LagFallback::default(),
            drain_timeout: Self::DRAIN_TIMEOUT,
            close_timeout: Self::CLOSE_TIMEOUT,
        }
    }
}
