use std::fmt;

/// A phase of opening or using a connection, in which an attempt can fail.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Phase {
    /// Reading the password from a file or from a provider.
    Credentials,
    /// Opening the TCP connection.
    Tcp,
    /// The TLS handshake.
    Tls,
    /// PostgreSQL start-up and authentication.
    Startup,
    /// Waiting for a connection.
    Wait,
    /// The ping of an idle connection before it is checked out.
    Ping,
    /// A health probe.
    Probe,
    /// A statement.
    Query,
}

impl Phase {
    /// Every phase, in declaration order.
    #[cfg(any(feature = "metrics", test))]
    pub(crate) const ALL: [Self; 8] =
        [Self::Credentials, Self::Tcp, Self::Tls, Self::Startup, Self::Wait, Self::Ping, Self::Probe, Self::Query];

    /// Returns the phase in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Startup => "startup",
            Self::Wait => "wait",
            Self::Ping => "ping",
            Self::Probe => "probe",
            Self::Query => "query",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
