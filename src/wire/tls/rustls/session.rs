//! The stream of a rustls session, its properties, and its channel binding.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::ChannelBinding;
use tokio_rustls::{
    client::TlsStream,
    rustls::{ProtocolVersion, pki_types::CertificateDer},
};
use x509_cert::{
    Certificate,
    der::{
        Decode, SliceReader, TagNumber,
        asn1::ContextSpecific,
        oid::{ObjectIdentifier, db::rfc5912},
    },
    spki::AlgorithmIdentifierRef,
};

use crate::{
    system::TcpStream,
    wire::tls::{io::Io, session::TlsSession},
};

/// A TLS session.
pub(super) struct Session {
    pub(super) stream: TlsStream<TcpStream>,
    /// True if the server's certificate was verified. Includes the name, except with `verify-ca`.
    pub(super) verified: bool,
}

impl Session {
    /// Returns the server's certificate in DER.
    pub(super) fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.stream.get_ref().1.peer_certificates().and_then(<[_]>::first)
    }
}

impl Io for Session {
    fn tls(&self) -> Option<TlsSession> {
        let connection = self.stream.get_ref().1;
        // The names are those of `pg_stat_ssl`.
        let version = connection.protocol_version().and_then(|version| match version {
            ProtocolVersion::TLSv1_2 => Some("TLSv1.2"),
            ProtocolVersion::TLSv1_3 => Some("TLSv1.3"),
            _ => None,
        });
        let cipher = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        let fingerprint = self.certificate().map(|certificate| Sha256::digest(certificate).into());
        Some(TlsSession { verified: self.verified, version, cipher, fingerprint })
    }

    fn channel_binding(&self) -> ChannelBinding {
        match self.certificate().and_then(|certificate| server_end_point(certificate)) {
            Some(hash) => ChannelBinding::tls_server_end_point(hash),
            None => ChannelBinding::none(),
        }
    }
}

impl AsyncRead for Session {
    #[inline]
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Session {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Returns the channel binding `tls-server-end-point` (RFC 5929, section 4.1): the server's certificate, hashed with
/// the hash function of its signature, or with SHA-256 in place of MD5 and SHA-1. For RSASSA-PSS, this is the hash
/// function in the parameters, as in OpenSSL's `X509_get_signature_info`, which PostgreSQL calls. Returns `None` for
/// signatures without a separate hash function, such as Ed25519.
fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    let algorithm = parsed.signature_algorithm();
    let oid = match algorithm.oid {
        rfc5912::ID_RSASSA_PSS => pss_hash(algorithm.parameters.as_ref()?.value())?,
        oid => oid,
    };
    match oid {
        rfc5912::MD_5_WITH_RSA_ENCRYPTION
        | rfc5912::SHA_1_WITH_RSA_ENCRYPTION
        | ECDSA_WITH_SHA_1
        | rfc5912::ID_SHA_1
        | rfc5912::ID_SHA_256
        | rfc5912::SHA_256_WITH_RSA_ENCRYPTION
        | rfc5912::ECDSA_WITH_SHA_256 => Some(Sha256::digest(certificate).to_vec()),
        rfc5912::SHA_224_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_224 | rfc5912::ID_SHA_224 => {
            Some(Sha224::digest(certificate).to_vec())
        }
        rfc5912::SHA_384_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_384 | rfc5912::ID_SHA_384 => {
            Some(Sha384::digest(certificate).to_vec())
        }
        rfc5912::SHA_512_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_512 | rfc5912::ID_SHA_512 => {
            Some(Sha512::digest(certificate).to_vec())
        }
        _ => None,
    }
}

/// Returns the hash function of an RSASSA-PSS signature, which its parameters contain (RFC 4055, section 3.1).
fn pss_hash(parameters: &[u8]) -> Option<ObjectIdentifier> {
    let mut reader = SliceReader::new(parameters).ok()?;
    let hash = ContextSpecific::<AlgorithmIdentifierRef<'_>>::decode_explicit(&mut reader, TagNumber(0)).ok()?;
    // The default is SHA-1.
    Some(hash.map_or(rfc5912::ID_SHA_1, |hash| hash.value.oid))
}

/// `ecdsa-with-SHA1` (RFC 3279, section 2.2.3).
const ECDSA_WITH_SHA_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.1");

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SignatureAlgorithm};

    use super::*;

    fn signed_with(algorithm: &'static SignatureAlgorithm) -> Option<usize> {
        let key = KeyPair::generate_for(algorithm).unwrap();
        let certificate = CertificateParams::new(["svc".to_owned()]).unwrap().self_signed(&key).unwrap();
        server_end_point(certificate.der()).map(|hash| hash.len())
    }

    #[test]
    fn channel_binding_uses_the_hash_of_the_signature_algorithm() {
        assert_eq!(signed_with(&rcgen::PKCS_ECDSA_P256_SHA256), Some(32));
        assert_eq!(signed_with(&rcgen::PKCS_ECDSA_P384_SHA384), Some(48));
        assert_eq!(signed_with(&rcgen::PKCS_ED25519), None);
        assert_eq!(server_end_point(b"no certificate"), None);
    }

    #[test]
    fn reads_the_hash_from_the_parameters_of_a_pss_signature() {
        let parameters = |oid: &[u8]| {
            let algorithm = [&[0x30, oid.len() as u8 + 2, 0x06, oid.len() as u8], oid].concat();
            [&[0xa0, algorithm.len() as u8], algorithm.as_slice()].concat()
        };
        // 2.16.840.1.101.3.4.2.n
        let sha2 = |n: u8| parameters(&[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, n]);
        assert_eq!(pss_hash(&sha2(1)), Some(rfc5912::ID_SHA_256));
        assert_eq!(pss_hash(&sha2(2)), Some(rfc5912::ID_SHA_384));
        assert_eq!(pss_hash(&sha2(3)), Some(rfc5912::ID_SHA_512));
        assert_eq!(pss_hash(&[]), Some(rfc5912::ID_SHA_1), "the default");
        assert_eq!(pss_hash(&[0xa0, 0x09]), None, "truncated");
    }
}
