//! Issues the certificates of the API server and of the database Pods, the latter in place of cert-manager.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// The authority's own certificate in PEM format.
    pub(crate) certificate: String,
}

/// A certificate and its private key in PEM format.
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("the key is generated");
        let certificate = params.self_signed(&key).expect("the certificate is signed").pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Issues a server certificate for these names and addresses.
    pub(crate) fn issue(&self, names: &[&str]) -> Identity {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let params = CertificateParams::new(names).expect("the names parse");
        let key = KeyPair::generate().expect("the key is generated");
        let certificate = params.signed_by(&key, &self.issuer).expect("the certificate is signed").pem();
        Identity { certificate, key: key.serialize_pem() }
    }
}
