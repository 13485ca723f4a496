//! An application that uses podpool with FIPS 140-3 approved cryptography, as docs/tls.md describes. It connects to two
//! local servers, one that offers only ChaCha20-Poly1305, which FIPS 140-3 does not approve, and one that offers only
//! AES-GCM. The validated module refuses the first. A build without the feature `fips` uses both, which shows that the
//! check can fail.

use std::error::Error;

use podpool::{Attempt, Config, Pool, TlsError, TlsReason, config::ssl::SslMode, testkit::Cluster};
use rcgen::{CertifiedKey, generate_simple_self_signed};

/// True if this program is built with the validated module.
const FIPS: bool = cfg!(feature = "fips");

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let approved = rustls::crypto::aws_lc_rs::default_provider().fips();
    println!("feature `fips`: {FIPS}; the provider is in FIPS mode: {approved}");
    assert_eq!(approved, FIPS, "the mode of the provider");
    let aes = cipher("ECDHE-ECDSA-AES256-GCM-SHA384").await?;
    println!("server with AES-GCM: {aes:?}");
    assert_eq!(aes.as_deref(), Ok("ECDHE-ECDSA-AES256-GCM-SHA384"));
    let chacha = cipher("ECDHE-ECDSA-CHACHA20-POLY1305").await?;
    println!("server with ChaCha20-Poly1305: {chacha:?}");
    match FIPS {
        true => assert_eq!(chacha, Err(TlsReason::Protocol)),
        false => assert_eq!(chacha.as_deref(), Ok("ECDHE-ECDSA-CHACHA20-POLY1305")),
    }
    Ok(())
}

/// Starts a server that offers only this cipher suite, and returns the cipher suite of a connection to it, or the
/// reason for which TLS failed.
async fn cipher(suite: &str) -> Result<Result<String, TlsReason>, Box<dyn Error>> {
    let service = "postgresql-svc.k8s-training.svc.cluster.local";
    let CertifiedKey { cert, signing_key } = generate_simple_self_signed([service.to_owned()])?;
    let cluster = Cluster::builder()
        .pods(1)
        .certificate(cert.pem(), signing_key.serialize_pem())
        .setting("ssl_max_protocol_version", "TLSv1.2")
        .setting("ssl_ciphers", suite)
        .start()
        .await?;
    let authority = tempfile::NamedTempFile::new()?;
    std::fs::write(authority.path(), cert.pem())?;
    let config: Config = cluster.url().parse()?;
    let ssl = config.ssl().clone().with_mode(SslMode::VerifyFull).with_root_cert(authority.path());
    let pool = Pool::builder(config.with_ssl(ssl)).build()?;
    let result = match pool.get().await {
        Ok(client) => {
            let query = "SELECT cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
            Ok(client.query_one(query, &[]).await?.get(0))
        }
        Err(error) => {
            let causes = error.attempts().iter().filter_map(Attempt::cause);
            let reasons = causes.filter_map(|cause| cause.downcast_ref::<TlsError>()).map(TlsError::reason);
            Err(reasons.last().ok_or(error)?)
        }
    };
    pool.close().await;
    cluster.shutdown().await?;
    Ok(result)
}
