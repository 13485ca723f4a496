//! Tests TLS through a proxy: channel binding against a man in the middle, encrypted cancel requests, and direct
//! negotiation (`sslnegotiation=direct`).

use std::time::{Duration, Instant};

use podpool::{
    Endpoint, Kind, Pool, TlsReason,
    config::{
        Limits,
        ssl::{ChannelBinding, Ssl, SslMode, SslNegotiation},
    },
    discovery::Fixed,
    testkit::Cluster,
};

use crate::{
    Authority, SERVICE, assert_refused, cluster, config,
    proxy::{CANCEL_REQUEST, Mode, Proxy, SSL_REQUEST, server_config},
    seen_by_server, write,
};

/// Returns a pool that connects to the proxy instead of the server.
fn through(cluster: &Cluster, proxy: &Proxy, ssl: Ssl) -> Pool {
    let resolver = Fixed::new([Endpoint::new(proxy.address)]);
    Pool::builder(config(cluster, ssl)).resolver(resolver).build().expect("the pool is created")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channel_binding_detects_a_man_in_the_middle() {
    let ours = Authority::new("ours");
    let cluster = cluster(1, &ours.issue(&[SERVICE])).start().await.expect("the cluster starts");
    let files = tempfile::tempdir().expect("the temporary directory is created");
    let root = files.path().join("ca.crt");
    write(&root, ours.certificate());
    // The attacker has a valid certificate for the Service's name from the same authority.
    let attack = Mode::Attack(server_config(&ours.issue(&[SERVICE]), &[]));
    let proxy = Proxy::start(cluster.pod(0).address(), attack).await;
    let ssl = Ssl::new(SslMode::VerifyFull).with_root_cert(&*root);

    let without_binding = ssl.clone().with_channel_binding(ChannelBinding::Disable);
    let pool = through(&cluster, &proxy, without_binding);
    let client = pool.get().await.expect("the attack succeeds without channel binding");
    assert!(seen_by_server(&client).await.encrypted, "the connection to the server is not encrypted");
    for binding in [ChannelBinding::Prefer, ChannelBinding::Require] {
        let pool = through(&cluster, &proxy, ssl.clone().with_channel_binding(binding));
        let error = pool.get().await.expect_err("the server refuses the authentication");
        println!("{error}");
        // The expected text is PostgreSQL's error message.
        assert!(
            error.to_string().contains("SCRAM channel binding check failed"),
            "the error has another cause: {error}"
        );
    }
    let log = cluster.directory().join("postgresql-sfs-0/log");
    let log = std::fs::read_to_string(log).expect("the server's log is readable");
    assert!(log.contains("SCRAM channel binding check failed"), "the server has not logged the failure: {log}");
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cancel_requests_use_tls_if_their_connection_does() {
    let ours = Authority::new("ours");
    let cluster = cluster(1, &ours.issue(&[SERVICE])).start().await.expect("the cluster starts");
    for (mode, encrypted) in [(SslMode::Require, true), (SslMode::Disable, false)] {
        let proxy = Proxy::start(cluster.pod(0).address(), Mode::Bytes).await;
        let pool = through(&cluster, &proxy, Ssl::new(mode));
        let client = pool.get().await.expect("checkout succeeds");
        let began = Instant::now();
        let (slept, ()) = tokio::join!(client.batch_execute("SELECT pg_sleep(30)"), async {
            // Waits until the statement runs, because an earlier cancel request would have no effect.
            let watcher = cluster.client(0).await.expect("the superuser connects");
            let query = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)' \
                         AND state = 'active'";
            while watcher.query_one(query, &[]).await.expect("the query succeeds").get::<_, i64>(0) == 0 {
                assert!(began.elapsed() < Duration::from_secs(10), "the statement is not running on the server");
            }
            client.cancel_token().cancel().await.expect("the cancel request is sent");
        });
        let error = slept.expect_err("the statement is cancelled");
        assert_eq!(error.code().map(|code| code.code()), Some("57014"), "unexpected error: {error}");
        assert!(began.elapsed() < Duration::from_secs(20), "the statement ended only after {:?}", began.elapsed());
        let codes: Vec<_> = proxy.first_bytes().iter().map(|bytes| [bytes[4], bytes[5], bytes[6], bytes[7]]).collect();
        assert_eq!(
            codes.iter().all(|code| *code == SSL_REQUEST),
            encrypted,
            "{mode}: codes of the first messages: {codes:?}"
        );
        assert_eq!(codes.contains(&CANCEL_REQUEST), !encrypted, "{mode}: codes of the first messages: {codes:?}");
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_negotiation_starts_with_tls_and_requires_alpn() {
    let ours = Authority::new("ours");
    let identity = ours.issue(&[SERVICE]);
    let cluster = cluster(1, &identity).start().await.expect("the cluster starts");
    let files = tempfile::tempdir().expect("the temporary directory is created");
    let root = files.path().join("ca.crt");
    write(&root, ours.certificate());
    let ssl = Ssl::new(SslMode::VerifyFull).with_root_cert(&*root).with_negotiation(SslNegotiation::Direct);
    let server = cluster.pod(0).address();

    let proxy = Proxy::start(server, Mode::Direct(server_config(&identity, &["postgresql"]))).await;
    let pool = through(&cluster, &proxy, ssl.clone());
    let one: i32 = pool
        .get()
        .await
        .expect("checkout succeeds")
        .query_one("SELECT 1", &[])
        .await
        .expect("the query succeeds")
        .get(0);
    assert_eq!(one, 1);
    for first in proxy.first_bytes() {
        assert_eq!(first[..2], [22, 3], "the connection does not start with a TLS handshake (RFC 8446 section 5.1)");
    }
    let proxy = Proxy::start(server, Mode::Direct(server_config(&identity, &[]))).await;
    let error = through(&cluster, &proxy, ssl.clone()).get().await.expect_err("the server negotiates no ALPN protocol");
    assert_refused(&error, TlsReason::Protocol);
    let proxy = Proxy::start(server, Mode::Direct(server_config(&identity, &["http/1.1"]))).await;
    let error =
        through(&cluster, &proxy, ssl.clone()).get().await.expect_err("the server negotiates another ALPN protocol");
    assert_refused(&error, TlsReason::Protocol);
    let mut limits = Limits::default();
    limits.acquire_timeout = Duration::from_secs(1);
    let ssl = ssl.with_channel_binding(ChannelBinding::Require);
    let pool = Pool::builder(config(&cluster, ssl).with_limits(limits)).build().expect("the pool is created");
    match (cluster.postgres_version(), pool.get().await) {
        (17.., client) => assert!(seen_by_server(&client.expect("checkout succeeds")).await.encrypted),
        // PostgreSQL before 17 expects SSLRequest. It parses the handshake as a startup packet and closes the
        // connection.
        (_, client) => {
            let error = client.expect_err("PostgreSQL before 17 does not support direct negotiation");
            println!("{error}");
            assert!(matches!(error.kind(), Kind::Connect | Kind::Tls), "unexpected error: {error}");
        }
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}
