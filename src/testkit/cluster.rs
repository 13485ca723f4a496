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
    Account, ClusterBuilder, DnsServer, Error, Pod, Programs, Role, Shutdown, State, account, command, lock,
    ports::{self, PodPort},
    server::Server,
    site::{SUPERUSER, Site, identifier, quoted, url_encoded},
    watcher::Watcher,
};

/// The address of the first Pod. 127.0.0.1 is left to the name server.
const FIRST_ADDRESS: u32 = u32::from_be_bytes([127, 0, 0, 2]);

/// A local StatefulSet: real PostgreSQL servers, one a Pod, each on a loopback address of its own, with one port for
/// all of them, and a name server that tells who is there. Pod 0 starts as the primary, the others as its standbys.
///
/// See [the module](crate::testkit) for an example. Operations are done one after the other, whoever asks; all of them
/// return when what they did has come about. Dropping the cluster kills the servers and removes every file; so does
/// the end of this process, whichever way it ends.
pub struct Cluster {
    pub(super) site: Arc<Site>,
    pub(super) name: String,
    pub(super) follow_readiness: bool,
    service: String,
    pub(super) dns: DnsServer,
    next_address: AtomicU32,
    pub(super) pods: Mutex<Pods>,
    /// One operation at a time.
    pub(super) operation: tokio::sync::Mutex<()>,
    watcher: Option<Watcher>,
    _port: PodPort,
}

/// The servers by ordinal.
pub(super) struct Pods {
    /// Those that the StatefulSet has now.
    pub(super) present: Vec<Arc<Server>>,
    /// Those that were scaled away, with the data they had; the Pod after the last of `present` comes last.
    pub(super) volumes: Vec<Arc<Server>>,
    /// The last one that was made the primary, also when it is down or scaled away.
    pub(super) primary: Arc<Server>,
}

impl Cluster {
    /// Starts a cluster of so many Pods with every other setting at its default.
    ///
    /// # Errors
    ///
    /// As [`ClusterBuilder::start`].
    pub async fn start(pods: usize) -> Result<Self, Error> {
        Self::builder().pods(pods).start().await
    }

    /// The settings of a cluster, to be changed before it starts.
    pub fn builder() -> ClusterBuilder {
        ClusterBuilder::new()
    }

