//! Tests every `sslmode`, client certificates, and servers without TLS.

use podpool::{
    Config, Error, Kind, Phase, Pool, TlsReason,
    config::ssl::{ChannelBinding, Ssl, SslMode},
    testkit::Cluster,
};

use crate::{Authority, SERVICE, assert_refused, cluster, config, pool, reason, recovered, seen_by_server, write};

/// Contents of pg_hba.conf. `certified` needs a client certificate, `encrypted` needs TLS, `plain` must not use TLS,
/// `trusted` needs TLS but no password, and `user` may connect with or without TLS.
const HBA: &str = "\
hostssl   all certified 127.0.0.0/8 scram-sha-256 clientcert=verify-ca
hostssl   all encrypted 127.0.0.0/8 scram-sha-256
hostnossl all plain     127.0.0.0/8 scram-sha-256
hostssl   all trusted   127.0.0.0/8 trust
host      all user      127.0.0.0/8 scram-sha-256";

/// Creates the roles of [`HBA`].
async fn create_roles(cluster: &Cluster) {
    let client = cluster.client(0).await.expect("the superuser connects");
    for role in ["certified", "encrypted", "plain", "trusted"] {
        client
            .batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'"))
            .await
            .expect("the role is created");
    }
}

fn as_role(config: Config, role: &str) -> Pool {
    pool(config.with_user(role).with_password("secret"))
}

