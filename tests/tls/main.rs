//! TLS to real servers: who is trusted, what is refused and how that is told, and how certificates are rotated.

mod authority;
#[path = "../common/mod.rs"]
mod common;
mod custom;
mod middle;
mod modes;
mod names;
mod proxies;
mod refusals;
mod rotation;

use std::path::Path;

use podpool::{
    Attempt, Client, Config, Error, Pool, TlsError, TlsReason,
    config::ssl::Ssl,
    testkit::{Cluster, ClusterBuilder},
};

use authority::{Authority, Identity};

/// The name of the cluster's Service.
const SERVICE: &str = "postgresql-svc.k8s-training.svc.cluster.local";

/// A cluster with this certificate.
fn cluster(pods: usize, identity: &Identity) -> ClusterBuilder {
    Cluster::builder().pods(pods).certificate(&identity.certificate, &identity.key)
}

/// What an application would configure, with this about TLS.
fn config(cluster: &Cluster, ssl: Ssl) -> Config {
    cluster.url().parse::<Config>().expect("a URL").with_ssl(ssl)
}

fn pool(config: Config) -> Pool {
    Pool::builder(config).build().expect("a pool")
}

/// Writes a file that its owner alone can read.
fn write(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt;

    std::fs::write(path, text).expect("a file");
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("permissions");
}

/// What the server says of the connection that asks: whether it is encrypted, how, and whose client certificate it has.
async fn seen_by_server(client: &Client) -> (bool, Option<String>, Option<String>) {
    let question = "SELECT ssl, version, client_dn FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    let row = client.query_one(question, &[]).await.expect("an answer");
    (row.get(0), row.get(1), row.get(2))
}

/// Waits until a pool whose every Pod was refused gets in after all.
async fn mended(pool: &Pool) -> Client {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    loop {
        match pool.get().await {
            Ok(client) => return client,
            Err(error) => assert!(std::time::Instant::now() < deadline, "still: {error}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

/// The reason that an attempt failed for, where it is TLS's.
fn reason(attempt: &Attempt) -> Option<TlsReason> {
    attempt.cause()?.downcast_ref::<TlsError>().map(TlsError::reason)
}

/// Asserts that a call failed over TLS for this reason on every Pod, and did not wait for its deadline.
#[track_caller]
fn assert_refused(error: &Error, reason_: TlsReason) {
    println!("{error}");
    assert_eq!(error.kind(), podpool::Kind::Tls, "{error}");
    assert!(!error.attempts().is_empty(), "{error}");
    for attempt in error.attempts() {
        assert_eq!(attempt.phase(), podpool::Phase::Tls, "{error}");
        assert_eq!(reason(attempt), Some(reason_), "{error}");
    }
    let elapsed = error.elapsed().expect("measured");
    assert!(elapsed.as_secs() < 3, "it fails at once, not at the deadline of 5 s: {error}");
}
