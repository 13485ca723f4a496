use std::{fmt, str::FromStr};

use crate::{config::message, error::ConfigError};

/// The use of TLS and the verification of the server's certificate: libpq's `sslmode` (PostgreSQL manual, "SSL
/// Support"). The [module](crate::config::ssl) has a table of the modes.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum SslMode {
    /// Plain text only.
    Disable,
    /// Plain text, or TLS if the server rejects plain text.
    Allow,
    /// TLS, or plain text if the server does not support TLS or the handshake fails. The default, as in libpq.
    #[default]
    Prefer,
    /// TLS with any certificate. Works like `verify-ca` if a file of trusted authorities is set or found.
    Require,
    /// TLS with a certificate that is signed by a trusted authority.
    VerifyCa,
    /// TLS with a certificate that is signed by a trusted authority and contains the verified name.
    VerifyFull,
}

impl SslMode {
    const ALL: [Self; 6] = [Self::Disable, Self::Allow, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];
    const KEYWORDS: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

    /// Returns the keyword used in a URL, such as `disable`, `prefer` or `verify-full`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::KEYWORDS[self as usize]
    }
}

impl FromStr for SslMode {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| message::unknown_keyword("sslmode", &Self::KEYWORDS, text))
    }
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mode_parses_its_own_keyword() {
        for mode in SslMode::ALL {
            assert_eq!(mode.to_string().parse::<SslMode>().unwrap(), mode);
        }
        assert_eq!(SslMode::default(), SslMode::Prefer);
    }

    #[test]
    fn suggests_the_closest_keyword() {
        let error = "verify_full".parse::<SslMode>().unwrap_err();
        assert_eq!(error.parameter(), "sslmode");
        assert!(error.problem().ends_with("(closest match: `verify-full`)"), "{error}");
    }
}
