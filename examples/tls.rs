//! TLS to every Pod behind a Service: print the TLS session and the verified name for each Pod, and the error for a
//! wrong name.
//!
//! `DATABASE_URL="postgres://user:password@postgresql-svc.k8s-training.svc.cluster.local/database\
//!     ?sslmode=verify-full&sslrootcert=ca.crt" cargo run --example tls`
//!
//! The pool connects to IP addresses, which certificates usually do not contain. The parameter `ssl_verify_name` sets
//! the name that a certificate must contain:
//!
//! - `service` (default): the host of the URL, so that one certificate is valid for every Pod
//! - `pod`: the name of each Pod, from SRV records (`discovery=srv&port_name=postgresql-port`)
//! - any other value: the value itself, so that one certificate is valid for every Pod

use std::{collections::BTreeMap, error::Error as _};

use podpool::{
    Client, Config, Pool, Target, TlsError,
    config::ssl::{SslMode, VerifiedName},
    tokio_postgres::Error,
};

/// Returns the name of the Pod, and the TLS version and cipher that the server reports.
async fn tls_session(client: Client) -> Result<(String, String), Error> {
    let query = "SELECT version, cipher FROM pg_stat_ssl WHERE pid = pg_backend_pid() AND ssl";
    let row = client.query_one(query, &[]).await?;
    let (version, cipher): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let pod = client.endpoint();
    // Pods have names only with discovery from SRV records.
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

    // The policy picks a Pod for each query, so repeat the query until every Pod has responded.
    let (mut sessions, mut queries) = (BTreeMap::new(), 0);
    while queries < 1000 && (queries < 10 || sessions.len() < pool.status().endpoints.len()) {
        let (pod, session) = pool.retry(Target::Any, tls_session).await?;
        sessions.insert(pod, session);
        queries += 1;
    }
    for (pod, session) in &sessions {
        let verified = match config.ssl().verified_name() {
            VerifiedName::Pod => pod.clone(),
            VerifiedName::Service => config.host().to_string(),
            other => other.to_string(),
        };
        println!("{pod}: {session}, verified as {verified}");
    }
    pool.close().await;

    // No certificate contains this name, so the checkout fails immediately instead of at its deadline.
    let wrong = config.ssl().clone().with_verified_name("wrong.example".parse()?);
    let pool = Pool::builder(config.with_ssl(wrong)).build()?;
    let Err(error) = pool.get().await else { return Err("wrong.example was accepted".into()) };
    for attempt in error.attempts() {
        let Some(tls) = attempt.cause().and_then(|cause| cause.downcast_ref::<TlsError>()) else { continue };
        let source = tls.source().map(ToString::to_string).unwrap_or_default();
        println!("as wrong.example: {} {}: {tls}: {source}", attempt.address(), tls.reason());
    }
    println!("an error of kind `{}`", error.kind());
    Ok(())
}
