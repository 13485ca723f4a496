use std::{fmt, str::FromStr};

use crate::{config::message, error::ConfigError};

/// The way in which TLS is started on a new connection: libpq's `sslnegotiation`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum SslNegotiation {
    /// The client begins the TLS handshake immediately, with the ALPN protocol `postgresql`. This saves one round trip.
    /// Requires PostgreSQL 17 or newer and `sslmode=require` or stricter.
    Direct,
    /// The client first sends PostgreSQL's SSLRequest message. The default, as in libpq.
    #[default]
    Postgres,
}

impl SslNegotiation {
    const ALL: [Self; 2] = [Self::Direct, Self::Postgres];
    const KEYWORDS: [&str; 2] = ["direct", "postgres"];

    /// Returns the keyword used in a URL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::KEYWORDS[self as usize]
    }
}

impl FromStr for SslNegotiation {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let found = Self::ALL.into_iter().find(|negotiation| negotiation.as_str() == text);
        found.ok_or_else(|| message::unknown_keyword("sslnegotiation", &Self::KEYWORDS, text))
    }
}

impl fmt::Display for SslNegotiation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
