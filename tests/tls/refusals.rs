use podpool::{
    Event, Kind, TlsReason,
    config::ssl::{ChannelBinding, Ssl, SslMode},
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, date_time_ymd};

use crate::{Authority, Identity, SERVICE, assert_refused, cluster, config, mended, pool, seen_by_server, write};

/// A certificate that is its own authority, as `openssl req -x509` makes it.
fn self_signed() -> Identity {
    let mut params = CertificateParams::new([SERVICE.to_owned()]).expect("names");
    params.distinguished_name.push(DnType::CommonName, SERVICE);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("a key");
    Identity { certificate: params.self_signed(&key).expect("a certificate").pem(), key: key.serialize_pem() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_that_does_not_do_is_refused_with_the_reason_and_nothing_is_sent_in_plain_text() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let good = ours.issue(&[SERVICE]);
    // Plain text is welcome to the server: whoever fell back to it would get in.
    let cluster = cluster(1, &good).start().await.expect("a cluster");
    let files = tempfile::tempdir().expect("a directory");
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
    // Another authority that calls itself the same.
    let namesake = Authority::new("ours").issue(&[SERVICE]);
    let expired = ours.issue_with(&[SERVICE], |params| {
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2021, 1, 1));
    });
    let early = ours.issue_with(&[SERVICE], |params| {
        (params.not_before, params.not_after) = (date_time_ymd(2190, 1, 1), date_time_ymd(2191, 1, 1));
    });
    for (what, identity, mode, expected) in [
        ("the right one", &good, full, None),
        ("a wrong name", &wrong_name, full, Some(TlsReason::WrongName)),
        ("a wrong name", &wrong_name, ca, None),
        ("an address alone", &address_only, full, Some(TlsReason::WrongName)),
        ("an address alone", &address_only, ca, None),
        ("a common name alone", &common_name_only, full, Some(TlsReason::WrongName)),
        ("another authority", &other_authority, full, Some(TlsReason::UnknownAuthority)),
        ("another authority", &other_authority, ca, Some(TlsReason::UnknownAuthority)),
        // libpq's rule: with a root file, `require` is `verify-ca`.
        ("another authority", &other_authority, require, Some(TlsReason::UnknownAuthority)),
        ("a namesake", &namesake, ca, Some(TlsReason::UnknownAuthority)),
        ("an expired one", &expired, full, Some(TlsReason::Expired)),
        ("an expired one", &expired, ca, Some(TlsReason::Expired)),
        ("one for the future", &early, full, Some(TlsReason::NotYetValid)),
        ("itself", &own, full, Some(TlsReason::UnknownAuthority)),
    ] {
        println!("{mode}, {what}:");
        cluster.set_certificate(0, &*identity.certificate, &*identity.key).await.expect("a new certificate");
        let pool = pool(config(&cluster, ssl(mode)));
        match (pool.get().await, expected) {
            (Ok(client), None) => assert!(seen_by_server(&client).await.0, "{mode}, {what}: encrypted"),
            (Err(error), Some(reason)) => {
                assert_refused(&error, reason);
                assert_eq!(error.attempts()[0].address(), cluster.pod(0).address());
            }
            (Ok(_), Some(reason)) => panic!("{mode}, {what}: not refused as {reason}"),
            (Err(error), None) => panic!("{mode}, {what}: {error}"),
        }
        assert_eq!(pool.close().await, 0);
    }

    // The server shows the self-signed one now. Without a root file, anybody may; with it as the root file, it may.
    for (ssl, encrypted) in [
        (Ssl::new(require), true),
        (Ssl::new(full).with_root_cert(&*own_root), true),
        // A root file counts under `prefer` too, which then speaks plain text: libpq's meaning.
        (ssl(SslMode::Prefer), false),
    ] {
        let pool = pool(config(&cluster, ssl.clone()));
        let client = pool.get().await.unwrap_or_else(|error| panic!("{ssl:?}: {error}"));
        assert_eq!(seen_by_server(&client).await.0, encrypted, "{ssl:?}");
    }

    // What is mended is found without a restart.
    let pool = pool(config(&cluster, ssl(full).with_channel_binding(ChannelBinding::Require)));
    let mut events = pool.events();
    assert_eq!(pool.get().await.expect_err("refused").kind(), Kind::Tls);
    cluster.set_certificate(0, good.certificate, good.key).await.expect("a new certificate");
    assert!(seen_by_server(&mended(&pool).await).await.0);
    // It was said that nobody was let in, once, however often that was tried.
    pool.close().await;
    let mut said = Vec::new();
    while let Some(event) = events.next().await {
        if let Event::TlsFailed { endpoint, cause } = event.expect("not behind") {
            said.push((endpoint.address(), cause));
        }
    }
    let [(address, cause)] = said.as_slice() else { panic!("once: {said:?}") };
    assert_eq!(*address, cluster.pod(0).address());
    assert!(cause.contains("UnknownIssuer") || cause.contains("authorit"), "{cause}");
    println!("{cause}");
    cluster.shutdown().await.expect("an orderly end");
}
