use std::fmt;

/// What sort of trouble an [`Error`](crate::Error) is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// The server refused who we are (SQLSTATE class 28), or there were no credentials to come with.
    Auth,
    /// A setting is missing, unknown, out of range or contradicts another.
    Config,
    /// No Pod could be connected to.
    Connect,
    /// The Service's name has not been resolved.
    Dns,
    /// No Pod can serve what was asked for: none is known, or none has the role.
    NoEndpoints,
    /// Something else; see the source.
    Other,
    /// Fitting Pods are up and every connection to them was in use until the deadline.
    PoolTimeout,
    /// The statement, or the connection under it, failed.
    Query,
    /// The pool is closed.
    Shutdown,
    /// A deadline passed that was not spent waiting for a connection.
    Timeout,
    /// TLS could not be agreed on, or the server's certificate was refused.
    Tls,
}

impl Kind {
    /// The kind in lower case with underscores: `no_endpoints`, `pool_timeout`, and so on. Stable.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Config => "config",
            Self::Connect => "connect",
            Self::Dns => "dns",
            Self::NoEndpoints => "no_endpoints",
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
