use podpool::{
    Kind, Pool,
    config::ssl::{ChannelBinding, Ssl, SslMode},
};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{Authority, SERVICE, cluster, config, middle::trusting, seen_by_server};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connector_of_the_users_is_used_with_its_channel_binding() {
    let cluster = cluster(1, &Authority::new("ours").issue(&[SERVICE])).start().await.expect("a cluster");
    let connector = || MakeRustlsConnect::new((*trusting()).clone());
    let built = |ssl| Pool::builder(config(&cluster, ssl)).tls_connector(connector()).build();

    let ssl = Ssl::new(SslMode::Require).with_channel_binding(ChannelBinding::Require);
    let pool = built(ssl).expect("a pool");
    let client = pool.get().await.expect("a connection");
    assert!(seen_by_server(&client).await.0);
    client.cancel_token().cancel().await.expect("nothing to cancel, over TLS");

    // What would have no effect is refused.
    for (ssl, parameter) in [
        (Ssl::new(SslMode::VerifyFull), "sslmode"),
        (Ssl::new(SslMode::Require).with_root_cert("/ca.crt"), "sslrootcert"),
        (Ssl::new(SslMode::Require).with_client_cert("/tls.crt", "/tls.key"), "sslcert"),
        (Ssl::new(SslMode::Require).with_sni(false), "sslsni"),
    ] {
        let error = built(ssl).expect_err(parameter);
        assert_eq!(error.kind(), Kind::Config);
        assert!(error.to_string().contains(&format!("`{parameter}`")), "{error}");
    }
    cluster.shutdown().await.expect("an orderly end");
}
