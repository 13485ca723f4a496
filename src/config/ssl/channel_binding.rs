use std::{fmt, str::FromStr};

use crate::{config::message, error::ConfigError};

/// The use of channel binding: libpq's `channel_binding`. Channel binding ties the authentication to its TLS session,
/// so that an attacker cannot relay the authentication to another server.
///
/// Channel binding requires SCRAM authentication over TLS: SCRAM-SHA-256-PLUS with `tls-server-end-point` (RFC 5929).
/// The server's certificate must be signed with RSA or ECDSA, because the binding is not defined for Ed25519.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ChannelBinding {
    /// Channel binding is not used.
    Disable,
    /// Channel binding is used if the server offers it. The default, as in libpq.
    #[default]
    Prefer,
    /// Channel binding is required. A server that uses any other authentication, or none, is rejected.
    Require,
}

impl ChannelBinding {
    const ALL: [Self; 3] = [Self::Disable, Self::Prefer, Self::Require];
    const KEYWORDS: [&str; 3] = ["disable", "prefer", "require"];

    /// Returns the keyword used in a URL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::KEYWORDS[self as usize]
    }
}

impl FromStr for ChannelBinding {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let found = Self::ALL.into_iter().find(|binding| binding.as_str() == text);
        found.ok_or_else(|| message::unknown_keyword("channel_binding", &Self::KEYWORDS, text))
    }
}

impl fmt::Display for ChannelBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
