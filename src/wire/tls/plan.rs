//! Derives from `sslmode` the TLS modes that a dial attempts.

use crate::config::SslMode;

/// The use of TLS in one attempt.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Encryption {
    /// Plain text.
    Plain,
    /// TLS if the server offers TLS, and plain text if it does not.
    Offered,
    /// TLS. The attempt fails if the server does not offer TLS.
    Required,
}

/// The TLS mode of the first attempt, and the mode of the retry if the first attempt fails because of its TLS mode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Plan {
    pub(crate) first: Encryption,
    pub(crate) fallback: Option<Encryption>,
}

impl Plan {
    /// Plain text only.
    pub(super) const PLAIN: Self = Self { first: Encryption::Plain, fallback: None };

    /// Returns the plan that libpq follows (PostgreSQL manual, "SSL Support"). `available` is true if there is a TLS
    /// connector.
    pub(super) fn new(mode: SslMode, available: bool) -> Self {
        use Encryption::{Offered, Plain, Required};
        let (first, fallback) = match mode {
            SslMode::Disable => (Plain, None),
            SslMode::Allow | SslMode::Prefer if !available => (Plain, None),
            SslMode::Allow => (Plain, Some(Required)),
            SslMode::Prefer => (Offered, Some(Plain)),
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Required, None),
        };
        Self { first, fallback }
    }
}

#[cfg(test)]
mod tests {
    use super::{Encryption::*, *};

    #[test]
    fn only_allow_and_prefer_try_both_tls_and_plain_text() {
        for (mode, first, fallback) in [
            (SslMode::Disable, Plain, None),
            (SslMode::Allow, Plain, Some(Required)),
            (SslMode::Prefer, Offered, Some(Plain)),
            (SslMode::Require, Required, None),
            (SslMode::VerifyCa, Required, None),
            (SslMode::VerifyFull, Required, None),
        ] {
            assert_eq!(Plan::new(mode, true), Plan { first, fallback }, "{mode}");
        }
        assert_eq!(Plan::new(SslMode::Prefer, false), Plan { first: Plain, fallback: None });
        // The builder rejects `verify-full` without a TLS connector. Even if it did not, the dial would fail instead of
        // using plain text.
        assert_eq!(Plan::new(SslMode::VerifyFull, false).first, Required);
    }
}
