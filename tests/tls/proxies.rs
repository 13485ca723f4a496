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
    middle::{CANCEL_REQUEST, Listener, Middle, SSL_REQUEST, serving},
    seen_by_server, write,
};

/// A pool that goes to the listener, under the Service's name.
fn through(cluster: &Cluster, listener: &Listener, ssl: Ssl) -> Pool {
    let resolver = Fixed::new([Endpoint::new(listener.address)]);
    Pool::builder(config(cluster, ssl)).resolver(resolver).build().expect("a pool")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn channel_binding_shows_the_server_who_is_in_the_middle() {
    let ours = Authority::new("ours");
    let cluster = cluster(1, &ours.issue(&[SERVICE])).start().await.expect("a cluster");
    let files = tempfile::tempdir().expect("a directory");
    let root = files.path().join("ca.crt");
    write(&root, ours.certificate());
    // He has got a certificate for the Service's name from the same authority.
    let middle = Middle::Attack(serving(&ours.issue(&[SERVICE]), &[]));
    let listener = Listener::start(cluster.pod(0).address(), middle).await;
    let ssl = Ssl::new(SslMode::VerifyFull).with_root_cert(&*root);

    let blind = ssl.clone().with_channel_binding(ChannelBinding::Disable);
    let client = through(&cluster, &listener, blind).get().await.expect("he gets in unseen");
    assert!(seen_by_server(&client).await.0);
    for binding in [ChannelBinding::Prefer, ChannelBinding::Require] {
        let pool = through(&cluster, &listener, ssl.clone().with_channel_binding(binding));
        let error = pool.get().await.expect_err("refused");
        println!("{error}");
        // The server itself has compared the certificates: these are its words.
        assert!(error.to_string().contains("SCRAM channel binding check failed"), "{error}");
    }
    let log = cluster.directory().join("postgresql-sfs-0/log");
    let log = std::fs::read_to_string(log).expect("the server's log");
    assert!(log.contains("SCRAM channel binding check failed"), "{log}");
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cancels_is_encrypted_where_the_connection_is() {
    let ours = Authority::new("ours");
    let cluster = cluster(1, &ours.issue(&[SERVICE])).start().await.expect("a cluster");
    for (mode, encrypted) in [(SslMode::Require, true), (SslMode::Disable, false)] {
        let listener = Listener::start(cluster.pod(0).address(), Middle::Bytes).await;
        let pool = through(&cluster, &listener, Ssl::new(mode));
        let client = pool.get().await.expect("a connection");
        let began = Instant::now();
        let (slept, ()) = tokio::join!(client.batch_execute("SELECT pg_sleep(30)"), async {
            // Until the server is at it; an earlier request would cancel nothing.
            let watcher = cluster.client(0).await.expect("a connection");
            let question = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)'";
            while watcher.query_one(question, &[]).await.expect("an answer").get::<_, i64>(0) == 0 {
                assert!(began.elapsed() < Duration::from_secs(10), "the statement does not begin");
            }
            client.cancel_token().cancel().await.expect("cancelled");
        });
        let error = slept.expect_err("cancelled");
        assert_eq!(error.code().map(|code| code.code()), Some("57014"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(20));
        let codes: Vec<_> =
            listener.beginnings().iter().map(|bytes| [bytes[4], bytes[5], bytes[6], bytes[7]]).collect();
        assert_eq!(codes.iter().all(|code| *code == SSL_REQUEST), encrypted, "{mode}: {codes:?}");
        assert_eq!(codes.contains(&CANCEL_REQUEST), !encrypted, "{mode}: {codes:?}");
    }
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_negotiation_begins_at_once_and_insists_on_alpn() {
    let ours = Authority::new("ours");
    let identity = ours.issue(&[SERVICE]);
    let cluster = cluster(1, &identity).start().await.expect("a cluster");
    let files = tempfile::tempdir().expect("a directory");
    let root = files.path().join("ca.crt");
    write(&root, ours.certificate());
    let ssl = Ssl::new(SslMode::VerifyFull).with_root_cert(&*root).with_negotiation(SslNegotiation::Direct);
    let server = cluster.pod(0).address();

    let listener = Listener::start(server, Middle::Direct(serving(&identity, &["postgresql"]))).await;
    let pool = through(&cluster, &listener, ssl.clone());
    let one: i32 = pool.get().await.expect("a connection").query_one("SELECT 1", &[]).await.expect("an answer").get(0);
    assert_eq!(one, 1);
    for beginning in listener.beginnings() {
        assert_eq!(beginning[..2], [22, 3], "a TLS handshake (RFC 8446, section 5.1)");
    }
    let listener = Listener::start(server, Middle::Direct(serving(&identity, &[]))).await;
    let error = through(&cluster, &listener, ssl.clone()).get().await.expect_err("no ALPN");
    assert_refused(&error, TlsReason::Protocol);
    let listener = Listener::start(server, Middle::Direct(serving(&identity, &["http/1.1"]))).await;
    let error = through(&cluster, &listener, ssl.clone()).get().await.expect_err("another protocol");
    assert_refused(&error, TlsReason::Protocol);
    let mut limits = Limits::default();
    limits.acquire_timeout = Duration::from_secs(1);
    let ssl = ssl.with_channel_binding(ChannelBinding::Require);
    let pool = Pool::builder(config(&cluster, ssl).with_limits(limits)).build().expect("a pool");
    match (cluster.postgres_version(), pool.get().await) {
        (17.., client) => assert!(seen_by_server(&client.expect("a connection")).await.0),
        // A server that waits for SSLRequest takes the handshake for a start-up message, and closes.
        (_, client) => {
            let error = client.expect_err("PostgreSQL before 17");
            println!("{error}");
            assert!(matches!(error.kind(), Kind::Connect | Kind::Tls), "{error}");
        }
    }
    cluster.shutdown().await.expect("an orderly end");
}
