//! A certificate authority for tests.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType, IsCa, Issuer, KeyIdMethod, KeyPair,
    RevokedCertParams, SerialNumber, date_time_ymd,
};

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

    /// Issues a server certificate with this serial number, under which it can be revoked.
    pub(crate) fn issue_numbered(&self, names: &[&str], serial: u64) -> Identity {
        self.issue_with(names, |params| params.serial_number = Some(SerialNumber::from(serial)))
    }

    /// Returns a list of revoked certificates in PEM format that expires in this year.
    pub(crate) fn revocation_list(&self, serials: &[u64], expires: i32) -> String {
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(expires, 1, 1),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).expect("the list is signed").pem().expect("the list is encoded")
    }

    /// Issues a client certificate with this common name for a key in PEM format.
    pub(crate) fn client_with_key(&self, name: &str, key: &str) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::from_pem(key).expect("the key parses");
        params.signed_by(&key, &self.issuer).expect("the certificate is signed").pem()
    }

    /// Issues a client certificate with this common name.
    pub(crate) fn client(&self, name: &str) -> Identity {
        self.issue_with(&[], |params| params.distinguished_name.push(DnType::CommonName, name))
    }
}
