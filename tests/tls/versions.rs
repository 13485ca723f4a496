//! Tests `ssl_min_protocol_version` and `ssl_max_protocol_version`, and servers that support only obsolete versions.

use podpool::{
    Endpoint, Error, Pool, TlsReason,
    config::ssl::{Ssl, SslMode, TlsVersion},
    discovery::Fixed,
    testkit::Cluster,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use crate::{Authority, SERVICE, assert_refused, cluster, config, pool, seen_by_server};

/// Limits the TLS versions of the server.
async fn limit(cluster: &Cluster, min: &str, max: &str) {
    let client = cluster.client(0).await.expect("the superuser connects");
    for (setting, value) in [("ssl_min_protocol_version", min), ("ssl_max_protocol_version", max)] {
        let statement = format!("ALTER SYSTEM SET {setting} = '{value}'");
        client.batch_execute(&statement).await.expect("the setting is changed");
    }
    client.batch_execute("SELECT pg_reload_conf()").await.expect("the server reloads its configuration");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    loop {
        // A new session has the values that its server process started with.
        let client = cluster.client(0).await.expect("the superuser connects");
        let row = client.query_one("SHOW ssl_max_protocol_version", &[]).await.expect("the query succeeds");
        if row.get::<_, &str>(0) == max {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "the server has not reloaded its configuration");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Asserts that the error reports a TLS version that the server lacks, and names the parameters.
#[track_caller]
fn assert_no_common_version(error: &Error) {
    assert_refused(error, TlsReason::Protocol);
    for parameter in ["`ssl_min_protocol_version`", "`ssl_max_protocol_version`"] {
        assert!(error.to_string().contains(parameter), "the error does not name {parameter}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_use_only_the_configured_versions() {
    let cluster = cluster(1, &Authority::new("ours").issue(&[SERVICE])).start().await.expect("the cluster starts");
    let require = || Ssl::new(SslMode::Require);
    for (ssl, version) in [
        (require(), "TLSv1.3"),
        (require().with_max_protocol_version(TlsVersion::V1_2), "TLSv1.2"),
        (require().with_min_protocol_version(TlsVersion::V1_3), "TLSv1.3"),
    ] {
        let pool = pool(config(&cluster, ssl));
        let client = pool.get().await.expect("checkout succeeds");
        assert_eq!(seen_by_server(&client).await.version.as_deref(), Some(version));
    }

    limit(&cluster, "TLSv1.2", "TLSv1.2").await;
    let error = pool(config(&cluster, require().with_min_protocol_version(TlsVersion::V1_3))).get().await;
    assert_no_common_version(&error.expect_err("the server has only TLS 1.2"));

    limit(&cluster, "TLSv1", "TLSv1.1").await;
    let error = pool(config(&cluster, require())).get().await;
    assert_no_common_version(&error.expect_err("the server has only TLS 1.1"));
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// A ServerHello of TLS 1.1 (RFC 4346) in its record: 32 random bytes, no session, the cipher suite
/// TLS_RSA_WITH_AES_128_CBC_SHA, and no compression.
fn server_hello() -> Vec<u8> {
    let body = [&[3, 2][..], &[7; 32], &[0, 0, 0x2f, 0]].concat();
    let handshake = [&[2, 0, 0, body.len() as u8], body.as_slice()].concat();
    [&[0x16, 3, 2, 0, handshake.len() as u8], handshake.as_slice()].concat()
}

/// OpenSSL's servers respond with an alert. Others choose an obsolete version in their ServerHello.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_chooses_an_obsolete_version_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("the listener binds");
    let address = listener.local_addr().expect("the listener has an address");
    let server = tokio::spawn(async move {
        loop {
            let Ok((mut socket, _)) = listener.accept().await else { return };
            let mut buffer = [0; 4096];
            if socket.read_exact(&mut buffer[..8]).await.is_ok() && socket.write_all(b"S").await.is_ok() {
                let _ = socket.read(&mut buffer).await;
                let _ = socket.write_all(&server_hello()).await;
                // Waits until the client closes the connection.
                while socket.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
            }
        }
    });
    let config = podpool::Config::new(SERVICE).expect("the name parses").with_user("app");
    let resolver = Fixed::new([Endpoint::new(address)]);
    let pool = Pool::builder(config.with_ssl(Ssl::new(SslMode::Require))).resolver(resolver).build();
    let error = pool.expect("the pool is created").get().await.expect_err("the server chooses TLS 1.1");
    assert_no_common_version(&error);
    server.abort();
}
