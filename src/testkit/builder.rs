//! The settings of a cluster, and their validation.

use std::{path::PathBuf, time::Duration};

use super::{Cluster, Error, certificate::Certificate, dns::DEFAULT_PORT_NAME};

/// The settings of a [`Cluster`]. Every setting has a default that suits most tests.
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
    pub(super) environment: Vec<(usize, String, String)>,
    pub(super) certificate: Option<Certificate>,
    pub(super) client_ca: Option<String>,
    pub(super) hba: Option<String>,
    pub(super) directory: Option<PathBuf>,
    pub(super) programs: Option<PathBuf>,
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
            environment: Vec::new(),
            certificate: None,
            client_ca: None,
            hba: None,
            directory: None,
            programs: None,
        }
    }

    /// Sets the number of Pods, at least 1. Default: 3.
    pub fn pods(mut self, pods: usize) -> Self {
        self.pods = pods;
        self
    }

    /// Sets the StatefulSet's name, which the Pods' names begin with. Default: `postgresql-sfs`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// Sets the headless Service's fully qualified name. Default: `postgresql-svc.k8s-training.svc.cluster.local`.
    pub fn service(mut self, service: impl Into<String>) -> Self {
        self.service = service.into();
        self
    }

    /// Sets the DNS server's zone, which must contain the Service's name. Default: `cluster.local`.
    pub fn zone(mut self, zone: impl Into<String>) -> Self {
        self.zone = zone.into();
        self
    }

    /// Sets the name of the Pods' port in SRV records. Default: `postgresql-port`.
    pub fn port_name(mut self, port_name: impl Into<String>) -> Self {
        self.port_name = port_name.into();
        self
    }

    /// Sets the TTL of DNS records, rounded up to whole seconds. Default: 1 s, which keeps tests short.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = ttl;
        self
    }

    /// Makes DNS follow the Pods' readiness immediately: a Pod that is killed, stopped or paused is removed from DNS,
    /// and a Pod that is started or resumed is added again. In Kubernetes this happens some seconds later, after the
    /// readiness probe.
    ///
    /// Default: false. The record of a dead Pod then stays in DNS until [`Cluster::unpublish`] removes it, which is a
    /// harder test for a client. Scaling the cluster and moving a Pod change DNS regardless of this setting.
    pub fn follow_readiness(mut self, follow_readiness: bool) -> Self {
        self.follow_readiness = follow_readiness;
        self
    }

    /// Sets the application's user, which is not a superuser and owns the database. Default: `user`.
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = user.into();
        self
    }

    /// Sets the application's password. The default contains characters that must be percent-encoded in a URL.
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = password.into();
        self
    }

    /// Sets the application's database. Default: `database`.
    pub fn database(mut self, database: impl Into<String>) -> Self {
        self.database = database.into();
        self
    }

    /// Adds a parameter to every server's `postgresql.conf`, such as `max_connections` and `20`. A later value for the
    /// same parameter replaces an earlier one.
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }

    /// Sets an environment variable of one Pod's server, such as `LD_PRELOAD`.
    pub fn environment(mut self, ordinal: usize, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.environment.push((ordinal, name.into(), value.into()));
        self
    }

    /// Makes every server offer TLS with this certificate chain (leaf first) and key, both PEM. By default the servers
    /// have no TLS. [`Cluster::set_certificate`] changes the certificate of one server.
    pub fn certificate(mut self, certificate: impl Into<String>, key: impl Into<String>) -> Self {
        self.certificate = Some(Certificate { certificate: certificate.into(), key: key.into() });
        self
    }

    /// Sets the CA certificates (PEM) that the servers verify client certificates against (`ssl_ca_file`). Requires
    /// [`certificate`](Self::certificate).
    pub fn client_ca(mut self, certificates: impl Into<String>) -> Self {
        self.client_ca = Some(certificates.into());
        self
    }

    /// Sets the lines of `pg_hba.conf` for all users except the superuser, such as `hostssl all all 127.0.0.0/8
    /// scram-sha-256 clientcert=verify-ca`. By default, every user can log in from this machine with a SCRAM password,
    /// with or without TLS.
    pub fn hba(mut self, lines: impl Into<String>) -> Self {
        self.hba = Some(lines.into());
        self
    }

    /// Sets the parent of the cluster's directory. The account that runs the servers, which is never root, must be able
    /// to write to it.
    ///
    /// The default is `/dev/shm` if 1 GiB is free there, because a cluster in memory starts several times as fast.
    /// Otherwise, the default is the system's directory for temporary files.
    pub fn directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.directory = Some(directory.into());
        self
    }

    /// Sets the directory of PostgreSQL's server programs, so that one test can run servers of several versions. The
    /// account that runs the servers must be able to run the programs.
    ///
    /// Default: the directory in the environment variable `PG_BIN`, or the first one that is found (see
    /// [the module](crate::testkit#requirements)).
    pub fn programs(mut self, directory: impl Into<PathBuf>) -> Self {
        self.programs = Some(directory.into());
        self
    }

    /// Starts the servers and the DNS server. Returns when every standby streams from the primary and every Pod is
    /// published in DNS.
    ///
    /// # Errors
    ///
    /// [`Error::ProgramsMissing`] if PostgreSQL is not installed, [`Error::Address`] if a Pod's loopback address is not
    /// configured, [`Error::Setting`] and [`Error::Name`] for invalid settings, and any error of starting a server.
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
                return refuse(setting, "a non-empty value without zero bytes");
            }
        }
        if self.client_ca.is_some() && self.certificate.is_none() {
            return refuse("client_ca", "`certificate` to be set too");
        }
        let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > 50 || !self.name.chars().all(label) {
            return refuse("name", "1 to 50 lower-case letters, digits and dashes");
        }
        for (name, value) in &self.settings {
            if !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.') || value.contains('\n') {
                return refuse("setting", "the name of a PostgreSQL parameter, and a value on one line");
            }
        }
        for (ordinal, name, value) in &self.environment {
            if *ordinal >= self.pods || name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                return refuse("environment", "the ordinal of a Pod, a name without `=`, and no zero bytes");
            }
        }
        Ok(())
    }
}