    /// How an application reaches the cluster: by the Service's name, its addresses and the Pods' common port, asking
    /// the cluster's own name server.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_to(&self.service, &format!("?nameservers={}", self.dns.address()))
    }

    /// As [`url`](Self::url), by the Service's SRV records, which tell the Pods' names too.
    #[must_use]
    pub fn srv_url(&self) -> String {
        format!("{}&discovery=srv&port_name={}", self.url(), url_encoded(&self.dns.port_name()))
    }

    /// How an application reaches one Pod by its address, past DNS.
    ///
    /// # Panics
    ///
    /// Where there is no such Pod, as indexing does.
    #[must_use]
    pub fn pod_url(&self, ordinal: usize) -> String {
        self.url_to(&self.pod(ordinal).address().ip().to_string(), "")
    }

    /// The name server.
    #[must_use]
    pub fn dns(&self) -> &DnsServer {
        &self.dns
    }

    /// The Service's whole name.
    #[must_use]
    pub fn service(&self) -> &str {
        &self.service
    }

    /// The port that all Pods share.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.site.port
    }

    /// The application's user.
    #[must_use]
    pub fn user(&self) -> &str {
        &self.site.user
    }

    /// The application's password, as it is, not as a URL has it: the last one that was
    /// [set](Cluster::set_password).
    #[must_use]
    pub fn password(&self) -> String {
        lock(&self.site.password).clone()
    }

    /// The application's database.
    #[must_use]
    pub fn database(&self) -> &str {
        &self.site.database
    }

    /// The major version of the PostgreSQL that was found, such as 17.
    #[must_use]
    pub fn postgres_version(&self) -> u32 {
        self.site.programs.major()
    }

    /// How many Pods there are, up or down.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.pods).present.len()
    }

    /// Whether the cluster is scaled to nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One Pod as it is now.
    ///
    /// # Panics
    ///
    /// Where there is no such Pod, as indexing does.
    #[must_use]
    pub fn pod(&self, ordinal: usize) -> Pod {
        let mut pods = self.pods();
        assert!(ordinal < pods.len(), "there is no Pod {ordinal}: the cluster has {}", pods.len());
        pods.swap_remove(ordinal)
    }

    /// Every Pod as it is now, by ordinal.
    #[must_use]
    pub fn pods(&self) -> Vec<Pod> {
        let servers = lock(&self.pods).present.clone();
        // The Service's name was accepted at the start.
        let published = self.dns.pods(&self.service).unwrap_or_default();
        let pod = |server: Arc<Server>| {
            let (state, pid) = server.state();
            let endpoint = server.endpoint();
            let published = published.contains(&endpoint);
            Pod { name: server.name().to_owned(), role: server.role(), endpoint, state, pid, published }
        };
        servers.into_iter().map(pod).collect()
    }

    /// The ordinal of the primary: the Pod that was last made one, be it up or down; `None` where it was scaled away.
    #[must_use]
    pub fn primary(&self) -> Option<usize> {
        let pods = lock(&self.pods);
        pods.present.iter().position(|server| Arc::ptr_eq(server, &pods.primary))
    }

    /// Connects to one Pod as the superuser, to the application's database, for assertions. Needs no pool; the
    /// connection lives as long as the client and runs on the caller's runtime.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPod`], [`Error::Sql`] and [`Error::Timeout`] (10 s).
    pub async fn client(&self, ordinal: usize) -> Result<Client, Error> {
        self.server(ordinal)?.connect(&self.site.database).await
    }

    /// Where the servers' files are. A Pod's log is `NAME/log` below it.
    #[must_use]
    pub fn directory(&self) -> &std::path::Path {
        &self.site.directory
    }

    /// Stops the servers in order and removes every file.
    ///
    /// # Errors
    ///
    /// What the servers say; the files are removed all the same.
    pub async fn shutdown(self) -> Result<(), Error> {
        let servers = lock(&self.pods).present.clone();
        let mut stopped = Ok(());
        // A primary that stops waits until its standbys have received everything: none may sleep, and they go last.
        for server in servers.iter().filter(|server| server.state().0 == State::Paused) {
            let resumed = server.resume().await;
            stopped = stopped.and(resumed);
        }
        for server in servers {
            let stop = server.stop(Shutdown::Fast).await;
            stopped = stopped.and(stop);
        }
        self.dns.stop().await;
        let cleaned = tokio::task::spawn_blocking(move || drop(self)).await;
        stopped.and(cleaned.map_err(|source| Error::io("clean up", std::io::Error::other(source))))
    }

    pub(super) async fn build(builder: ClusterBuilder) -> Result<Self, Error> {
        let account = Account::find()?;
        let programs = Programs::find(account).await?;
        let addresses: Vec<_> = (0..builder.pods).map(|i| address(FIRST_ADDRESS + i as u32)).collect();
        for address in &addresses {
            check_address(*address)?;
        }
        let dns = DnsServer::start(&builder.zone).await?;
        dns.set_ttl(builder.ttl);
        dns.set_port_name(&builder.port_name);
        dns.set_pods(&builder.service, [])?;
        let watcher = Watcher::start(builder.directory.as_deref(), account)?;
        let port = PodPort::reserve(&addresses).map_err(|source| Error::io("find a port for the Pods", source))?;
        let site = Arc::new(Site {
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
        });
        let first = SocketAddr::from((addresses[0], site.port));
        let primary = Server::new(Arc::clone(&site), format!("{}-0", builder.name), first, Role::Primary)?;
        let primary = Arc::new(primary);
        let pods = Pods { present: vec![Arc::clone(&primary)], volumes: Vec::new(), primary: Arc::clone(&primary) };
        // From here on, dropping the cluster cleans up.
        let cluster = Self {
            site,
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
        cluster.initialise(&primary).await?;
        cluster.publish_server(&primary)?;
        cluster.scale(builder.pods).await?;
        Ok(cluster)
    }

    /// Makes the primary's data, starts it, and makes the application's user and database.
    async fn initialise(&self, primary: &Server) -> Result<(), Error> {
        let site = &self.site;
        let secret = site.directory.join("superuser.secret");
        account::write_file(&secret, &site.secret, site.account)?;
        let mut initdb = site.program("initdb");
        initdb.args(["--no-sync", "--locale=C", "--encoding=UTF8", "--auth=scram-sha-256", "--data-checksums"]);
        // Small segments: less to write and to copy for every standby.
        initdb.args(["--wal-segsize=1", "--username", SUPERUSER, "--pwfile"]).arg(&secret);
        command::output(initdb.arg("--pgdata").arg(primary.data())).await?;
        std::fs::remove_file(&secret).map_err(|source| Error::io("remove the superuser's password", source))?;
        primary.start().await?;
        let user = identifier(&site.user);
        let role = format!("CREATE ROLE {user} LOGIN PASSWORD {}", quoted(&self.password()));
        let database = format!("CREATE DATABASE {} OWNER {user}", identifier(&site.database));
        let client = primary.connect("postgres").await?;
        for statement in [role, database] {
            let made = client.batch_execute(&statement).await;
            made.map_err(|source| Error::sql("make the application's user and database", source))?;
        }
        Ok(())
    }

    /// An address that no Pod has had before.
    pub(super) fn fresh_address(&self) -> Result<SocketAddr, Error> {
        loop {
            // No ordering needed: the counter guards nothing.
            let address = address(self.next_address.fetch_add(1, Ordering::Relaxed));
            check_address(address)?;
            match std::net::TcpListener::bind((address, self.site.port)) {
                Ok(_) => return Ok((address, self.site.port).into()),
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
        let Site { user, database, port, .. } = &*self.site;
        let [user, password, database] = [user, &self.password(), database].map(|part| url_encoded(part));
        format!("postgres://{user}:{password}@{host}:{port}/{database}{query}")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Waits until every process is gone; then the servers, dropped after it, have only a zombie to collect.
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
