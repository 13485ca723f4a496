//! Queries the role of every database server, independently of the pool.

use std::{
    collections::HashSet,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use podpool::tokio_postgres::{Client, Config, config::SslMode};
use tokio::{task::JoinSet, time::timeout};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_rustls::rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};

use crate::{
    kubelet::{Node, Worker},
    manifests::SERVICE,
    observed::{Observed, Role},
};

/// Names of the database Pods begin with this.
pub(crate) const PREFIX: &str = "postgresql-sfs-";

/// Interval between two queries.
const PACE: Duration = Duration::from_millis(20);
/// Time limit for a connection and for a response.
const LIMIT: Duration = Duration::from_millis(500);

/// The credentials of the application.
#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) password: String,
    /// The authority's certificate in PEM format.
    pub(crate) authority: String,
}

impl Login {
    /// Connects to a server.
    pub(crate) async fn connect(&self, address: Ipv4Addr) -> Result<Client, podpool::tokio_postgres::Error> {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(self.authority.as_bytes()).expect("the certificate parses");
        roots.add(authority).expect("the certificate is valid");
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider supports the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut config = Config::new();
        config.host(SERVICE).hostaddr(address.into()).user("app").dbname("shop").password(&self.password);
        config.ssl_mode(SslMode::Require).application_name("observer");
        let (client, connection) = config.connect(MakeRustlsConnect::new(tls)).await?;
        tokio::spawn(connection);
        Ok(client)
    }
}

/// Records every change of a server's role, for all database Pods.
pub(crate) async fn observe(node: Arc<Node>, login: Login, observed: Observed) {
    let (mut known, mut tasks) = (HashSet::new(), JoinSet::new());
    loop {
        for pod in node.pods().into_iter().filter(|pod| pod.name.starts_with(PREFIX)) {
            if known.insert(pod.uid.clone()) {
                observed.created(&pod.name, pod.address);
                tasks.spawn(observe_pod(node.clone(), pod, login.clone(), observed.clone()));
            }
        }
        tokio::time::sleep(PACE).await;
    }
}

async fn observe_pod(node: Arc<Node>, pod: Arc<Worker>, login: Login, observed: Observed) {
    let exists = || node.pods().iter().any(|other| other.uid == pod.uid);
    while exists() {
        if let Ok(Ok(client)) = timeout(LIMIT, login.connect(pod.address)).await {
            loop {
                let sent = Instant::now();
                let response = timeout(LIMIT, client.query_one("SELECT pg_is_in_recovery()", &[])).await;
                let Ok(Ok(row)) = response else {
                    observed.role(sent, pod.address, Role::Down);
                    break;
                };
                observed.role(sent, pod.address, if row.get(0) { Role::Standby } else { Role::Primary });
                tokio::time::sleep(PACE).await;
            }
        }
        tokio::time::sleep(PACE).await;
    }
    observed.role(Instant::now(), pod.address, Role::Down);
}
