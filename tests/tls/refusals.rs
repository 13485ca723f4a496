//! Tests that invalid server certificates are refused for the right reason, without a fallback to plain text.

use podpool::{
    Event, Kind, TlsReason,
    config::ssl::{ChannelBinding, Ssl, SslMode},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, date_time_ymd};

use crate::{Authority, Identity, SERVICE, assert_refused, cluster, config, pool, recovered, seen_by_server, write};

/// Returns a self-signed certificate like those that `openssl req -x509` generates.
fn self_signed() -> Identity {
    let mut params = CertificateParams::new([SERVICE.to_owned()]).expect("the names parse");
    params.distinguished_name.push(DnType::CommonName, SERVICE);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("the key is generated");
    Identity {
        certificate: params.self_signed(&key).expect("the certificate is signed").pem(),
        key: key.serialize_pem(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refuses_invalid_certificates_without_plaintext_fallback() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let good = ours.issue(&[SERVICE]);
    // The server also accepts plain text, so the test would detect a fallback.
    let cluster = cluster(1, &good).start().await.expect("the cluster starts");
    let files = tempfile::tempdir().expect("the temporary directory is created");
    let root = files.path().join("ca.crt");
    write(&root, ours.certificate());
    let own = self_signed();
    let own_root = files.path().join("own.crt");
    write(&own_root, &own.certificate);
    let ssl = |mode| Ssl::new(mode).with_root_cert(&*root);
    let (full, ca, require) = (SslMode::VerifyFull, SslMode::VerifyCa, SslMode::Require);

    let wrong_name = ours.issue(&["postgresql-svc.other.svc.cluster.local"]);
    let address_only = ours.issue(&["127.0.0.2"]);
    let common_name_only = ours.issue_with(&[], |params| params.distinguished_name.push(DnType::CommonName, SERVICE));
    let other_authority = other.issue(&[SERVICE]);
    // This authority has the same name as the trusted one, but a different key.
    let namesake = Authority::new("ours").issue(&[SERVICE]);
    let expired = ours.issue_with(&[SERVICE], |params| {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    });
    let early = ours.issue_with(&[SERVICE], |params| {
        (params.not_before, params.not_after) = (date_time_ymd(2190, 1, 1), date_time_ymd(2191, 1, 1));
    });
    for (case, identity, mode, expected) in [
        ("valid", &good, full, None),
        ("wrong name", &wrong_name, full, Some(TlsReason::WrongName)),
        ("wrong name", &wrong_name, ca, None),
        ("address only", &address_only, full, Some(TlsReason::WrongName)),
        ("address only", &address_only, ca, None),
        ("common name only", &common_name_only, full, Some(TlsReason::WrongName)),
        ("another authority", &other_authority, full, Some(TlsReason::UnknownAuthority)),
        ("another authority", &other_authority, ca, Some(TlsReason::UnknownAuthority)),
        // With a root certificate, libpq treats `require` like `verify-ca`.
        ("another authority", &other_authority, require, Some(TlsReason::UnknownAuthority)),
        ("another authority with the same name", &namesake, ca, Some(TlsReason::UnknownAuthority)),
        ("expired", &expired, full, Some(TlsReason::Expired)),
        ("expired", &expired, ca, Some(TlsReason::Expired)),
        ("not yet valid", &early, full, Some(TlsReason::NotYetValid)),
        ("self-signed", &own, full, Some(TlsReason::UnknownAuthority)),
    ] {
        println!("{mode}, {case}:");
        cluster.set_certificate(0, &*identity.certificate, &*identity.key).await.expect("the certificate is replaced");
        let pool = pool(config(&cluster, ssl(mode)));
        match (pool.get().await, expected) {
            (Ok(client), None) => assert!(seen_by_server(&client).await.encrypted, "{mode}, {case}: not encrypted"),
            (Err(error), Some(reason)) => {
                assert_refused(&error, reason);
                assert_eq!(error.attempts()[0].address().tcp().unwrap(), cluster.pod(0).address());
            }
            (Ok(_), Some(reason)) => panic!("{mode}, {case}: certificate accepted, expected a refusal: {reason}"),
            (Err(error), None) => panic!("{mode}, {case}: checkout failed: {error}"),
        }
        assert_eq!(pool.close().await, 0);
    }

    // The server now has the self-signed certificate. The pool accepts it if no root certificate is configured, or if
    // the root certificate is that certificate itself.
    for (ssl, encrypted) in [
        (Ssl::new(require), true),
        (Ssl::new(full).with_root_cert(&*own_root), true),
        // `prefer` also verifies the certificate, but then falls back to plain text, as libpq does.
        (ssl(SslMode::Prefer), false),
    ] {
        let pool = pool(config(&cluster, ssl.clone()));
        let client = pool.get().await.unwrap_or_else(|error| panic!("checkout failed with {ssl:?}: {error}"));
        assert_eq!(seen_by_server(&client).await.encrypted, encrypted, "encryption with {ssl:?}");
    }

    // The pool recovers without a restart once the server has a valid certificate.
    let pool = pool(config(&cluster, ssl(full).with_channel_binding(ChannelBinding::Require)));
    let mut events = pool.events();
    assert_eq!(pool.get().await.expect_err("the self-signed certificate is refused").kind(), Kind::Tls);
    cluster.set_certificate(0, good.certificate, good.key).await.expect("the certificate is replaced");
    assert!(seen_by_server(&recovered(&pool).await).await.encrypted, "not encrypted");
    // A single event reports the refusal, no matter how many attempts failed.
    pool.close().await;
    let mut refusals = Vec::new();
    while let Some(event) = events.next().await {
        if let Event::TlsFailed { endpoint, cause } = event.expect("the receiver has not lagged") {
            refusals.push((endpoint.address().tcp().unwrap(), cause));
        }
    }
    let [(address, cause)] = refusals.as_slice() else { panic!("expected one event `tls_failed`, got {refusals:?}") };
    assert_eq!(*address, cluster.pod(0).address());
    assert!(
        cause.contains("UnknownIssuer") || cause.contains("authorit"),
        "the cause does not name the unknown authority: {cause}"
    );
    println!("cause in `tls_failed`: {cause}");
    cluster.shutdown().await.expect("the cluster shuts down");
}
