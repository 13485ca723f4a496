//! A certificate authority for tests.

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// A certificate and its private key in PEM format.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) certificate: String,
    pub(crate) key: String,
}

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

impl Authority {
    /// Creates an authority with this common name.
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("the key is generated");
        let certificate = params.self_signed(&key).expect("the certificate is signed").pem();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// Returns the authority's own certificate in PEM format.
    pub(crate) fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Issues a server certificate for these names and addresses.
    pub(crate) fn issue(&self, names: &[&str]) -> Identity {
        self.issue_with(names, |_| {})
    }

    /// Issues a server certificate for these names. `change` can modify its parameters.
    pub(crate) fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Identity {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("the names parse");
        change(&mut params);
        let key = KeyPair::generate().expect("the key is generated");
        let certificate = params.signed_by(&key, &self.issuer).expect("the certificate is signed").pem();
        Identity { certificate, key: key.serialize_pem() }
    }

    /// Issues a client certificate with this common name.
    pub(crate) fn client(&self, name: &str) -> Identity {
        self.issue_with(&[], |params| params.distinguished_name.push(DnType::CommonName, name))
    }
}
