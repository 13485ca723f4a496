//! rustls's errors in our words.

use std::error;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

use crate::error::{TlsError, TlsReason};

/// What rustls says, if this is an error of it.
pub(crate) fn told(error: &(dyn error::Error + 'static)) -> Option<TlsError> {
    let error = error.downcast_ref::<Error>()?;
    let (reason, message) = explain(error);
    Some(TlsError::new(reason, message).with_source(error.clone()))
}

fn explain(error: &Error) -> (TlsReason, &'static str) {
    match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::AlertReceived(alert) => alerted(*alert),
        Error::NoCertificatesPresented => (TlsReason::BadCertificate, "the server showed no certificate"),
        Error::InvalidMessage(_)
        | Error::InappropriateMessage { .. }
        | Error::InappropriateHandshakeMessage { .. }
        | Error::PeerIncompatible(_)
        | Error::PeerMisbehaved(_)
        | Error::PeerSentOversizedRecord
        | Error::NoApplicationProtocol
        | Error::DecryptError => (TlsReason::Protocol, "the server does not speak TLS as we do"),
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
            (TlsReason::WrongName, "the server's certificate is for another name")
        }
        // Another authority of the same name shows as a bad signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            (TlsReason::UnknownAuthority, "the server's certificate is not of an authority that is trusted")
        }
        _ => (TlsReason::BadCertificate, "the server's certificate cannot be used"),
    }
}

fn alerted(alert: AlertDescription) -> (TlsReason, &'static str) {
    match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            (TlsReason::Refused, "the server wants a client certificate, and `sslcert` names none")
        }
        AlertDescription::AccessDenied
        | AlertDescription::BadCertificate
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::DecryptError
        | AlertDescription::UnknownCA
        | AlertDescription::UnsupportedCertificate => (TlsReason::Refused, "the server refused our certificate"),
        _ => (TlsReason::Protocol, "the server ended the TLS handshake"),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::wire::{Class, tls::failure};

    #[test]
    fn is_found_where_io_errors_carry_it_and_keeps_its_words() {
        let deep = io::Error::new(io::ErrorKind::InvalidData, Error::AlertReceived(AlertDescription::UnknownCA));
        let found = failure::told(&deep).unwrap();
        assert_eq!(found.reason(), TlsReason::Refused);
        assert_eq!(found.to_string(), "the server refused our certificate");
        assert!(error::Error::source(&found).unwrap().to_string().contains("UnknownCA"));
        assert!(failure::told(&io::Error::from(io::ErrorKind::ConnectionReset)).is_none());
        assert_eq!(failure::TlsFailure::handshake(deep.into()).class, Class::Tls);
    }

    #[test]
    fn each_refusal_has_its_reason() {
        for (error, reason) in [
            (CertificateError::Expired, TlsReason::Expired),
            (CertificateError::NotValidYet, TlsReason::NotYetValid),
            (CertificateError::NotValidForName, TlsReason::WrongName),
            (CertificateError::UnknownIssuer, TlsReason::UnknownAuthority),
            (CertificateError::BadSignature, TlsReason::UnknownAuthority),
            (CertificateError::BadEncoding, TlsReason::BadCertificate),
            (CertificateError::InvalidPurpose, TlsReason::BadCertificate),
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
