use std::{error, fmt};

use super::BoxError;

/// A failed TLS handshake: the [cause](crate::Attempt::cause) of an [`Attempt`](crate::Attempt) whose phase is
/// [`Phase::Tls`](crate::Phase::Tls).
///
/// ```
/// use podpool::{Error, TlsError, TlsReason};
///
/// /// Returns true if a Pod presented a certificate for another name.
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

/// The reason for a [`TlsError`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum TlsReason {
    /// The server's certificate is invalid for a reason not listed here, such as its encoding, version or purpose.
    BadCertificate,
    /// The server's certificate, or another certificate in its chain, has expired.
    Expired,
    /// The server does not offer TLS.
    NotOffered,
    /// The server did not request a client certificate, which `sslcertmode=require` demands.
    NotRequested,
    /// The server's certificate, or another certificate in its chain, is not valid yet.
    NotYetValid,
    /// Any other failure, which the source describes.
    Other,
    /// The client and the server have no TLS version, cipher suite or ALPN protocol in common, or the server's response
    /// is not TLS.
    Protocol,
    /// The server ended the handshake with an alert: it requires a client certificate, or rejected the one it received.
    Refused,
    /// The server's certificate, or another certificate in its chain, is on a certificate revocation list in `sslcrl`
    /// or `sslcrldir`.
    Revoked,
    /// The server's certificate is not signed by a trusted authority.
    UnknownAuthority,
    /// The server's certificate may be revoked: `sslcrl` and `sslcrldir` contain no valid, current list of an authority
    /// that signed it.
    UnknownRevocation,
    /// The server's certificate is for a different name.
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

    /// Returns the reason for the failure.
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
    /// Returns the reason in snake case, such as `wrong_name`. The names are stable.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BadCertificate => "bad_certificate",
            Self::Expired => "expired",
            Self::NotOffered => "not_offered",
            Self::NotRequested => "not_requested",
            Self::NotYetValid => "not_yet_valid",
            Self::Other => "other",
            Self::Protocol => "protocol",
            Self::Refused => "refused",
            Self::Revoked => "revoked",
            Self::UnknownRevocation => "unknown_revocation",
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