/// Checks out a connection and returns true if it is encrypted.
async fn checkout_is_encrypted(pool: &Pool) -> Result<bool, Error> {
    Ok(seen_by_server(&pool.get().await?).await.encrypted)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_full_connects_to_every_pod_by_service_name() {
    let ours = Authority::new("ours");
    let cluster = cluster(3, &ours.issue(&[SERVICE])).hba("hostssl all all 127.0.0.0/8 scram-sha-256");
    let cluster = cluster.start().await.expect("the cluster starts");
    let files = tempfile::tempdir().expect("the temporary directory is created");
    let root = files.path().join("ca.crt");
    write(&root, ours.certificate());
    let url = format!(
        "{}&sslmode=verify-full&sslrootcert={}&channel_binding=require",
        cluster.url(),
        root.display().to_string().replace('/', "%2F")
    );
    let pool = Pool::connect(&url).await.expect("the pool is created");
    let mut seen = std::collections::BTreeSet::new();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while seen.len() < 3 {
        assert!(std::time::Instant::now() < deadline, "only these Pods were reached: {seen:?}");
        let held = [pool.get().await, pool.get().await, pool.get().await];
        for client in held {
            let client = client.expect("checkout succeeds");
            let server = seen_by_server(&client).await;
            assert!(server.encrypted, "the connection is not encrypted");
            assert_eq!(server.version.as_deref(), Some("TLSv1.3"));
            assert!(
                client.endpoint().address().tcp().unwrap().ip().is_loopback(),
                "not a Pod's address: {}",
                client.endpoint()
            );
            seen.insert(client.endpoint().address().tcp().unwrap());
        }
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_sslmode_uses_tls_as_libpq_does() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let cluster = cluster(1, &ours.issue(&[SERVICE])).client_ca(ours.certificate()).hba(HBA);
    let cluster = cluster.start().await.expect("the cluster starts");
    create_roles(&cluster).await;

    use SslMode::{Allow, Disable, Prefer, Require};
    for (role, mode, expected) in [
        ("user", Disable, Ok(false)),
        ("user", Allow, Ok(false)),
        ("user", Prefer, Ok(true)),
        ("user", Require, Ok(true)),
        ("encrypted", Disable, Err(Kind::Auth)),
        ("encrypted", Allow, Ok(true)),
        ("encrypted", Prefer, Ok(true)),
        ("encrypted", Require, Ok(true)),
        ("plain", Disable, Ok(false)),
        ("plain", Allow, Ok(false)),
        ("plain", Prefer, Ok(false)),
        ("plain", Require, Err(Kind::Auth)),
    ] {
        let config = config(&cluster, Ssl::new(mode));
        let pool = if role == "user" { pool(config) } else { as_role(config, role) };
        match checkout_is_encrypted(&pool).await {
            Ok(encrypted) => assert_eq!(Ok(encrypted), expected, "role {role}, sslmode {mode}"),
            Err(error) => assert_eq!(Err(error.kind()), expected, "role {role}, sslmode {mode}: {error}"),
        }
    }

    // A wrong password fails with and without TLS, so the pool does not retry with the other TLS mode.
    let wrong_password = pool(config(&cluster, Ssl::new(Prefer)).with_password("wrong"));
    let error = wrong_password.get().await.expect_err("the password is wrong");
    assert_eq!(error.kind(), Kind::Auth);
    assert!(!error.to_string().contains("other TLS mode"), "the other TLS mode was tried: {error}");

    // Channel binding is part of SCRAM, so it cannot be verified if the server requests no password.
    let strict = Ssl::new(Require).with_channel_binding(ChannelBinding::Require);
    let error = as_role(config(&cluster, strict), "trusted").get().await.expect_err("channel binding is required");
    println!("{error}");
    assert_eq!(error.kind(), Kind::Auth, "unexpected error: {error}");
    assert!(error.to_string().contains("channel binding"), "the error does not name channel binding: {error}");

    // The role `certified` must present a client certificate from a trusted authority.
    let files = tempfile::tempdir().expect("the temporary directory is created");
    let mut paths = Vec::new();
    for (name, authority) in [("ours", &ours), ("other", &other)] {
        let identity = authority.client("app");
        let [cert, key] = ["crt", "key"].map(|kind| files.path().join(format!("{name}.{kind}")));
        write(&cert, &identity.certificate);
        write(&key, &identity.key);
        paths.push((cert, key));
    }
    let [(cert, key), (other_cert, other_key)] = &paths[..] else { unreachable!("there are two identities") };
    let certified = as_role(config(&cluster, Ssl::new(Require).with_client_cert(cert, key)), "certified");
    let server = seen_by_server(&certified.get().await.expect("checkout succeeds")).await;
    assert_eq!((server.encrypted, server.client_dn.as_deref()), (true, Some("/CN=app")));

    let without = as_role(config(&cluster, Ssl::new(Require)), "certified");
    let error = without.get().await.expect_err("a client certificate is required");
    println!("{error}");
    assert_eq!((error.kind(), error.attempts()[0].phase()), (Kind::Auth, Phase::Startup), "unexpected error: {error}");
    assert!(
        error.to_string().contains("client certificate"),
        "the error does not name the client certificate: {error}"
    );

    // In TLS 1.3, the client has already completed its handshake when the server's alert arrives, just before the
    // server closes the connection. The error must still report the alert.
    for _ in 0..20 {
        let ssl = Ssl::new(Require).with_client_cert(other_cert, other_key);
        let unknown = as_role(config(&cluster, ssl), "certified");
        let error = unknown.get().await.expect_err("the server refuses the client certificate");
        assert_refused(&error, TlsReason::Refused);
    }
    // The builder rejects a key that belongs to another certificate, and a key file that other users can read.
    let mixed = Ssl::new(Require).with_client_cert(cert, other_key);
    let error = Pool::builder(config(&cluster, mixed)).build().expect_err("the key does not match the certificate");
    println!("{error}");
    assert_eq!(error.kind(), Kind::Config);
    assert!(error.to_string().contains("sslkey"), "the error does not name the parameter: {error}");
    std::fs::set_permissions(key, std::os::unix::fs::PermissionsExt::from_mode(0o644))
        .expect("the permissions are set");
    let open = Ssl::new(Require).with_client_cert(cert, key);
    let error = Pool::builder(config(&cluster, open)).build().expect_err("other users can read the key");
    println!("{error}");
    assert!(error.to_string().contains("its mode is 0644"), "the error does not name the mode of the file: {error}");
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn require_refuses_a_server_without_tls() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    for mode in [SslMode::Disable, SslMode::Allow, SslMode::Prefer] {
        let encrypted = checkout_is_encrypted(&pool(config(&cluster, Ssl::new(mode)))).await;
        assert!(!encrypted.expect("checkout succeeds without TLS"), "sslmode {mode}: the connection is encrypted");
    }
    let required = pool(config(&cluster, Ssl::new(SslMode::Require)));
    let error = checkout_is_encrypted(&required).await.expect_err("the server does not support TLS");
    assert_refused(&error, TlsReason::NotOffered);
    assert_eq!(reason(&error.attempts()[0]), Some(TlsReason::NotOffered));
    // The same pool recovers once the server has a certificate.
    let pool = pool(config(&cluster, Ssl::new(SslMode::Require)));
    checkout_is_encrypted(&pool).await.expect_err("the server does not support TLS yet");
    let identity = Authority::new("ours").issue(&[SERVICE]);
    cluster.set_certificate(0, identity.certificate, identity.key).await.expect("the certificate is replaced");
    assert!(seen_by_server(&recovered(&pool).await).await.encrypted, "not encrypted");
    cluster.shutdown().await.expect("the cluster shuts down");
}
