//! Tests a TLS connector that the application supplies.

use podpool::{
    Kind, Pool,
    config::{
        Security,
        ssl::{ChannelBinding, Ssl, SslCertMode, SslMode, TlsVersion},
    },
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{Authority, SERVICE, cluster, config, proxy::accept_any_certificate, seen_by_server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_custom_connector_supports_channel_binding() {
    let cluster = cluster(1, &Authority::new("ours").issue(&[SERVICE])).start().await.expect("the cluster starts");
    let connector = || MakeRustlsConnect::new((*accept_any_certificate()).clone());
    let built = |ssl| Pool::builder(config(&cluster, ssl)).tls_connector(connector()).build();

    let ssl = Ssl::new(SslMode::Require).with_channel_binding(ChannelBinding::Require);
    let pool = built(ssl).expect("the pool is created");
    let client = pool.get().await.expect("checkout succeeds");
    assert!(seen_by_server(&client).await.encrypted, "the connection is not encrypted");
    client.cancel_token().cancel().await.expect("the cancel request is sent over TLS");

    // Parameters that would have no effect with a custom connector are rejected.
    for (ssl, parameter) in [
        (Ssl::new(SslMode::VerifyFull), "sslmode"),
        (Ssl::new(SslMode::Require).with_root_cert("/ca.crt"), "sslrootcert"),
        (Ssl::new(SslMode::Require).with_client_cert("/tls.crt", "/tls.key"), "sslcert"),
        (Ssl::new(SslMode::Require).with_sni(false), "sslsni"),
        (Ssl::new(SslMode::Require).with_crl("/ca.crl"), "sslcrl"),
        (Ssl::new(SslMode::Require).with_cert_mode(SslCertMode::Disable), "sslcertmode"),
        (Ssl::new(SslMode::Require).with_max_protocol_version(TlsVersion::V1_2), "ssl_max_protocol_version"),
    ] {
        let error = built(ssl).expect_err(parameter);
        assert_eq!(error.kind(), Kind::Config);
        assert!(
            error.to_string().contains(&format!("`{parameter}`")),
            "the error does not name `{parameter}`: {error}"
        );
    }
    let strict = config(&cluster, Ssl::default()).with_security(Security::Strict);
    let error = Pool::builder(strict).tls_connector(connector()).build().expect_err("the connector is not strict");
    assert!(error.to_string().contains("conflicting parameter `security`"), "unexpected error: {error}");
    cluster.shutdown().await.expect("the cluster shuts down");
}
