use podpool::{
    Config, Error, Kind, Phase, Pool, TlsReason,
    config::ssl::{ChannelBinding, Ssl, SslMode},
    testkit::Cluster,
};

use crate::{Authority, SERVICE, assert_refused, cluster, config, mended, pool, reason, seen_by_server, write};

/// Who may come in how.
const HBA: &str = "\
hostssl   all certified 127.0.0.0/8 scram-sha-256 clientcert=verify-ca
hostssl   all encrypted 127.0.0.0/8 scram-sha-256
hostnossl all plain     127.0.0.0/8 scram-sha-256
hostssl   all trusted   127.0.0.0/8 trust
host      all user      127.0.0.0/8 scram-sha-256";

async fn roles(cluster: &Cluster) {
    let client = cluster.client(0).await.expect("a connection");
    for role in ["certified", "encrypted", "plain", "trusted"] {
        client.batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'secret'")).await.expect("a role");
    }
}

fn as_role(config: Config, role: &str) -> Pool {
    pool(config.with_user(role).with_password("secret"))
}

/// Whether the connection is encrypted, or why there is none.
async fn enter(pool: &Pool) -> Result<bool, Error> {
    Ok(seen_by_server(&pool.get().await?).await.0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_full_passes_for_the_services_name_with_channel_binding_on_every_pod() {
    let ours = Authority::new("ours");
    let cluster = cluster(3, &ours.issue(&[SERVICE])).hba("hostssl all all 127.0.0.0/8 scram-sha-256");
    let cluster = cluster.start().await.expect("a cluster");
    let files = tempfile::tempdir().expect("a directory");
    let root = files.path().join("ca.crt");
    write(&root, ours.certificate());
    let url = format!(
        "{}&sslmode=verify-full&sslrootcert={}&channel_binding=require",
        cluster.url(),
        root.display().to_string().replace('/', "%2F")
    );
    let pool = Pool::connect(&url).await.expect("a pool");
    let mut seen = std::collections::BTreeSet::new();
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while seen.len() < 3 {
        assert!(std::time::Instant::now() < deadline, "only {seen:?} were reached");
        let held = [pool.get().await, pool.get().await, pool.get().await];
        for client in held {
            let client = client.expect("a connection");
            let (encrypted, version, _) = seen_by_server(&client).await;
            assert!(encrypted);
            assert_eq!(version.as_deref(), Some("TLSv1.3"));
            assert!(client.endpoint().address().ip().is_loopback(), "the socket goes to the address");
            seen.insert(client.endpoint().address());
        }
    }
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mode_gets_in_where_libpq_does() {
    let (ours, other) = (Authority::new("ours"), Authority::new("other"));
    let cluster = cluster(1, &ours.issue(&[SERVICE])).client_ca(ours.certificate()).hba(HBA);
    let cluster = cluster.start().await.expect("a cluster");
    roles(&cluster).await;

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
        match enter(&pool).await {
            Ok(encrypted) => assert_eq!(Ok(encrypted), expected, "{role} {mode}"),
            Err(error) => assert_eq!(Err(error.kind()), expected, "{role} {mode}: {error}"),
        }
    }

    // A password that no way helps is tried one way only, and told as it is.
    let error = pool(config(&cluster, Ssl::new(Prefer)).with_password("wrong")).get().await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Auth);
    assert!(!error.to_string().contains("after a try"), "{error}");

    // A server that asks for no password ties nothing to its TLS session.
    let strict = Ssl::new(Require).with_channel_binding(ChannelBinding::Require);
    let error = as_role(config(&cluster, strict), "trusted").get().await.expect_err("refused");
    println!("{error}");
    assert_eq!(error.kind(), Kind::Auth, "{error}");
    assert!(error.to_string().contains("channel binding"), "{error}");

    // Client certificates.
    let files = tempfile::tempdir().expect("a directory");
    let mut paths = Vec::new();
    for (name, authority) in [("ours", &ours), ("other", &other)] {
        let identity = authority.client("app");
        let [cert, key] = ["crt", "key"].map(|kind| files.path().join(format!("{name}.{kind}")));
        write(&cert, &identity.certificate);
        write(&key, &identity.key);
        paths.push((cert, key));
    }
    let [(cert, key), (other_cert, other_key)] = &paths[..] else { unreachable!("two of them") };
    let certified = as_role(config(&cluster, Ssl::new(Require).with_client_cert(cert, key)), "certified");
    let (encrypted, _, name) = seen_by_server(&certified.get().await.expect("a connection")).await;
    assert_eq!((encrypted, name.as_deref()), (true, Some("/CN=app")));

    let without = as_role(config(&cluster, Ssl::new(Require)), "certified").get().await.expect_err("refused");
    println!("{without}");
    assert_eq!((without.kind(), without.attempts()[0].phase()), (Kind::Auth, Phase::Startup), "{without}");
    assert!(without.to_string().contains("client certificate"), "{without}");

    // The server's alert comes when the handshake is over for us, and its end right behind it: it is not lost.
    for _ in 0..20 {
        let ssl = Ssl::new(Require).with_client_cert(other_cert, other_key);
        let refused = as_role(config(&cluster, ssl), "certified").get().await.expect_err("refused");
        assert_refused(&refused, TlsReason::Refused);
    }
    // A key that is not the certificate's, and one that others may read, are told when the pool is built.
    let mixed = Ssl::new(Require).with_client_cert(cert, other_key);
    let error = Pool::builder(config(&cluster, mixed)).build().expect_err("refused");
    println!("{error}");
    assert_eq!(error.kind(), Kind::Config);
    assert!(error.to_string().contains("sslkey"), "{error}");
    std::fs::set_permissions(key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("permissions");
    let open = Ssl::new(Require).with_client_cert(cert, key);
    let error = Pool::builder(config(&cluster, open)).build().expect_err("refused");
    println!("{error}");
    assert!(error.to_string().contains("its mode is 0644"), "{error}");
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_tls_is_refused_by_those_who_insist() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    for mode in [SslMode::Disable, SslMode::Allow, SslMode::Prefer] {
        assert!(!enter(&pool(config(&cluster, Ssl::new(mode)))).await.expect("plain text"), "{mode}");
    }
    let error = enter(&pool(config(&cluster, Ssl::new(SslMode::Require)))).await.expect_err("no TLS");
    assert_refused(&error, TlsReason::NotOffered);
    assert_eq!(reason(&error.attempts()[0]), Some(TlsReason::NotOffered));
    // The server is given a certificate, and the same pool gets in.
    let pool = pool(config(&cluster, Ssl::new(SslMode::Require)));
    enter(&pool).await.expect_err("no TLS yet");
    let identity = Authority::new("ours").issue(&[SERVICE]);
    cluster.set_certificate(0, identity.certificate, identity.key).await.expect("a certificate");
    assert!(seen_by_server(&mended(&pool).await).await.0);
    cluster.shutdown().await.expect("an orderly end");
}
