use crate::config::SslMode;

/// What one try does about TLS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Encryption {
    /// Plain text.
    Plain,
    /// TLS if the server has it, else plain text.
    Offered,
    /// TLS.
    Required,
}

/// What is tried, and what then if TLS or the lack of it was the trouble.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Plan {
    pub(crate) first: Encryption,
    pub(crate) then: Option<Encryption>,
}

impl Plan {
    /// libpq's (PostgreSQL manual, "SSL Support").
    pub(super) fn new(mode: SslMode, available: bool) -> Self {
        use Encryption::{Offered, Plain, Required};
        let (first, then) = match mode {
            SslMode::Disable => (Plain, None),
            SslMode::Allow | SslMode::Prefer if !available => (Plain, None),
            SslMode::Allow => (Plain, Some(Required)),
            SslMode::Prefer => (Offered, Some(Plain)),
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => (Required, None),
        };
        Self { first, then }
    }
}

#[cfg(test)]
mod tests {
    use super::{Encryption::*, *};

    #[test]
    fn nothing_but_allow_and_prefer_ever_speaks_plain_text_beside_tls() {
        for (mode, first, then) in [
            (SslMode::Disable, Plain, None),
            (SslMode::Allow, Plain, Some(Required)),
            (SslMode::Prefer, Offered, Some(Plain)),
            (SslMode::Require, Required, None),
            (SslMode::VerifyCa, Required, None),
            (SslMode::VerifyFull, Required, None),
        ] {
            assert_eq!(Plan::new(mode, true), Plan { first, then }, "{mode}");
        }
        assert_eq!(Plan::new(SslMode::Prefer, false), Plan { first: Plain, then: None });
        // Refused when the pool is built; were it not, it would fail, not speak plain text.
        assert_eq!(Plan::new(SslMode::VerifyFull, false).first, Required);
    }
}
