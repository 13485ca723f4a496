//! TLS to every Pod behind one name: which name is verified, what the servers say of it, and what a wrong one looks like.
//!
//! `DATABASE_URL="postgres://user:password@postgresql-svc.k8s-training.svc.cluster.local/database\
//!     ?sslmode=verify-full&sslrootcert=ca.crt" cargo run --example tls`
//!
//! The pool dials addresses, which no certificate can know. The name that a certificate has to be for is, by
//! `ssl_verify_name`:
//!
//! - `service`, the default: the host of the URL, so that one certificate serves every Pod;
//! - `pod`: each Pod's own name, which SRV records tell (`discovery=srv&port_name=postgresql-port`);
//! - a name: that one, whatever the URL says.

use std::{collections::BTreeMap, error::Error as _};

use podpool::{
    Client, Config, Pool, Target, TlsError,
    config::ssl::{SslMode, VerifiedName},
    tokio_postgres::Error,
};

/// The Pod that answers, and how the server says that it is spoken to.
async fn encrypted(client: Client) -> Result<(String, String), Error> {
    let question = "SELECT version, cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl";
    let row = client.query_one(question, &[]).await?;
    let (version, cipher): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let pod = client.endpoint();
    // Where SRV records tell no name, it is known by its address.
    let name = pod.host().map_or_else(|| pod.address().to_string(), ToOwned::to_owned);
    Ok((name, format!("{version}, {cipher}")))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config: Config = std::env::var("DATABASE_URL")?.parse()?;
    if config.ssl_mode() != SslMode::VerifyFull {
        return Err(format!("sslmode is {}: only verify-full verifies a name", config.ssl_mode()).into());
    }
    let pool = Pool::builder(config.clone()).build()?;
    pool.wait_ready(Target::Any, config.limits().acquire_timeout).await?;

    // Whom the policy picks is its own affair: until everybody who is there has answered, or for so many times.
    let (mut answers, mut asked) = (BTreeMap::new(), 0);
    while asked < 1000 && (asked < 10 || answers.len() < pool.status().endpoints.len()) {
        let (pod, how) = pool.retry(Target::Any, encrypted).await?;
        answers.insert(pod, how);
        asked += 1;
    }
    for (pod, how) in &answers {
        let verified = match config.ssl().verified_name() {
            VerifiedName::Pod => pod.clone(),
            VerifiedName::Service => config.host().to_string(),
            other => other.to_string(),
        };
        println!("{pod}: {how}, verified as {verified}");
    }
    pool.close().await;

    // Another name is on no certificate: every Pod is refused, at once and not at the deadline.
    let wrong = config.ssl().clone().with_verified_name("somebody-else.example".parse()?);
    let pool = Pool::builder(config.with_ssl(wrong)).build()?;
    let Err(error) = pool.get().await else { return Err("a certificate for somebody-else.example?".into()) };
    for attempt in error.attempts() {
        let Some(refused) = attempt.cause().and_then(|cause| cause.downcast_ref::<TlsError>()) else { continue };
        let why = refused.source().map(ToString::to_string).unwrap_or_default();
        println!("as somebody-else.example: {} {}: {refused}: {why}", attempt.address(), refused.reason());
    }
    println!("an error of kind `{}`", error.kind());
    Ok(())
}
