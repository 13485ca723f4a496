use std::{path::PathBuf, time::Duration};

use super::{Cluster, Error, certificate::Certificate, dns::DEFAULT_PORT_NAME};

/// How a [`Cluster`] shall be. Every setting has a default that suits most tests.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it is started"]
pub struct ClusterBuilder {
    pub(super) pods: usize,
    pub(super) name: String,
    pub(super) service: String,
    pub(super) zone: String,
    pub(super) port_name: String,
    pub(super) ttl: Duration,
    pub(super) follow_readiness: bool,
    pub(super) user: String,
    pub(super) password: String,
    pub(super) database: String,
    pub(super) settings: Vec<(String, String)>,
    pub(super) certificate: Option<Certificate>,
    pub(super) client_ca: Option<String>,
    pub(super) hba: Option<String>,
    pub(super) directory: Option<PathBuf>,
}

impl ClusterBuilder {
    pub(super) fn new() -> Self {
        Self {
            pods: 3,
            name: "postgresql-sfs".to_owned(),
            service: "postgresql-svc.k8s-training.svc.cluster.local".to_owned(),
            zone: "cluster.local".to_owned(),
            port_name: DEFAULT_PORT_NAME.to_owned(),
            ttl: Duration::from_secs(1),
            follow_readiness: false,
            user: "user".to_owned(),
            password: "p@ss:w/rd%".to_owned(),
            database: "database".to_owned(),
            settings: Vec::new(),
            certificate: None,
            client_ca: None,
            hba: None,
            directory: None,
        }
    }

    /// How many Pods: 3 unless set, at least 1.
    pub fn pods(mut self, pods: usize) -> Self {
        self.pods = pods;
        self
    }

    /// The StatefulSet's name, before the Pods' ordinals: `postgresql-sfs` unless set.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The headless Service's whole name: `postgresql-svc.k8s-training.svc.cluster.local` unless set.
    pub fn service(mut self, service: impl Into<String>) -> Self {
        self.service = service.into();
        self
    }

    /// The zone of the name server, which the Service's name has to end with: `cluster.local` unless set.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = zone.into();
        self
    }

    /// The name of the Pods' port in SRV records: `postgresql-port` unless set.
    pub fn port_name(mut self, port_name: impl Into<String>) -> Self {
        self.port_name = port_name.into();
        self
    }

    /// How long DNS answers may be kept, in whole seconds: 1 s unless set, so that tests need not wait long.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Whether DNS follows at once when a Pod is killed, stopped, paused, started or resumed, as it does in Kubernetes
    /// some seconds later, when the readiness probe has noticed. Off unless set: a dead Pod's record stays until
    /// [`Cluster::unpublish`], which is the harder case for a client.
    ///
    /// Scaling and moving change DNS either way.
    pub fn follow_readiness(mut self, follow_readiness: bool) -> Self {
        self.follow_readiness = follow_readiness;
        self
    }

    /// The application's user, an ordinary one that owns the database: `user` unless set.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// The application's password: one full of characters that a URL has to encode, unless set.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = password.into();
        self
    }

    /// The application's database: `database` unless set.
    pub fn database(mut self, database: impl Into<String>) -> Self {
        self.database = database.into();
        self
    }

    /// A line for every server's `postgresql.conf`, such as `max_connections` and `20`. The last one wins.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Has every server offer TLS with this certificate and its key, both PEM; none unless set. A certificate is
    /// followed by those that lead to its authority. [`Cluster::set_certificate`] changes one server's.
    pub fn certificate(mut self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.certificate = Some(Certificate { certificate: certificate.into(), key: key.into() });
        self
    }

    /// The PEM certificates of the authorities whose client certificates the servers accept: `ssl_ca_file`. Goes with
    /// [`certificate`](Self::certificate).
    pub fn client_ca(mut self, certificates: impl Into<String>) -> Self {
        self.client_ca = Some(certificates.into());
        self
    }

    /// The lines of `pg_hba.conf` for everybody but the superuser, such as `hostssl all all 127.0.0.0/8 scram-sha-256
    /// clientcert=verify-ca`. Unless set, everybody comes in from this machine with a SCRAM password, over TLS or not.
    pub fn hba(mut self, lines: impl Into<String>) -> Self {
        self.hba = Some(lines.into());
        self
    }

    /// Where the cluster's own directory is made. Unless set: in memory (`/dev/shm`) where that has a gigabyte free,
    /// which starts a cluster several times as fast; otherwise in the system's directory for temporary files. The
    /// servers' user has to be able to write to it, which is not root.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Starts the servers and the name server, and returns when every standby streams and every Pod is published.
    ///
    /// # Errors
    ///
    /// [`Error::ProgramsMissing`] where PostgreSQL is not installed, [`Error::Address`] where the machine knows only
    /// 127.0.0.1, [`Error::Setting`] and [`Error::Name`] for settings that cannot be, and what the servers say.
    pub async fn start(self) -> Result<Cluster, Error> {
        self.check()?;
        Cluster::build(self).await
    }

    fn check(&self) -> Result<(), Error> {
        let refuse = |setting, expected| Err(Error::Setting { setting, expected });
        if self.pods == 0 {
            return refuse("pods", "at least 1");
        }
        for (setting, value) in [("user", &self.user), ("password", &self.password), ("database", &self.database)] {
            if value.is_empty() || value.contains('\0') {
                return refuse(setting, "something, without a zero byte");
            }
        }
        if self.client_ca.is_some() && self.certificate.is_none() {
            return refuse("client_ca", "a `certificate` beside it");
        }
        let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > 50 || !self.name.chars().all(label) {
            return refuse("name", "at most 50 lower-case letters, digits and dashes");
        }
        for (name, value) in &self.settings {
            if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.') || value.contains('\n') {
                return refuse("setting", "the name of a PostgreSQL setting, and a value on one line");
            }
        }
        Ok(())
    }
}
