//! Tests that files in libpq's directory are used when they appear after the pool was built.

use std::fs;

use futures_util::FutureExt;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, IsCa, KeyIdMethod, KeyPair,
    SerialNumber, date_time_ymd,
};

use super::*;

/// Returns the certificate of an authority, and its certificate revocation list, which is empty.
fn authority() -> (String, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let list = CertificateRevocationListParams {
        this_update: date_time_ymd(2020, 1, 1),
        next_update: date_time_ymd(2190, 1, 1),
        crl_number: SerialNumber::from(1_u64),
        issuing_distribution_point: None,
        revoked_certs: Vec::new(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    let list = list.signed_by(&issuer).unwrap().pem().unwrap();
    (issuer.pem(), list)
}

/// Re-reads the files and returns the names of the events that this emits.
fn refreshed(connector: &Rustls, events: &Emitter) -> Vec<&'static str> {
    let mut stream = events.subscribe();
    connector.refresh();
    let next = || Some(stream.next().now_or_never()??.expect("the stream has not lagged").name());
    std::iter::from_fn(next).collect()
}

#[test]
fn default_files_that_appear_later_are_used() {
    let (root, list) = authority();
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let events = Arc::new(Emitter::new("test".into()));
    let ssl = Ssl::new(SslMode::Require);
    let connector = Rustls::with_directory(&ssl, Some(directory.path().into()), events.clone()).unwrap();
    assert!(connector.has_files(), "the directory is checked again");
    assert_eq!(refreshed(&connector, &events), [""; 0]);
    fs::write(path("root.crt"), &root).unwrap();
    assert_eq!(refreshed(&connector, &events), ["certificates_reloaded"]);
    fs::write(path("root.crl"), "not a list").unwrap();
    assert_eq!(refreshed(&connector, &events), ["certificates_refused"]);
    fs::write(path("root.crl"), &list).unwrap();
    assert_eq!(refreshed(&connector, &events), ["certificates_reloaded"]);
    let used = lock(&connector.0.config).clone();
    // The lists and authorities in use stay in use if their file disappears.
    fs::remove_file(path("root.crl")).unwrap();
    assert_eq!(refreshed(&connector, &events), ["certificates_refused"]);
    assert_eq!(refreshed(&connector, &events), [""; 0], "the same problem is reported once");
    assert!(Arc::ptr_eq(&used, &lock(&connector.0.config)));
}
