//! The certificates of the servers, as the files in `certificates/` contain them.

use std::{fmt, sync::Arc};

use tokio_rustls::rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

/// The file with the authority that has signed all certificates.
pub const AUTHORITY: &str = include_str!("../../certificates/authority.pem");

/// The certificate of a server, with its key.
#[derive(Clone)]
pub struct Certificate {
    name: &'static str,
    pub(super) config: Arc<ServerConfig>,
}

impl Certificate {
    /// Returns the certificate with which servers start.
    #[must_use]
    pub fn first() -> Self {
        Self::parse("first", include_bytes!("../../certificates/server.pem"))
    }

    /// Returns a certificate that replaces the first one.
    #[must_use]
    pub fn renewed() -> Self {
        Self::parse("renewed", include_bytes!("../../certificates/renewed.pem"))
    }

    /// Returns a certificate that has expired.
    #[must_use]
    pub fn expired() -> Self {
        Self::parse("expired", include_bytes!("../../certificates/expired.pem"))
    }

    fn parse(name: &'static str, pem: &[u8]) -> Self {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
        let key = PrivateKeyDer::from_pem_slice(pem).expect("the file contains a key");
        let config = ServerConfig::builder_with_provider(ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("the provider supports the default versions")
            .with_no_client_auth()
            .with_single_cert(chain.expect("the file contains a certificate"), key)
            .expect("the key belongs to the certificate");
        Self { name, config: config.into() }
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Certificate").field(&self.name).finish()
    }
}
