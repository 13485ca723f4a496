use std::{fmt, str::FromStr};

use crate::{config::words, error::ConfigError};

/// Whether connections use TLS, and how far the server's certificate is checked: libpq's `sslmode` (PostgreSQL manual,
/// "SSL Support"). The table is [on this page](crate::config::ssl).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum SslMode {
    /// Plain text only.
    Disable,
    /// Plain text, and TLS where the server lets nobody in without.
    Allow,
    /// TLS where the server offers it and it can be agreed on, else plain text. The default, as libpq's.
    #[default]
    Prefer,
    /// TLS, with any certificate; where a file of trusted authorities is given or found, as `verify-ca`.
    Require,
    /// TLS, with a certificate of a trusted authority.
    VerifyCa,
    /// TLS, with a certificate of a trusted authority for the right name.
    VerifyFull,
}

impl SslMode {
    const ALL: [Self; 6] = [Self::Disable, Self::Allow, Self::Prefer, Self::Require, Self::VerifyCa, Self::VerifyFull];
    const WORDS: [&str; 6] = ["disable", "allow", "prefer", "require", "verify-ca", "verify-full"];

    /// The mode as it is written in a URL: `disable`, `prefer`, `verify-full`, and so on.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::WORDS[self as usize]
    }
}

impl FromStr for SslMode {
    type Err = ConfigError;

    fn from_str(word: &str) -> Result<Self, ConfigError> {
        Self::ALL
            .into_iter()
            .find(|mode| mode.as_str() == word)
            .ok_or_else(|| words::unknown("sslmode", &Self::WORDS, word))
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
    fn every_word_leads_back_to_its_mode() {
        for mode in SslMode::ALL {
            assert_eq!(mode.to_string().parse::<SslMode>().unwrap(), mode);
        }
        assert_eq!(SslMode::default(), SslMode::Prefer);
    }

    #[test]
    fn an_unknown_word_is_told_the_nearest() {
        let error = "verify_full".parse::<SslMode>().unwrap_err();
        assert_eq!(error.parameter(), "sslmode");
        assert!(error.expected().ends_with("the nearest is `verify-full`"), "{error}");
    }
}
