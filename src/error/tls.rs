use std::{error, fmt};

use super::BoxError;

/// Why a Pod was not connected to over TLS: the [cause](crate::Attempt::cause) of an [`Attempt`](crate::Attempt) whose
/// phase is [`Phase::Tls`](crate::Phase::Tls).
///
/// ```
/// use podpool::{Error, TlsError, TlsReason};
///
/// /// Whether a Pod has shown a certificate for another name.
/// fn has_wrong_name(error: &Error) -> bool {
///     let causes = error.attempts().iter().filter_map(|attempt| attempt.cause());
///     causes.filter_map(|cause| cause.downcast_ref::<TlsError>()).any(|tls| tls.reason() == TlsReason::WrongName)
/// }
/// ```
#[derive(Debug)]
pub struct TlsError {
    reason: TlsReason,
    message: String,
    source: Option<BoxError>,
}

/// What sort of trouble a [`TlsError`] is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum TlsReason {
    /// The server's certificate cannot be used for another reason: its encoding, its version, its purpose.
    BadCertificate,
    /// The server's certificate has expired, or one that it depends on.
    Expired,
    /// The server does not offer TLS.
    NotOffered,
    /// The server's certificate is not valid yet, or one that it depends on.
    NotYetValid,
    /// Something else; see the source.
    Other,
    /// The two sides do not speak the same: no common version or cipher, no TLS at all, or no agreement on the protocol
    /// in it.
    Protocol,
    /// The server ended the handshake with an alert about our certificate: it wants one, or refuses the one it got.
    Refused,
    /// The server's certificate leads to none of the authorities that are trusted.
    UnknownAuthority,
    /// The server's certificate is for another name.
    WrongName,
}

impl TlsError {
    pub(crate) fn new(reason: TlsReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), source: None }
    }

    pub(crate) fn with_source(mut self, source: impl Into<BoxError>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What sort of trouble it is.
    #[must_use]
    pub fn reason(&self) -> TlsReason {
        self.reason
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl error::Error for TlsError {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

impl TlsReason {
    /// The reason in lower case with underscores: `wrong_name`, and so on. Stable.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadCertificate => "bad_certificate",
            Self::Expired => "expired",
            Self::NotOffered => "not_offered",
            Self::NotYetValid => "not_yet_valid",
            Self::Other => "other",
            Self::Protocol => "protocol",
            Self::Refused => "refused",
            Self::UnknownAuthority => "unknown_authority",
            Self::WrongName => "wrong_name",
        }
    }
}

impl fmt::Display for TlsReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
