use std::time::Duration;

use super::{AbsentPods, LagFallback, Limits, Reset};

impl Limits {
    /// 5 s, because users rarely wait longer for a web page.
    pub const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
    /// 2 s: shorter than the acquire timeout, so that time is left to try another Pod.
    pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
    /// 3 s: enough time for about four TCP retransmissions at the round-trip times within a cluster.
    pub const TCP_USER_TIMEOUT: Duration = Duration::from_secs(3);
    /// 5 s: with three keepalives, one second apart, an unresponsive peer is detected within 8 s.
    pub const KEEPALIVES_IDLE: Duration = Duration::from_secs(5);
    /// 1 s: see [`KEEPALIVES_IDLE`](Self::KEEPALIVES_IDLE).
    pub const KEEPALIVES_INTERVAL: Duration = Duration::from_secs(1);
    /// 3: see [`KEEPALIVES_IDLE`](Self::KEEPALIVES_IDLE).
    pub const KEEPALIVES_COUNT: u32 = 3;
    /// 8, so that about a dozen clients fit into PostgreSQL's default `max_connections` of 100.
    pub const POOL_SIZE: usize = 8;
    /// 256, like pgJDBC's default for `preparedStatementCacheQueries`.
    pub const STATEMENT_CACHE_SIZE: usize = 256;
    /// 1: the server executes the statements of one connection without a pause between them, so a second connection
    /// gains only what a second processor of the server can execute.
    pub const SHARED_CONNECTIONS: usize = 1;
    /// 32: enough that the server never waits for the next statement, and few enough that a slow statement delays only
    /// these.
    pub const SHARED_DEPTH: usize = 32;
    /// 1, so that the first request after an idle period does not wait for a handshake.
    pub const MIN_IDLE: usize = 1;
    /// 30 min, because the caches of a server process grow until its connection is closed.
    pub const MAX_LIFETIME: Duration = Duration::from_secs(30 * 60);
    /// 10 min: longer than typical gaps in daytime traffic.
    pub const IDLE_TIMEOUT: Duration = Duration::from_secs(10 * 60);
    /// 1 s: a busy pool sends no pings, and a mostly idle one rarely checks out a dead connection.
    pub const PING_AFTER: Duration = Duration::from_secs(1);
    /// 2, so that a restarted Pod is not overloaded by concurrent handshakes.
    pub const HANDSHAKES_PER_POD: usize = 2;
    /// 32: each handshake takes a few milliseconds of CPU time, so the load stays low. With two handshakes per Pod,
    /// even fifteen unresponsive Pods that are not yet ejected leave two handshakes for the other Pods.
    pub const HANDSHAKES: usize = 32;
    /// 1 s, so that a TTL of zero does not cause a flood of queries.
    pub const REFRESH_MIN: Duration = Duration::from_secs(1);
    /// 10 s, so that a new Pod is discovered within seconds even if the TTL is long.
    pub const REFRESH_MAX: Duration = Duration::from_secs(10);
    /// 2 s: enough time to try each name server in resolv.conf.
    pub const DNS_TIMEOUT: Duration = Duration::from_secs(2);
    /// 300 ms: far above the response time of a cluster's name servers and far below the DNS timeout.
    pub const DNS_HEDGE: Duration = Duration::from_millis(300);
    /// 5 s, because traffic reveals failures sooner, and probes are needed only for Pods without traffic.
    pub const PROBE_INTERVAL: Duration = Duration::from_secs(5);
    /// 1 s: far longer than a probe of a healthy Pod takes, which is one round trip.
    pub const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
    /// 5, because fewer consecutive failures may be a coincidence.
    pub const OUTLIER_CONSECUTIVE: u32 = 5;
    /// 0.8: tolerates one failure in five statements.
    pub const OUTLIER_SUCCESS_RATE: f64 = 0.80;
    /// 30 s: long enough for a meaningful success rate, and short enough that the rate soon reflects a recovery.
    pub const OUTLIER_WINDOW: Duration = Duration::from_secs(30);
    /// 30 s: longer than most failures of a readiness probe, and Kubernetes' default `terminationGracePeriodSeconds`.
    pub const DETACH_LINGER: Duration = Duration::from_secs(30);
    /// 60 s: twice Kubernetes' default `terminationGracePeriodSeconds`.
    pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(60);
    /// 30 s: Kubernetes' default `terminationGracePeriodSeconds`.
    pub const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);
    /// 100 ms: time in which an abandoned statement may finish before it is canceled. Not configurable.
    pub const RECYCLE_GRACE: Duration = Duration::from_millis(100);
    /// 1 s: time limit for each later recycling step (end of the canceled statement, rollback, reset). A connection
    /// that exceeds it is closed. Not configurable.
    pub const RECYCLE_TIMEOUT: Duration = Duration::from_secs(1);
    /// 2 s: time limit for closing a connection gracefully (Terminate message and socket shutdown) before its socket is
    /// dropped. Not configurable.
    pub const TERMINATE_TIMEOUT: Duration = Duration::from_secs(2);
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
            shared_connections: Self::SHARED_CONNECTIONS,
            shared_depth: Self::SHARED_DEPTH,
            shared_slow: None,
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
            absent_pods: AbsentPods::default(),
            detach_linger: Self::DETACH_LINGER,
            drain_timeout: Self::DRAIN_TIMEOUT,
            close_timeout: Self::CLOSE_TIMEOUT,
        }
    }
}
