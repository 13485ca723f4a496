//! Maps rustls's errors to [`TlsError`].

use std::error;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use crate::error::{TlsError, TlsReason};

/// Returns the [`TlsError`] for an error of rustls, or `None` if the error does not come from rustls.
pub(crate) fn to_tls_error(error: &(dyn error::Error + 'static)) -> Option<TlsError> {
    let error = error.downcast_ref::<Error>()?;
    let (reason, message) = explain(error);
    Some(TlsError::new(reason, message).with_source(error.clone()))
}

fn explain(error: &Error) -> (TlsReason, &'static str) {
    match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::NoCertificatesPresented => (TlsReason::BadCertificate, "the server presented no certificate"),
        Error::PeerIncompatible(
            PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
            | PeerIncompatible::Tls12NotOffered,
        )
        | Error::AlertReceived(AlertDescription::ProtocolVersion) => (
            TlsReason::Protocol,
            "the server supports no TLS version that `ssl_min_protocol_version` and `ssl_max_protocol_version` allow \
             (by default TLS 1.2 and 1.3)",
        ),
        Error::InvalidCertRevocationList(_) => {
            (TlsReason::UnknownRevocation, "a certificate revocation list (`sslcrl`, `sslcrldir`) is invalid")
        }
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerIncompatible(_)
        | Error::PeerMisbehaved(_)
        | Error::PeerSentOversizedRecord
        | Error::NoApplicationProtocol
        | Error::DecryptError => (TlsReason::Protocol, "the server sent invalid or unsupported TLS messages"),
        Error::AlertReceived(alert) => self::alert(*alert),
        _ => (TlsReason::Other, "the TLS handshake failed"),
    }
}

fn certificate(error: &CertificateError) -> (TlsReason, &'static str) {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            (TlsReason::Expired, "the server's certificate has expired")
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            (TlsReason::NotYetValid, "the server's certificate is not valid yet")
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            (TlsReason::WrongName, "the server's certificate is not valid for the expected name")
        }
        // A bad signature results from an untrusted authority that has the same name as a trusted one.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            (TlsReason::UnknownAuthority, "the server's certificate is not signed by a trusted authority")
        }
        CertificateError::Revoked => (
            TlsReason::Revoked,
            "the server's certificate, or another one in its chain, is revoked by a list in `sslcrl` or `sslcrldir`",
        ),
        CertificateError::UnknownRevocationStatus => (
            TlsReason::UnknownRevocation,
            "`sslcrl` and `sslcrldir` contain no list of an authority that signed the server's certificate",
        ),
        CertificateError::ExpiredRevocationList | CertificateError::ExpiredRevocationListContext { .. } => {
            (TlsReason::UnknownRevocation, "the certificate revocation list in `sslcrl` or `sslcrldir` has expired")
        }
        _ => (TlsReason::BadCertificate, "the server's certificate is invalid"),
    }
}

fn alert(alert: AlertDescription) -> (TlsReason, &'static str) {
    match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            (TlsReason::Refused, "the server requires a client certificate, but `sslcert` is not set")
        }
        AlertDescription::AccessDenied
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::DecryptError
        | AlertDescription::UnknownCA
        | AlertDescription::UnsupportedCertificate => {
            (TlsReason::Refused, "the server rejected the client certificate")
        }
        _ => (TlsReason::Protocol, "the server aborted the TLS handshake"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::wire::{Class, tls::failure};

    #[test]
    fn finds_tls_errors_inside_io_errors() {
        let deep = io::Error::new(io::ErrorKind::InvalidData, Error::AlertReceived(AlertDescription::UnknownCA));
        let found = failure::find_tls_error(&deep).unwrap();
        assert_eq!(found.reason(), TlsReason::Refused);
        assert_eq!(found.to_string(), "the server rejected the client certificate");
        assert!(error::Error::source(&found).unwrap().to_string().contains("UnknownCA"));
        assert!(failure::find_tls_error(&io::Error::from(io::ErrorKind::ConnectionReset)).is_none());
        assert_eq!(failure::TlsFailure::handshake(deep.into()).class, Class::Tls);
    }

    #[test]
    fn maps_each_error_to_a_reason() {
        for (error, reason) in [
            (CertificateError::Expired, TlsReason::Expired),
            (CertificateError::NotValidYet, TlsReason::NotYetValid),
            (CertificateError::NotValidForName, TlsReason::WrongName),
            (CertificateError::UnknownIssuer, TlsReason::UnknownAuthority),
            (CertificateError::BadSignature, TlsReason::UnknownAuthority),
            (CertificateError::BadEncoding, TlsReason::BadCertificate),
            (CertificateError::InvalidPurpose, TlsReason::BadCertificate),
            (CertificateError::Revoked, TlsReason::Revoked),
            (CertificateError::UnknownRevocationStatus, TlsReason::UnknownRevocation),
            (CertificateError::ExpiredRevocationList, TlsReason::UnknownRevocation),
        ] {
            assert_eq!(explain(&Error::InvalidCertificate(error)).0, reason);
        }
        for (alert, reason) in [
            (AlertDescription::CertificateRequired, TlsReason::Refused),
            (AlertDescription::CertificateExpired, TlsReason::Refused),
            (AlertDescription::ProtocolVersion, TlsReason::Protocol),
        ] {
            assert_eq!(explain(&Error::AlertReceived(alert)).0, reason);
        }
    }
}
