//! A local cluster of PostgreSQL servers that Patroni manages, with etcd and a DNS server that follows the Pods'
//! readiness.

mod control;
mod daemon;
mod etcd;
mod member;
mod readiness;
mod settings;

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use tokio::time::sleep;
use tokio_postgres::Client;

use self::{etcd::Etcd, member::Member, readiness::Readiness};
use super::{
    Account, Cluster, ClusterBuilder, DnsServer, Error, Programs,
    cluster_config::{ClusterConfig, identifier, quoted, url_encoded},
    ports::PodPort,
    processes::POLL_INTERVAL,
    programs::BASE_BACKUP,
    watcher::Watcher,
};
use crate::time::{Duration, Instant};

/// Number of Pods.
const PODS: usize = 3;

/// Timeout for Patroni to create the first server.
const BOOTSTRAP_DEADLINE: Duration = Duration::from_secs(90);

/// Three PostgreSQL servers that [Patroni](https://patroni.readthedocs.io) manages.
///
/// Each Pod runs Patroni and the server that Patroni starts. The leader's lock is in an etcd of one server. DNS names
/// the Pods that pass `GET /readiness` of Patroni, checked once per second; a Pod that fails three checks is removed.
/// Replication is synchronous until [`set_synchronous`](Self::set_synchronous). Patroni runs with its minimum `ttl` of
/// 20 s, a `loop_wait` of 1 s and a `retry_timeout` of 3 s. The application's role is a member of `pg_read_all_stats`.
///
/// Dropping the cluster kills all processes and removes all files. Both also happen when this process ends, even by
/// SIGKILL.
///
/// # Panics
///
/// Methods with an ordinal panic if there is no such Pod.
pub struct PatroniCluster {
    config: Arc<ClusterConfig>,
    patronictl: PathBuf,
    service: String,
    dns: Arc<DnsServer>,
    readiness: Option<Readiness>,
    members: Vec<Member>,
    etcd: Etcd,
    synchronous: AtomicBool,
    watcher: Option<Watcher>,
    _ports: [PodPort; 2],
}

impl PatroniCluster {
    /// Starts a cluster with the programs at these paths: `etcd`, and `patroni` with `patronictl` in the same
    /// directory. If this process runs as root, the account `postgres` must be able to run them. Returns when all Pods
    /// are ready.
    ///
    /// # Errors
    ///
    /// The same as for [`ClusterBuilder::start`].
    pub async fn start(etcd: &Path, patroni: &Path) -> Result<Self, Error> {
        let mut cluster = Self::create(etcd, patroni).await?;
        cluster.etcd.start().await?;
        cluster.bootstrap().await?;
        for member in &cluster.members[1..] {
            member.start()?;
        }
        let pods = cluster.members.iter().map(|member| (member.endpoint(), member.api())).collect();
        cluster.readiness = Some(Readiness::start(&cluster.dns, &cluster.service, pods));
        cluster.stable().await?;
        Ok(cluster)
    }

    async fn create(etcd: &Path, patroni: &Path) -> Result<Self, Error> {
        let ClusterBuilder { name, service, zone, ttl, user, password, database, .. } = Cluster::builder();
        let account = Account::find()?;
        let programs = Programs::find(None, account).await?;
        programs.require(BASE_BACKUP)?;
        // The last address is etcd's. 127.0.0.1 holds the ports.
        let addresses: Vec<_> = (0..=PODS).map(|i| Ipv4Addr::new(127, 0, 0, 2 + i as u8)).collect();
        let dns = Arc::new(DnsServer::start(&zone).await?);
        dns.set_ttl(ttl);
        dns.set_pods(&service, [])?;
        let reserve = || PodPort::reserve(&addresses).map_err(|source| Error::io("find a free port", source));
        let ports = [reserve()?, reserve()?];
        let [port, api] = [ports[0].number(), ports[1].number()];
        let watcher = Watcher::start(None, account)?;
        let config = Arc::new(ClusterConfig {
            programs,
            account,
            directory: watcher.directory().to_path_buf(),
            port,
            user,
            password: Mutex::new(password),
            database,
            secret: (0..32).map(|_| char::from(b'a' + rand::random_range(0..26))).collect(),
            certificate: None,
            client_ca: None,
            hba: None,
            settings: Vec::new(),
            environment: Vec::new(),
        });
        let clients = SocketAddr::from((addresses[PODS], api));
        let etcd = Etcd::new(&config, etcd, [clients, SocketAddr::from((addresses[PODS], port))])?;
        let member = |(i, address): (usize, &Ipv4Addr)| {
            let sockets = [(*address, port).into(), (*address, api).into(), clients];
            Member::new(&config, format!("{name}-{i}"), patroni, sockets)
        };
        let members = addresses[..PODS].iter().enumerate().map(member).collect::<Result<_, _>>()?;
        let patronictl = patroni.with_file_name("patronictl");
        Ok(Self {
            config,
            patronictl,
            service,
            dns,
            readiness: None,
            members,
            etcd,
            synchronous: AtomicBool::new(true),
            watcher: Some(watcher),
            _ports: ports,
        })
    }

