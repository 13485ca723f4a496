use std::{fmt, str::FromStr};

use crate::{config::words, error::ConfigError};

/// Whether authentication is tied to the TLS session it happens in, so that nobody can pass it on: libpq's
/// `channel_binding`.
///
/// It works with SCRAM passwords over TLS: SCRAM-SHA-256-PLUS with `tls-server-end-point` (RFC 5929), for certificates
/// that are signed with RSA or ECDSA. A certificate that is signed with Ed25519 has no such binding.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ChannelBinding {
    /// Never.
    Disable,
    /// Where the server offers it. The default, as libpq's.
    #[default]
    Prefer,
    /// Always: a server that authenticates in any other way, or not at all, is refused.
    Require,
}

impl ChannelBinding {
    const ALL: [Self; 3] = [Self::Disable, Self::Prefer, Self::Require];
    const WORDS: [&str; 3] = ["disable", "prefer", "require"];

    /// The word as it is written in a URL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::WORDS[self as usize]
    }
}

impl FromStr for ChannelBinding {
    type Err = ConfigError;

    fn from_str(word: &str) -> Result<Self, ConfigError> {
        let found = Self::ALL.into_iter().find(|binding| binding.as_str() == word);
        found.ok_or_else(|| words::unknown("channel_binding", &Self::WORDS, word))
    }
}

impl fmt::Display for ChannelBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
