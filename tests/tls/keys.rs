//! Tests encrypted private keys (`sslpassword`) and requests for client certificates (`sslcertmode`). The files
//! `fixtures/client*.key` contain the same key, which OpenSSL 3.0 has encrypted in several ways with the password
//! `hunter2`.

use podpool::{
    Config, Kind, Pool, TlsReason,
    config::ssl::{Ssl, SslCertMode, SslMode},
};

use crate::{Authority, SERVICE, assert_refused, cluster, config, pool, seen_by_server, write};

const KEY: &str = include_str!("fixtures/client.key");
#[cfg(feature = "encrypted-keys")]
const PBKDF2: &str = include_str!("fixtures/client_encrypted.key");
#[cfg(feature = "encrypted-keys")]
const SCRYPT: &str = include_str!("fixtures/client_scrypt.key");
#[cfg(feature = "encrypted-keys")]
const PBES1: &str = include_str!("fixtures/client_pbes1.key");
const LEGACY: &str = include_str!("fixtures/client_legacy.key");

/// Returns the error of building a pool with these parameters. Building a pool uses no network.
fn rejected(ssl: Ssl) -> String {
    let config = Config::new(SERVICE).expect("the name parses").with_user("app").with_ssl(ssl);
    let error = Pool::builder(config).build().expect_err("the key cannot be used");
    assert_eq!(error.kind(), Kind::Config);
    println!("{error}");
    assert!(!format!("{error} {error:?}").contains("hunter"), "the error contains a password: {error:?}");
    error.to_string()
}

#[tokio::test]
async fn keys_in_the_legacy_format_are_refused_with_the_command_that_converts_them() {
    let files = tempfile::tempdir().expect("the temporary directory is created");
    let (cert, key) = (files.path().join("tls.crt"), files.path().join("tls.key"));
    write(&cert, &Authority::new("ours").client_with_key("app", KEY));
    write(&key, LEGACY);
    let error = rejected(Ssl::new(SslMode::Require).with_client_cert(cert, key));
    assert!(error.contains("`sslkey`") && error.contains("openssl pkcs8 -topk8 -v2 aes-256-cbc"), "{error}");
}

#[cfg(feature = "encrypted-keys")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encrypted_keys_are_decrypted_with_the_password() {
    let ours = Authority::new("ours");
    let cluster = cluster(1, &ours.issue(&[SERVICE])).client_ca(ours.certificate());
    let cluster = cluster.hba("hostssl all all 127.0.0.0/8 scram-sha-256 clientcert=verify-ca");
    let cluster = cluster.start().await.expect("the cluster starts");
    let files = tempfile::tempdir().expect("the temporary directory is created");
    let (cert, key) = (files.path().join("tls.crt"), files.path().join("tls.key"));
    write(&cert, &ours.client_with_key("app", KEY));
    let ssl = || Ssl::new(SslMode::Require).with_client_cert(&*cert, &*key);

    for text in [PBKDF2, SCRYPT, KEY] {
        write(&key, text);
        // The password is ignored if the key is not encrypted.
        let pool = pool(config(&cluster, ssl().with_key_password("hunter2")));
        let client = pool.get().await.expect("checkout succeeds");
        assert_eq!(seen_by_server(&client).await.client_dn.as_deref(), Some("/CN=app"));
    }

    for (text, ssl, expected) in [
        (PBKDF2, ssl(), "`sslpassword`: expected the password of the encrypted private key"),
        (PBKDF2, ssl().with_key_password("hunter3"), "`sslpassword`: expected the password of the encrypted"),
        (SCRYPT, ssl().with_key_password("hunter3"), "`sslpassword`: expected the password of the encrypted"),
        (PBES1, ssl().with_key_password("hunter2"), "convert it with `openssl pkcs8 -topk8 -v2 aes-256-cbc"),
        (&PBKDF2[..200], ssl().with_key_password("hunter2"), "`sslkey`: expected the private key"),
    ] {
        write(&key, text);
        let error = rejected(ssl);
        assert!(error.contains(expected), "{error}");
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[cfg(not(feature = "encrypted-keys"))]
#[tokio::test]
async fn encrypted_keys_are_refused_without_the_feature() {
    let files = tempfile::tempdir().expect("the temporary directory is created");
    let (cert, key) = (files.path().join("tls.crt"), files.path().join("tls.key"));
    write(&cert, &Authority::new("ours").client_with_key("app", KEY));
    write(&key, include_str!("fixtures/client_encrypted.key"));
    let error = rejected(Ssl::new(SslMode::Require).with_client_cert(cert, key));
    assert!(error.contains("`sslkey`") && error.contains("feature `encrypted-keys`"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sslcertmode_controls_whether_a_certificate_is_sent_and_requested() {
    let ours = Authority::new("ours");
    let files = tempfile::tempdir().expect("the temporary directory is created");
    let (cert, key) = (files.path().join("tls.crt"), files.path().join("tls.key"));
    write(&cert, &ours.client_with_key("app", KEY));
    write(&key, KEY);
    let ssl = |mode| Ssl::new(SslMode::Require).with_client_cert(&*cert, &*key).with_cert_mode(mode);
    for requests in [true, false] {
        let builder = cluster(1, &ours.issue(&[SERVICE]));
        let builder = if requests { builder.client_ca(ours.certificate()) } else { builder };
        let cluster = builder.start().await.expect("the cluster starts");
        for mode in [SslCertMode::Allow, SslCertMode::Disable, SslCertMode::Require] {
            let pool = pool(config(&cluster, ssl(mode)));
            match pool.get().await {
                Ok(client) => {
                    let sent = seen_by_server(&client).await.client_dn;
                    let expected = Some("/CN=app").filter(|_| requests && mode != SslCertMode::Disable);
                    assert_eq!(sent.as_deref(), expected, "sslcertmode={mode}, requests={requests}");
                    assert!(requests || mode != SslCertMode::Require, "connected without a request");
                }
                Err(error) => {
                    assert_refused(&error, TlsReason::NotRequested);
                    assert!(error.to_string().contains("`sslcertmode=require`"), "{error}");
                    assert!(!requests && mode == SslCertMode::Require, "sslcertmode={mode}: {error}");
                }
            }
        }
        cluster.shutdown().await.expect("the cluster shuts down");
    }
}

#[cfg(feature = "keylog")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_are_appended_to_the_key_log_file() {
    let cluster = cluster(1, &Authority::new("ours").issue(&[SERVICE])).start().await.expect("the cluster starts");
    let files = tempfile::tempdir().expect("the temporary directory is created");
    let log = files.path().join("keys.log");
    let pool = pool(config(&cluster, Ssl::new(SslMode::Require).with_key_log_file(&*log)));
    drop(pool.get().await.expect("checkout succeeds"));
    let text = std::fs::read_to_string(&log).expect("the file is readable");
    assert!(text.lines().any(|line| line.starts_with("CLIENT_TRAFFIC_SECRET_0 ")), "unexpected lines: {text}");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&log).expect("the file exists"));
    assert_eq!(mode & 0o777, 0o600, "permissions of the file");
    cluster.shutdown().await.expect("the cluster shuts down");
}
