use std::{fmt, str::FromStr};

use crate::{config::message, error::ConfigError};

/// The use of the client certificate: libpq's `sslcertmode`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum SslCertMode {
    /// The client certificate is sent if the server requests one and a certificate is configured or found. The default,
    /// as in libpq.
    #[default]
    Allow,
    /// No client certificate is sent, even if one is configured or found. Its files are not read.
    Disable,
    /// The server must request a client certificate; otherwise, the connection fails. Requires `sslmode=require` or
    /// stricter, and a certificate.
    Require,
}

impl SslCertMode {
    const ALL: [Self; 3] = [Self::Allow, Self::Disable, Self::Require];
    const KEYWORDS: [&str; 3] = ["allow", "disable", "require"];

    /// Returns the keyword used in a URL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::KEYWORDS[self as usize]
    }
}

impl FromStr for SslCertMode {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let found = Self::ALL.into_iter().find(|mode| mode.as_str() == text);
        found.ok_or_else(|| message::unknown_keyword("sslcertmode", &Self::KEYWORDS, text))
    }
}

impl fmt::Display for SslCertMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
