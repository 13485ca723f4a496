use std::fmt;

/// Where on the way to a usable connection a Pod failed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Phase {
    /// Getting the password: from a file, or from a provider.
    Credentials,
    /// Opening the TCP connection.
    Tcp,
    /// The TLS handshake.
    Tls,
    /// Start-up and authentication.
    Startup,
    /// Waiting for a connection to become free.
    Wait,
    /// The check of a connection that had been idle.
    Ping,
    /// The health probe.
    Probe,
    /// A statement.
    Query,
}

impl Phase {
    /// Every phase, in the order of the declaration.
    #[cfg(any(feature = "metrics", test))]
    pub(crate) const ALL: [Self; 8] =
        [Self::Credentials, Self::Tcp, Self::Tls, Self::Startup, Self::Wait, Self::Ping, Self::Probe, Self::Query];

    /// The phase in lower case.
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
