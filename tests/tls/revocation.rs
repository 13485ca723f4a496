//! Tests certificate revocation lists: `sslcrl` and `sslcrldir`.

use std::time::{Duration, Instant};

use podpool::{
    Kind, Pool, TlsReason,
    config::ssl::{Ssl, SslMode},
};

use crate::{Authority, SERVICE, assert_refused, cluster, config, pool, reason, seen_by_server, write};

/// Year in which the lists expire that are valid in this test.
const VALID: i32 = 2190;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoked_server_certificates_are_refused() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let (good, revoked) = (ours.issue_numbered(&[SERVICE], 7), ours.issue_numbered(&[SERVICE], 8));
    // The server also accepts plain text, so the test would detect a fallback.
    let cluster = cluster(1, &good).start().await.expect("the cluster starts");
    let files = tempfile::tempdir().expect("the temporary directory is created");
    let path = |name: &str| files.path().join(name);
    write(&path("ca.crt"), ours.certificate());
    write(&path("ours.crl"), &ours.revocation_list(&[8, 9], VALID));
    write(&path("expired.crl"), &ours.revocation_list(&[], 2021));
    write(&path("other.crl"), &other.revocation_list(&[7], VALID));
    std::fs::create_dir(path("lists")).expect("the directory is created");
    for name in ["ours.crl", "other.crl"] {
        std::fs::copy(path(name), path("lists").join(name)).expect("the list is copied");
    }
    let ssl = |mode| Ssl::new(mode).with_root_cert(path("ca.crt"));
    let (full, ca) = (SslMode::VerifyFull, SslMode::VerifyCa);
    let file = |mode, name| ssl(mode).with_crl(path(name));
    let directory = |mode| ssl(mode).with_crl_dir(path("lists"));

    // Another name is refused only by `verify-full`, with and without lists.
    let elsewhere = ours.issue_numbered(&["postgresql-svc.other.svc.cluster.local"], 10);
    let unknown = Some(TlsReason::UnknownRevocation);
    for (case, identity, ssl, expected) in [
        ("not in the list", &good, file(full, "ours.crl"), None),
        ("not in the lists of the directory", &good, directory(full), None),
        ("an expired list", &good, file(full, "expired.crl"), unknown),
        ("no list of the authority", &good, file(full, "other.crl"), unknown),
        ("another name", &elsewhere, file(ca, "ours.crl"), None),
        ("another name", &elsewhere, file(full, "ours.crl"), Some(TlsReason::WrongName)),
        ("revoked, but without a list", &revoked, ssl(full), None),
        ("revoked", &revoked, file(full, "ours.crl"), Some(TlsReason::Revoked)),
        ("revoked", &revoked, file(ca, "ours.crl"), Some(TlsReason::Revoked)),
        ("revoked, listed in the directory", &revoked, directory(full), Some(TlsReason::Revoked)),
    ] {
        println!("{case}:");
        cluster.set_certificate(0, &*identity.certificate, &*identity.key).await.expect("the certificate is replaced");
        let pool = pool(config(&cluster, ssl));
        match (pool.get().await, expected) {
            (Ok(client), None) => assert!(seen_by_server(&client).await.encrypted, "{case}: not encrypted"),
            (Err(error), Some(reason)) => {
                assert_refused(&error, reason);
                let named = reason == TlsReason::WrongName || error.to_string().contains("`sslcrl`");
                assert!(named, "{case}: the error does not name the parameter: {error}");
            }
            (Ok(_), Some(reason)) => panic!("{case}: certificate accepted, expected a refusal: {reason}"),
            (Err(error), None) => panic!("{case}: checkout failed: {error}"),
        }
        assert_eq!(pool.close().await, 0);
    }

    // A list that changes applies to later connections; open ones stay in use.
    cluster.set_certificate(0, &*good.certificate, &*good.key).await.expect("the certificate is replaced");
    let pool = pool(config(&cluster, file(full, "ours.crl")));
    let mut held = vec![pool.get().await.expect("the certificate is not revoked yet")];
    write(&path("ours.crl"), &ours.revocation_list(&[7], VALID));
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match pool.get().await {
            Ok(client) => held.push(client),
            Err(error) if error.attempts().iter().any(|attempt| reason(attempt) == Some(TlsReason::Revoked)) => break,
            Err(error) => assert!(Instant::now() < deadline, "the certificate is not refused as revoked: {error}"),
        }
    }
    assert!(seen_by_server(&held[0]).await.encrypted, "the open connection is lost");
    drop(held);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test]
async fn unusable_revocation_lists_are_errors_that_name_the_parameter() {
    let ours = Authority::new("ours");
    let files = tempfile::tempdir().expect("the temporary directory is created");
    let path = |name: &str| files.path().join(name);
    write(&path("ca.crt"), ours.certificate());
    let list = ours.revocation_list(&[], VALID);
    write(&path("good.crl"), &list);
    write(&path("cut.crl"), &list[..list.len() / 2]);
    std::fs::create_dir(path("empty")).expect("the directory is created");
    let ssl = Ssl::new(SslMode::VerifyFull).with_root_cert(path("ca.crt"));
    for (ssl, expected) in [
        (ssl.clone().with_crl(path("none.crl")), "`sslcrl`: expected PEM certificate revocation lists"),
        (ssl.clone().with_crl(path("cut.crl")), "not valid PEM, or truncated"),
        (ssl.clone().with_crl(path("ca.crt")), "it contains no certificate revocation list"),
        (ssl.clone().with_crl_dir(path("empty")), "`sslcrldir`: expected a directory of files"),
        (ssl.with_crl_dir(path("none")), "`sslcrldir`"),
        (Ssl::new(SslMode::Require).with_crl(path("good.crl")), "certificates are not verified"),
    ] {
        let config = podpool::Config::new(SERVICE).expect("the name parses").with_user("app").with_ssl(ssl);
        let error = Pool::builder(config).build().expect_err(expected);
        println!("{error}");
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.to_string().contains(expected), "{error}");
    }
}
