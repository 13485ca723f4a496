use std::fmt;

/// The phase of opening or using a connection in which an attempt failed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Phase {
    /// Reading the password from a file or from a provider.
    Credentials,
    /// Opening the TCP connection.
    Tcp,
    /// The TLS handshake.
    Tls,
    /// PostgreSQL's startup message and authentication.
    Startup,
    /// The hook [`after_connect`](crate::Builder::after_connect).
    AfterConnect,
    /// Waiting for a free connection.
    Wait,
    /// The ping before a checkout, which is sent if the connection was idle for longer than `ping_after`, or if its
    /// server's last known role does not fit the target.
    Ping,
    /// The hook [`before_checkout`](crate::Builder::before_checkout).
    BeforeCheckout,
    /// A health probe.
    Probe,
    /// Executing a statement.
    Query,
    /// The hook [`after_checkin`](crate::Builder::after_checkin).
    AfterCheckin,
}

impl Phase {
    /// Every phase, in declaration order.
    #[cfg(any(feature = "_metrics", test))]
    pub(crate) const ALL: [Self; 11] = [
        Self::Credentials,
        Self::Tcp,
        Self::Tls,
        Self::Startup,
        Self::AfterConnect,
        Self::Wait,
        Self::Ping,
        Self::BeforeCheckout,
        Self::Probe,
        Self::Query,
        Self::AfterCheckin,
    ];

    /// Returns the phase in snake case.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Credentials => "credentials",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Startup => "startup",
            Self::AfterConnect => "after_connect",
            Self::Wait => "wait",
            Self::Ping => "ping",
            Self::BeforeCheckout => "before_checkout",
            Self::Probe => "probe",
            Self::Query => "query",
            Self::AfterCheckin => "after_checkin",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
