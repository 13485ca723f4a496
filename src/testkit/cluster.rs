//! The local cluster: startup, shutdown and getters.
//!
//! [`faults`](super::faults), [`topology`](super::topology) and [`credentials`](super::credentials) contain the
//! operations on a running cluster.

use std::{
    fmt,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

use tokio_postgres::Client;

use super::{
    Account, ClusterBuilder, DnsServer, Error, Pod, PodRole, PodState, Programs, Shutdown, account,
    cluster_config::{ClusterConfig, SUPERUSER, identifier, quoted, url_encoded},
    command, lock,
    ports::{self, PodPort},
    server::Server,
    watcher::Watcher,
};

/// The address of the first Pod. The DNS server listens on 127.0.0.1.
const FIRST_ADDRESS: u32 = u32::from_be_bytes([127, 0, 0, 2]);

/// A local StatefulSet: real PostgreSQL servers and the DNS server that publishes them.
///
/// Each Pod is one server with its own loopback address; all Pods share one port. Pod 0 starts as the primary, the
/// others as its standbys. See [the module](crate::testkit) for an example.
///
/// Operations that start, stop or change Pods run one at a time, in the order of the calls, and return when their
/// effect is complete. Dropping the cluster kills the servers and removes all files. Both also happen when this process
/// ends, even by SIGKILL.
pub struct Cluster {
    pub(super) config: Arc<ClusterConfig>,
    pub(super) name: String,
    pub(super) follow_readiness: bool,
    service: String,
    pub(super) dns: DnsServer,
    next_address: AtomicU32,
    pub(super) pods: Mutex<Pods>,
    /// The lock that each operation holds, so that operations run one at a time.
    pub(super) operation: tokio::sync::Mutex<()>,
    watcher: Option<Watcher>,
    _port: PodPort,
}

/// The servers of a cluster, by ordinal.
pub(super) struct Pods {
    /// The servers of the current StatefulSet.
    pub(super) present: Vec<Arc<Server>>,
    /// The servers that were removed by scaling down. They keep their data. The vector is a stack: the ordinal of its
    /// last server follows the highest ordinal in `present`.
    pub(super) retired: Vec<Arc<Server>>,
    /// The most recently promoted server, initially Pod 0, even if it is down or was removed by scaling down.
    pub(super) primary: Arc<Server>,
}

impl Cluster {
    /// Starts a cluster with this number of Pods and default settings.
    ///
    /// # Errors
    ///
    /// The same as for [`ClusterBuilder::start`].
    pub async fn start(pods: usize) -> Result<Self, Error> {
        Self::builder().pods(pods).start().await
    }

    /// Returns a builder with default settings.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::new()
    }

    /// Returns the URL with which an application connects to the cluster. It contains the Service's name, the Pods'
    /// port and the cluster's DNS server. The pool discovers the Pods from their address records.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_to(&self.service, &format!("?nameservers={}", self.dns.address()))
    }

    /// Returns the [`url`](Self::url) with discovery from SRV records, which contain the Pods' names.
    #[must_use]
    pub fn srv_url(&self) -> String {
        format!("{}&discovery=srv&port_name={}", self.url(), url_encoded(&self.dns.port_name()))
    }

    /// Returns the URL of one Pod, which contains the Pod's address and needs no DNS.
    ///
    /// # Panics
    ///
    /// If there is no such Pod.
    #[must_use]
    pub fn pod_url(&self, ordinal: usize) -> String {
        self.url_to(&self.pod(ordinal).address().ip().to_string(), "")
    }

    /// Returns the DNS server.
    #[must_use]
    pub fn dns(&self) -> &DnsServer {
        &self.dns
    }

    /// Returns the Service's fully qualified name.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// Returns the port that all Pods share.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.config.port
    }

    /// Returns the application's user.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.config.user
    }

    /// Returns the application's current password, not URL-encoded. [`set_password`](Cluster::set_password) changes it.
    #[must_use]
    pub fn password(&self) -> String {
        lock(&self.config.password).clone()
    }

    /// Returns the application's database.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.config.database
    }

    /// Returns the major version of the servers, such as 17.
    #[must_use]
    pub fn postgres_version(&self) -> u32 {
        self.config.programs.major()
    }

    /// Returns the number of Pods, running or not.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.pods).present.len()
    }

    /// Returns true if the cluster is scaled to zero.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns a snapshot of one Pod.
    ///
    /// # Panics
    ///
    /// If there is no such Pod.
    #[must_use]
    pub fn pod(&self, ordinal: usize) -> Pod {
        let mut pods = self.pods();
        assert!(ordinal < pods.len(), "no Pod has ordinal {ordinal}: the cluster has {} Pods", pods.len());
        pods.swap_remove(ordinal)
    }

    /// Returns a snapshot of every Pod, by ordinal.
    #[must_use]
    pub fn pods(&self) -> Vec<Pod> {
        let servers = lock(&self.pods).present.clone();
        // Cannot fail: the Service's name was checked at the start.
        let published = self.dns.pods(&self.service).unwrap_or_default();
        let pod = |server: Arc<Server>| {
            let (state, pid) = server.state();
            let endpoint = server.endpoint();
            let published = published.contains(&endpoint);
            Pod { name: server.name().to_owned(), role: server.role(), endpoint, state, pid, published }
        };
        servers.into_iter().map(pod).collect()
    }

    /// Returns the ordinal of the most recently promoted Pod, initially 0, even if the Pod is down. Returns `None` if
    /// the Pod was removed by scaling down.
    #[must_use]
    pub fn primary(&self) -> Option<usize> {
        let pods = lock(&self.pods);
        pods.present.iter().position(|server| Arc::ptr_eq(server, &pods.primary))
    }

    /// Connects to the application's database on one Pod as the superuser, without a pool. For assertions in tests.
    ///
    /// The connection runs on the caller's runtime. Dropping the client closes it.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPod`], [`Error::Sql`] and [`Error::Timeout`] (10 s).
    pub async fn client(&self, ordinal: usize) -> Result<Client, Error> {
        self.server(ordinal)?.connect(&self.config.database).await
    }

    /// Returns the directory that contains the servers' files. The log of the Pod `NAME` is the file `NAME/log` in it.
    #[must_use]
    pub fn directory(&self) -> &std::path::Path {
        &self.config.directory
    }

    /// Shuts the servers down cleanly and removes all files.
    ///
    /// # Errors
    ///
    /// The first error from stopping a server. The files are removed even if a server cannot be stopped.
    pub async fn shutdown(self) -> Result<(), Error> {
        let servers = lock(&self.pods).present.clone();
        let mut stopped = Ok(());
        // A stopping primary waits until its connected standbys have received all WAL. A paused standby would block it.
        for server in servers.iter().filter(|server| server.state().0 == PodState::Paused) {
            let resumed = server.resume().await;
            stopped = stopped.and(resumed);
        }
        for server in servers {
            let stop = server.stop(Shutdown::Fast).await;
            stopped = stopped.and(stop);
        }
        self.dns.stop().await;
        let cleaned = tokio::task::spawn_blocking(move || drop(self)).await;
        stopped.and(cleaned.map_err(|source| Error::io("clean up the cluster", std::io::Error::other(source))))
    }

    pub(super) async fn build(builder: ClusterBuilder) -> Result<Self, Error> {
        let account = Account::find()?;
        let programs = Programs::find(builder.programs.as_deref(), account).await?;
        let addresses: Vec<_> = (0..builder.pods).map(|i| address(FIRST_ADDRESS + i as u32)).collect();
        for address in &addresses {
            check_address(*address)?;
        }
        let dns = DnsServer::start(&builder.zone).await?;
        dns.set_ttl(builder.ttl);
        dns.set_port_name(&builder.port_name);
        dns.set_pods(&builder.service, [])?;
        let watcher = Watcher::start(builder.directory.as_deref(), account)?;
        let port = PodPort::reserve(&addresses).map_err(|source| Error::io("find a free port for the Pods", source))?;
        let pod = |ordinal: usize| format!("{}-{ordinal}", builder.name);
        let environment = builder.environment.into_iter().map(|(ordinal, name, value)| (pod(ordinal), name, value));
        let config = Arc::new(ClusterConfig {
            programs,
            account,
            directory: watcher.directory().to_path_buf(),
            port: port.number(),
            user: builder.user,
            password: Mutex::new(builder.password),
            database: builder.database,
            secret: (0..32).map(|_| char::from(b'a' + rand::random_range(0..26))).collect(),
            certificate: builder.certificate,
            client_ca: builder.client_ca,
            hba: builder.hba,
            settings: builder.settings,
            environment: environment.collect(),
        });
        let first = SocketAddr::from((addresses[0], config.port));
        let primary = Server::new(Arc::clone(&config), format!("{}-0", builder.name), first, PodRole::Primary)?;
        let primary = Arc::new(primary);
        let pods = Pods { present: vec![Arc::clone(&primary)], retired: Vec::new(), primary: Arc::clone(&primary) };
        // From here on, an error drops the cluster, which kills the servers and removes the files.
        let cluster = Self {
            config,
            name: builder.name,
            follow_readiness: builder.follow_readiness,
            service: builder.service,
            dns,
            next_address: AtomicU32::new(FIRST_ADDRESS + 1),
            pods: Mutex::new(pods),
            operation: tokio::sync::Mutex::new(()),
            watcher: Some(watcher),
            _port: port,
        };
        cluster.initialize(&primary).await?;
        cluster.publish_server(&primary)?;
        cluster.scale(builder.pods).await?;
        Ok(cluster)
    }

    /// Runs `initdb` for the primary, starts it, and creates the application's user and database.
    async fn initialize(&self, primary: &Server) -> Result<(), Error> {
        let config = &self.config;
        let secret = config.directory.join("superuser.secret");
        account::write_file(&secret, &config.secret, config.account)?;
        let mut initdb = config.program("initdb");
        initdb.args(["--no-sync", "--locale=C", "--encoding=UTF8", "--auth=scram-sha-256", "--data-checksums"]);
        // Use small WAL segments, so that there is less to write and to copy for each standby.
        initdb.args(["--wal-segsize=1", "--username", SUPERUSER, "--pwfile"]).arg(&secret);
        command::output(initdb.arg("--pgdata").arg(primary.data())).await?;
        std::fs::remove_file(&secret)
            .map_err(|source| Error::io("remove the file with the superuser's password", source))?;
        primary.start().await?;
        let user = identifier(&config.user);
        let role = format!("CREATE ROLE {user} LOGIN PASSWORD {}", quoted(&self.password()));
        let database = format!("CREATE DATABASE {} OWNER {user}", identifier(&config.database));
        let client = primary.connect("postgres").await?;
        for statement in [role, database] {
            let created = client.batch_execute(&statement).await;
            created.map_err(|source| Error::sql("create the application's user and database", source))?;
        }
        Ok(())
    }

    /// Returns an address that no Pod has used before.
    pub(super) fn fresh_address(&self) -> Result<SocketAddr, Error> {
        loop {
            // Relaxed: the counter orders no other memory access.
            let address = address(self.next_address.fetch_add(1, Ordering::Relaxed));
            check_address(address)?;
            match std::net::TcpListener::bind((address, self.config.port)) {
                Ok(_) => return Ok((address, self.config.port).into()),
                Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {}
                Err(source) => return Err(Error::io(format!("bind a Pod's address {address}"), source)),
            }
        }
    }

    pub(super) fn server(&self, ordinal: usize) -> Result<Arc<Server>, Error> {
        let pods = lock(&self.pods);
        let found = pods.present.get(ordinal).cloned();
        found.ok_or(Error::NoSuchPod { ordinal, pods: pods.present.len() })
    }

    pub(super) fn publish_server(&self, server: &Server) -> Result<(), Error> {
        self.dns.add(&self.service, server.endpoint())
    }

    pub(super) fn unpublish_server(&self, server: &Server) -> Result<(), Error> {
        self.dns.remove(&self.service, &server.endpoint())
    }

    fn url_to(&self, host: &str, query: &str) -> String {
        let ClusterConfig { user, database, port, .. } = &*self.config;
        let [user, password, database] = [user, &self.password(), database].map(|part| url_encoded(part));
        format!("postgres://{user}:{password}@{host}:{port}/{database}{query}")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Dropping the watcher waits until every server process has ended. The servers are dropped afterwards and only
        // reap their zombie processes.
        drop(self.watcher.take());
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("service", &self.service).field("pods", &self.pods()).finish_non_exhaustive()
    }
}

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(number)
}

fn check_address(address: Ipv4Addr) -> Result<(), Error> {
    match ports::exists(address) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::Address { address }),
        Err(source) => Err(Error::io(format!("bind a Pod's address {address}"), source)),
    }
}