    /// Starts the first Pod, which creates the cluster, and creates the application's role and database.
    async fn bootstrap(&self) -> Result<(), Error> {
        self.members[0].start()?;
        let deadline = Instant::now() + BOOTSTRAP_DEADLINE;
        while self.leader().await.is_none() {
            self.members[0].patroni.expect_running()?;
            self.check(deadline, "Patroni to create the cluster")?;
            sleep(POLL_INTERVAL).await;
        }
        let (user, password) = (identifier(&self.config.user), quoted(&super::lock(&self.config.password)));
        let client = self.config.connect(self.address(0), "postgres").await?;
        for statement in [
            format!("CREATE ROLE {user} LOGIN PASSWORD {password} IN ROLE pg_read_all_stats"),
            format!("CREATE DATABASE {} OWNER {user}", identifier(&self.config.database)),
        ] {
            let created = client.batch_execute(&statement).await;
            created.map_err(|source| Error::sql("create the application's user and database", source))?;
        }
        Ok(())
    }

    /// Returns the URL with which an application connects to the cluster.
    #[must_use]
    pub fn url(&self) -> String {
        let ClusterConfig { user, database, port, password, .. } = &*self.config;
        let [user, password, database] = [user, &*super::lock(password), database].map(|part| url_encoded(part));
        format!("postgres://{user}:{password}@{}:{port}/{database}?nameservers={}", self.service, self.dns.address())
    }

    /// Returns the number of Pods.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "the cluster is never empty")]
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Returns the address and port of a Pod's server.
    #[must_use]
    pub fn address(&self, ordinal: usize) -> SocketAddr {
        self.members[ordinal].address()
    }

    /// Returns the name of a Pod, which is also the member's name in Patroni.
    #[must_use]
    pub fn name(&self, ordinal: usize) -> &str {
        self.members[ordinal].name()
    }

    /// Returns the directory that contains the files. The log of the Pod `NAME`, from Patroni and PostgreSQL, is the
    /// file `NAME/log` in it.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.config.directory
    }

    /// Makes DNS follow the Pods' readiness, which is the default, or leaves DNS unchanged from now on.
    pub fn follow_readiness(&self, follow: bool) {
        if let Some(readiness) = &self.readiness {
            readiness.set_enabled(follow);
        }
    }

    /// Connects to the application's database on one Pod as the superuser, without a pool.
    ///
    /// # Errors
    ///
    /// [`Error::Sql`] and [`Error::Timeout`] (10 s).
    pub async fn client(&self, ordinal: usize) -> Result<Client, Error> {
        self.config.connect(self.address(ordinal), &self.config.database).await
    }

    /// Returns the end of each Pod's log.
    fn logs(&self) -> String {
        let tail = |member: &Member| format!("--- {}\n{}\n", member.name(), member.patroni.log_tail());
        self.members.iter().map(tail).collect()
    }

    /// Kills all processes and removes all files.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub async fn shutdown(self) -> Result<(), Error> {
        self.dns.stop().await;
        let cleaned = tokio::task::spawn_blocking(move || drop(self)).await;
        cleaned.map_err(|source| Error::io("clean up the cluster", std::io::Error::other(source)))
    }
}

impl Drop for PatroniCluster {
    fn drop(&mut self) {
        drop(self.readiness.take());
        // Dropping the watcher waits until every process has ended. The daemons are dropped afterwards and only reap
        // their zombie processes.
        drop(self.watcher.take());
    }
}

impl fmt::Debug for PatroniCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PatroniCluster").field("service", &self.service).finish_non_exhaustive()
    }
}
