//! Tests TLS connections to real servers.
//!
//! - [`logins`]: the authentication methods that a server may request, and events about the protection of logins.
//! - [`modes`]: every `sslmode` against servers that require, allow or lack TLS, or that require a client certificate.
//! - [`names`]: certificates for the Service's name, for the Pod's own name, and for another name.
//! - [`refusals`]: server certificates with the wrong name, from an unknown authority, expired, or not yet valid.
//! - [`revocation`]: certificate revocation lists.
//! - [`versions`]: limits on the TLS version, and servers that support only obsolete versions.
//! - [`keys`]: encrypted private keys, requests for client certificates, and the key log file.
//! - [`pss`]: channel binding with certificates signed with RSASSA-PSS.
//! - [`rotation`]: certificates and authorities that change under load, and invalid files.
//! - [`proxies`]: a man-in-the-middle attack, cancel requests, and direct TLS negotiation.
//! - [`custom`]: a TLS connector that the application supplies.

mod authority;
#[path = "../common/mod.rs"]
mod common;
mod custom;
mod keys;
mod login_server;
mod logins;
mod modes;
mod names;
mod proxies;
mod proxy;
mod pss;
mod refusals;
mod revocation;
mod rotation;
mod versions;

use std::path::Path;

use podpool::{
    Attempt, Client, Config, Error, Pool, TlsError, TlsReason,
    config::ssl::Ssl,
    testkit::{Cluster, ClusterBuilder},
};

use authority::{Authority, Identity};

/// Name of the cluster's Service.
const SERVICE: &str = "postgresql-svc.k8s-training.svc.cluster.local";

/// Returns a builder for a cluster whose servers have this certificate.
fn cluster(pods: usize, identity: &Identity) -> ClusterBuilder {
    Cluster::builder().pods(pods).certificate(&identity.certificate, &identity.key)
}

/// Returns a configuration from the cluster's URL with these TLS options.
fn config(cluster: &Cluster, ssl: Ssl) -> Config {
    cluster.url().parse::<Config>().expect("the URL parses").with_ssl(ssl)
}

fn pool(config: Config) -> Pool {
    Pool::builder(config).build().expect("the pool is created")
}

/// Writes a file that only its owner can read.
fn write(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;

    std::fs::write(path, text).expect("the file is written");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("the permissions are set");
}

/// The TLS state of a connection as the server reports it in `pg_stat_ssl`.
struct ServerView {
    encrypted: bool,
    /// TLS version, such as `TLSv1.3`.
    version: Option<String>,
    /// Distinguished name of the client certificate.
    client_dn: Option<String>,
}

/// Returns the TLS state of this connection as the server reports it.
async fn seen_by_server(client: &Client) -> ServerView {
    let query = "SELECT ssl, version, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let row = client.query_one(query, &[]).await.expect("the query succeeds");
    ServerView { encrypted: row.get(0), version: row.get(1), client_dn: row.get(2) }
}

/// Retries the checkout until the pool has recovered from its connection failures, for up to 5 s.
async fn recovered(pool: &Pool) -> Client {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    loop {
        match pool.get().await {
            Ok(client) => return client,
            Err(error) => assert!(std::time::Instant::now() < deadline, "the pool has not recovered: {error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// Returns the reason if the attempt failed in TLS.
fn reason(attempt: &Attempt) -> Option<TlsReason> {
    attempt.cause()?.downcast_ref::<TlsError>().map(TlsError::reason)
}

/// Asserts that a checkout failed in TLS for this reason on every Pod, well before its deadline of 5 s.
#[track_caller]
fn assert_refused(error: &Error, expected: TlsReason) {
    println!("{error}");
    assert_eq!(error.kind(), podpool::Kind::Tls, "unexpected error: {error}");
    assert!(!error.attempts().is_empty(), "the error has no attempts: {error}");
    for attempt in error.attempts() {
        assert_eq!(attempt.phase(), podpool::Phase::Tls, "unexpected phase: {error}");
        assert_eq!(reason(attempt), Some(expected), "unexpected reason: {error}");
    }
    let elapsed = error.elapsed().expect("the error has an elapsed time");
    assert!(elapsed.as_secs() < 3, "the checkout took {elapsed:?} to fail: {error}");
}
