//! Channel binding for rustls sessions.

use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use tokio::net::TcpStream;
use tokio_postgres::tls::ChannelBinding;
use tokio_rustls::client::TlsStream;
use x509_cert::{
    Certificate,
    der::{
        Decode,
        oid::{ObjectIdentifier, db::rfc5912},
    },
};

use crate::wire::tls::io::Io;

impl Io for TlsStream<TcpStream> {
    fn channel_binding(&self) -> ChannelBinding {
        let leaf = self.get_ref().1.peer_certificates().and_then(<[_]>::first);
        match leaf.and_then(|leaf| server_end_point(leaf)) {
            Some(hash) => ChannelBinding::tls_server_end_point(hash),
            None => ChannelBinding::none(),
        }
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
