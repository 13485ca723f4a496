use std::fmt;

/// The category of an [`Error`](crate::Error).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// The server rejected the login (SQLSTATE class 28) or requested an authentication method that is not allowed, or
    /// no credentials were available.
    Auth,
    /// A parameter is missing, unknown, out of range or in conflict with another.
    Config,
    /// No connection to any Pod could be opened.
    Connect,
    /// No connection to any Pod was opened until the deadline, and no attempt has failed: connections or the first
    /// health probes of the Pods are still being opened. A later call may succeed.
    Connecting,
    /// The Service name has not been resolved, so no Pod is known.
    Dns,
    /// No Pod can serve the requested target: the Service has no Pods, or none of them has a suitable role and
    /// acceptable replication lag.
    NoEndpoints,
    /// The statement cannot run on a connection that several callers [share](crate::Pool::shared). Nothing was sent.
    NotShareable,
    /// Any other failure, which the source describes.
    Other,
    /// Every connection to the matching Pods was in use until the deadline, or `max_connections` permitted no more.
    PoolTimeout,
    /// The statement failed, or its connection was lost.
    Query,
    /// The pool is closed.
    Shutdown,
    /// The work of a call did not end before the call's [deadline](crate::Checkout::deadline), or the server did not
    /// respond in time, for example to a cancel request. A checkout that times out has a more specific kind.
    Timeout,
    /// The TLS handshake failed, or the server's certificate was rejected.
    Tls,
}

impl Kind {
    /// Returns the kind in snake case, such as `no_endpoints` or `pool_timeout`. The names are stable.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Config => "config",
            Self::Connect => "connect",
            Self::Connecting => "connecting",
            Self::Dns => "dns",
            Self::NoEndpoints => "no_endpoints",
            Self::NotShareable => "not_shareable",
            Self::Other => "other",
            Self::PoolTimeout => "pool_timeout",
            Self::Query => "query",
            Self::Shutdown => "shutdown",
            Self::Timeout => "timeout",
            Self::Tls => "tls",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
