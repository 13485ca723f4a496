//! Tests that a pool with the microservice's URL connects to real servers that have the certificate of the Job and the
//! manifests' `pg_hba.conf`, and to no others.

use std::{fs, path::Path};

use podpool::{
    Config, Error, Kind, Phase, Pool, TlsError, TlsReason, testkit,
    tokio_postgres::{self, error::SqlState},
};

use crate::{
    certificates::Cluster,
    lookup::{CERTIFICATE, CONFIG, MICROSERVICE, SET, container, service_name, template, value},
    read::Manifests,
};

/// A cluster of real servers, and the microservice's URL with the paths of this machine.
struct Servers {
    servers: testkit::Cluster,
    url: String,
}

impl Servers {
    async fn start(job: &Cluster, files: &Path) -> Self {
        let manifests = Manifests::read();
        let set = container(template(&manifests, SET));
        let password = &manifests.secrets["postgresql-secret"].string_data.as_ref().unwrap()["app-password"];
        fs::write(files.join("app-password"), password).expect("the file is written");
        fs::write(files.join("ca.crt"), job.read(CERTIFICATE, "ca.crt")).expect("the file is written");
        let servers = testkit::Cluster::builder()
            .pods(2)
            .user(value(set, "APP_USER"))
            .password(password)
            .database(value(set, "APP_DATABASE"))
            .certificate(job.read(CERTIFICATE, "tls.crt"), job.read(CERTIFICATE, "tls.key"))
            .hba(manifests.config(CONFIG, "pg_hba.conf"))
            .start();
        let servers = servers.await.expect("the servers start");
        assert_eq!(servers.service(), service_name());
        let url = value(container(template(&manifests, MICROSERVICE)), "DATABASE_URL");
        let path = files.display().to_string();
        let url = url.replace("/run/secrets/postgresql-tls", &path).replace("/run/secrets/postgresql", &path);
        // The time limits are longer than the defaults, because the machine may be busy with other tests.
        let limits = "connect_timeout=20&acquire_timeout=60s";
        let url = format!("{url}&{limits}&nameservers={}", servers.dns().address());
        Self { servers, url }
    }

    /// Returns the error of a checkout with a changed URL.
    async fn refused(&self, from: &str, to: &str) -> Error {
        assert!(self.url.contains(from), "{}", self.url);
        let config: Config = self.url.replace(from, to).parse().expect("the URL parses");
        let pool = Pool::builder(config).build().expect("the pool is created");
        let error = pool.get().await.err().unwrap_or_else(|| panic!("accepted with {to}"));
        println!("{to}: {error}");
        assert!(!error.attempts().is_empty(), "{error}");
        error
    }

    /// Asserts that every server refuses a changed URL with SQLSTATE 28000, which means that `pg_hba.conf` rejects it.
    async fn assert_rejected_by_hba(&self, from: &str, to: &str) {
        let error = self.refused(from, to).await;
        assert_eq!(error.kind(), Kind::Auth, "{error}");
        for attempt in error.attempts() {
            let chain = std::iter::successors(
                attempt.cause().map(|cause| cause as &(dyn std::error::Error + 'static)),
                |cause| cause.source(),
            );
            let code = chain.filter_map(|cause| cause.downcast_ref::<tokio_postgres::Error>()).find_map(|it| it.code());
            assert_eq!(code, Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION), "{error}");
            assert!(error.to_string().contains("pg_hba.conf rejects connection"), "{error}");
        }
    }

    async fn assert_tls_error(&self, from: &str, to: &str, reason: TlsReason) {
        let error = self.refused(from, to).await;
        assert_eq!(error.kind(), Kind::Tls, "{error}");
        for attempt in error.attempts() {
            assert_eq!(attempt.phase(), Phase::Tls, "{error}");
            let tls = attempt.cause().and_then(|cause| cause.downcast_ref::<TlsError>());
            assert_eq!(tls.map(TlsError::reason), Some(reason), "{error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn servers_with_the_manifests_accept_only_verified_tls_connections() {
    let (Some(job), Some(other)) = (Cluster::new(), Cluster::new()) else { return };
    job.create();
    other.create();
    let files = tempfile::tempdir().expect("the folder is created");
    let servers = Servers::start(&job, files.path()).await;
    let query = "SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    for verified in ["", "&ssl_verify_name=service", "&ssl_verify_name=pod"] {
        let pool = Pool::connect(&format!("{}{verified}", servers.url)).await.expect("the pool is created");
        for _ in 0..20 {
            let client = pool.get().await.expect("the checkout succeeds");
            let row = client.query_one(query, &[]).await.expect("the query succeeds");
            assert_eq!((row.get(0), row.get(1)), (true, "TLSv1.3"));
        }
        pool.close().await;
    }

    let verify = "sslmode=verify-full";
    servers.assert_tls_error(verify, &format!("{verify}&ssl_verify_name=other.example"), TlsReason::WrongName).await;
    let parent = service_name().split_once('.').expect("the name has labels").1.to_owned();
    servers.assert_tls_error(verify, &format!("{verify}&ssl_verify_name={parent}"), TlsReason::WrongName).await;
    let authority = files.path().join("other.crt");
    fs::write(&authority, other.read(CERTIFICATE, "ca.crt")).expect("the file is written");
    let ca = |path: &Path| format!("sslrootcert={}", path.display());
    servers.assert_tls_error(&ca(&files.path().join("ca.crt")), &ca(&authority), TlsReason::UnknownAuthority).await;

    // The URL with all TLS parameters replaced.
    let tls = servers.url.split_once("&sslmode=").and_then(|(_, rest)| rest.split_once("&connect_timeout="));
    let tls = format!("&sslmode={}", tls.expect("the URL has TLS parameters").0);
    servers.assert_rejected_by_hba(&tls, "&sslmode=disable").await;
    servers.assert_rejected_by_hba("/shop?", "/postgres?").await;
    servers.assert_rejected_by_hba("//app@", "//replicator@").await;
    servers.servers.shutdown().await.expect("the servers stop");
}
