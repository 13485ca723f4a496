use std::{fmt, str::FromStr};

use crate::{config::words, error::ConfigError};

/// How a connection gets to TLS: libpq's `sslnegotiation`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum SslNegotiation {
    /// The handshake begins at once, with ALPN's `postgresql`: one round trip less. PostgreSQL 17 and newer; with
    /// `sslmode=require` and stricter.
    Direct,
    /// The server is asked for TLS in PostgreSQL's protocol first (SSLRequest). The default, as libpq's.
    #[default]
    Postgres,
}

impl SslNegotiation {
    const ALL: [Self; 2] = [Self::Direct, Self::Postgres];
    const WORDS: [&str; 2] = ["direct", "postgres"];

    /// The word as it is written in a URL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::WORDS[self as usize]
    }
}

impl FromStr for SslNegotiation {
    type Err = ConfigError;

    fn from_str(word: &str) -> Result<Self, ConfigError> {
        let found = Self::ALL.into_iter().find(|negotiation| negotiation.as_str() == word);
        found.ok_or_else(|| words::unknown("sslnegotiation", &Self::WORDS, word))
    }
}

impl fmt::Display for SslNegotiation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
