//! The stream of a rustls session, its properties, and its channel binding.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_postgres::tls::ChannelBinding;
use tokio_rustls::{client::TlsStream, rustls::ProtocolVersion};
use x509_cert::{
    Certificate,
    der::{
        Decode,
        oid::{ObjectIdentifier, db::rfc5912},
    },
};

use crate::wire::tls::{io::Io, session::TlsSession};

/// A TLS session.
pub(super) struct Session {
    pub(super) stream: TlsStream<TcpStream>,
    /// True if the server's certificate was verified.
    pub(super) verified: bool,
}

impl Session {
    /// Returns the server's certificate in DER.
    fn certificate(&self) -> Option<&[u8]> {
        self.stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(AsRef::as_ref)
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
        match self.certificate().and_then(server_end_point) {
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
/// the hash function of its signature, or with SHA-256 in place of MD5 and SHA-1. Returns `None` for signatures without
/// a separate hash function, such as Ed25519.
fn server_end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    match parsed.signature_algorithm().oid {
        rfc5912::MD_5_WITH_RSA_ENCRYPTION
        | rfc5912::SHA_1_WITH_RSA_ENCRYPTION
        | ECDSA_WITH_SHA_1
        | rfc5912::SHA_256_WITH_RSA_ENCRYPTION
        | rfc5912::ECDSA_WITH_SHA_256 => Some(Sha256::digest(certificate).to_vec()),
        rfc5912::SHA_224_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_224 => {
            Some(Sha224::digest(certificate).to_vec())
        }
        rfc5912::SHA_384_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_384 => {
            Some(Sha384::digest(certificate).to_vec())
        }
        rfc5912::SHA_512_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_512 => {
            Some(Sha512::digest(certificate).to_vec())
        }
        _ => None,
    }
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
}
