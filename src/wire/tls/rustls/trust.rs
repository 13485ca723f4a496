//! Verifies server certificates, to the extent that `sslmode` requires.

use std::sync::Arc;

use tokio_rustls::rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};
use x509_cert::{Certificate, der::Decode};

/// The trusted authorities.
#[derive(Debug)]
pub(super) struct Roots {
    store: Arc<RootCertStore>,
    /// The certificates of the trusted authorities, for servers that present such a certificate as their own.
    certificates: Vec<CertificateDer<'static>>,
}

impl Roots {
    pub(super) fn new(certificates: Vec<CertificateDer<'static>>) -> Result<Self, Error> {
        let mut store = RootCertStore::empty();
        for certificate in &certificates {
            store.add(certificate.clone())?;
        }
        Ok(Self { store: store.into(), certificates })
    }

    /// Creates a store and skips certificates that cannot be parsed, because a system trust store may contain some.
    pub(super) fn parsable(certificates: Vec<CertificateDer<'static>>) -> Self {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(certificates.iter().cloned());
        Self { store: store.into(), certificates }
    }

    pub(super) fn store(&self) -> Arc<RootCertStore> {
        self.store.clone()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.store.is_empty()
    }
}

/// A verifier of server certificates.
#[derive(Debug)]
pub(super) struct Verifier {
    /// The trusted authorities; `None` if certificates are not verified.
    pub(super) roots: Option<Arc<Roots>>,
    /// Verifies the chain and checks the revocation of its certificates; `None` without certificate revocation lists.
    pub(super) revocation: Option<Arc<WebPkiServerVerifier>>,
    /// True if the verification includes the server's name.
    pub(super) verify_name: bool,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(roots) = &self.roots else { return Ok(ServerCertVerified::assertion()) };
        let parsed = ParsedCertificate::try_from(end_entity)?;
        if roots.certificates.iter().any(|root| root.as_ref() == end_entity.as_ref()) {
            // The server's own certificate is configured as a trusted authority, so its signature is not verified.
            // libpq accepts such a certificate. The regular verification would reject it if it has the CA flag, which
            // `openssl req -x509` sets.
            check_validity(end_entity, now)?;
        } else {
            let signed = match &self.revocation {
                // This verifier checks the name last, so the chain and its revocation are valid if only the name is
                // wrong. Whether the name matters is decided below.
                Some(verifier) => match verifier.verify_server_cert(end_entity, intermediates, server_name, &[], now) {
                    Ok(_)
                    | Err(Error::InvalidCertificate(
                        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
                    )) => Ok(()),
                    Err(error) => Err(error),
                },
                None => {
                    let algorithms = self.algorithms.all;
                    verify_server_cert_signed_by_trust_anchor(&parsed, &roots.store, intermediates, now, algorithms)
                }
            };
            // An unknown self-signed certificate is reported as having an unknown issuer, even if it has other faults
            // too.
            signed.map_err(
                |error| if is_self_issued(end_entity) { CertificateError::UnknownIssuer.into() } else { error },
            )?;
        }
        if self.verify_name {
            verify_server_name(&parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Returns true if the certificate contains this name or IP address.
pub(super) fn is_for(certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
    ParsedCertificate::try_from(certificate).is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
}

fn is_self_issued(certificate: &CertificateDer<'_>) -> bool {
    let parsed = Certificate::from_der(certificate);
    parsed.is_ok_and(|parsed| parsed.tbs_certificate().issuer() == parsed.tbs_certificate().subject())
}

fn check_validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let certificate = Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding)?;
    let validity = certificate.tbs_certificate().validity();
    let [not_before, not_after] =
        [validity.not_before, validity.not_after].map(|time| UnixTime::since_unix_epoch(time.to_unix_duration()));
    if now < not_before {
        return Err(CertificateError::NotValidYetContext { time: now, not_before }.into());
    }
    if now > not_after {
        return Err(CertificateError::ExpiredContext { time: now, not_after }.into());
    }
    Ok(())
}
