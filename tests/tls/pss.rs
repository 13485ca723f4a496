//! Tests channel binding with server certificates that are signed with RSASSA-PSS. The certificates are self-signed and
//! contain the Service's name. OpenSSL has created them: `openssl req -x509 -sigopt rsa_padding_mode:pss`.

use podpool::config::ssl::{ChannelBinding, Ssl, SslMode};

use crate::{Identity, cluster, config, pool, seen_by_server, write};

const KEY: &str = include_str!("fixtures/pss.key");
const CERTIFICATES: [(&str, &str); 3] = [
    ("SHA-256", include_str!("fixtures/pss_sha256.crt")),
    ("SHA-384", include_str!("fixtures/pss_sha384.crt")),
    ("SHA-512", include_str!("fixtures/pss_sha512.crt")),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_signed_with_rsassa_pss_have_channel_binding() {
    let identity = |certificate: &str| Identity { certificate: certificate.to_owned(), key: KEY.to_owned() };
    let cluster = cluster(1, &identity(CERTIFICATES[0].1)).start().await.expect("the cluster starts");
    let files = tempfile::tempdir().expect("the temporary directory is created");
    let root = files.path().join("ca.crt");
    for (hash, certificate) in CERTIFICATES {
        let Identity { certificate, key } = identity(certificate);
        write(&root, &certificate);
        cluster.set_certificate(0, certificate, key).await.expect("the certificate is replaced");
        let ssl = Ssl::new(SslMode::VerifyFull).with_root_cert(&*root).with_channel_binding(ChannelBinding::Require);
        // The server compares the hash of its certificate with the client's, so a wrong hash function is detected.
        let pool = pool(config(&cluster, ssl));
        let client = pool.get().await.unwrap_or_else(|error| panic!("{hash}: checkout failed: {error}"));
        assert!(seen_by_server(&client).await.encrypted, "{hash}: not encrypted");
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}
