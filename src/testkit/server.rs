//! One PostgreSQL server: its files, its processes and its state.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::PathBuf,
    process::Child,
    sync::{Arc, Mutex},
};

use rustix::process::Signal;
use tokio::time::sleep;
use tokio_postgres::Client;
use tracing::warn;

use super::{
    Error, PodRole, PodState, Shutdown, account,
    certificate::Certificate,
    cluster_config::ClusterConfig,
    lock,
    processes::{self, POLL_INTERVAL, Processes},
    throttle::Throttle,
};
use crate::{
    Endpoint,
    time::{Duration, Instant},
};

/// Timeout for a server to start or stop. A stopping primary waits up to 60 s for an unresponsive standby
/// (`wal_sender_timeout`).
pub(super) const DEADLINE: Duration = Duration::from_secs(90);

/// Number of bytes from the end of the server's log that an error text includes.
const LOG_TAIL: usize = 2000;

/// The PostgreSQL server of one Pod.
///
/// Its directory contains the data directory `data`, the configuration files, and `log`.
pub(super) struct Server {
    config: Arc<ClusterConfig>,
    name: String,
    directory: PathBuf,
    processes: Processes,
    inner: Mutex<Inner>,
}

struct Inner {
    address: SocketAddr,
    role: PodRole,
    /// The primary that this standby replicates from.
    upstream: Option<SocketAddr>,
    /// The TLS certificate. `None`: no TLS.
    certificate: Option<Certificate>,
    postmaster: Option<Child>,
    paused: bool,
}

impl Server {
    /// Creates the directory of a server that is down and has no data yet.
    pub(super) fn new(
        config: Arc<ClusterConfig>,
        name: String,
        address: SocketAddr,
        role: PodRole,
    ) -> Result<Self, Error> {
        let directory = config.directory.join(&name);
        if !directory.exists() {
            account::make_directory(&directory, config.account)?;
        }
        let certificate = config.certificate.clone();
        let inner = Inner { address, role, upstream: None, certificate, postmaster: None, paused: false };
        let processes = Processes { directory: directory.clone(), account: config.account };
        Ok(Self { config, name, directory, processes, inner: Mutex::new(inner) })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn address(&self) -> SocketAddr {
        lock(&self.inner).address
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint::named(self.name.as_str(), self.address())
    }

    pub(super) fn role(&self) -> PodRole {
        lock(&self.inner).role
    }

    pub(super) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Returns the state of the processes, and the postmaster's process id unless the server is down.
    pub(super) fn state(&self) -> (PodState, Option<u32>) {
        let mut inner = lock(&self.inner);
        let paused = inner.paused;
        match &mut inner.postmaster {
            None => (PodState::Down, None),
            Some(postmaster) => match postmaster.try_wait() {
                Ok(None) => (if paused { PodState::Paused } else { PodState::Running }, Some(postmaster.id())),
                Ok(Some(status)) => {
                    warn!(pod = self.name, %status, "server process exited unexpectedly");
                    inner.postmaster = None;
                    inner.paused = false;
                    (PodState::Down, None)
                }
                // If the process can no longer be waited for, it has ended.
                Err(_) => (PodState::Down, None),
            },
        }
    }

    /// Returns an error unless the server is in this state. `expected` is the state's name in the error.
    pub(super) fn expect_state(&self, state: PodState, expected: &'static str) -> Result<(), Error> {
        let (actual, _) = self.state();
        if actual == state {
            return Ok(());
        }
        Err(Error::WrongState { name: self.name.clone(), actual: actual.as_str(), expected })
    }

    /// Sets the address that the server uses from its next start.
    pub(super) fn set_address(&self, address: SocketAddr) {
        lock(&self.inner).address = address;
    }

    /// Makes the server a standby of `upstream`, or a primary if `upstream` is `None`. Writes the configuration and
    /// makes a running server reload it.
    pub(super) fn set_role(&self, upstream: Option<SocketAddr>) -> Result<(), Error> {
        {
            let mut inner = lock(&self.inner);
            inner.role = if upstream.is_some() { PodRole::Standby } else { PodRole::Primary };
            inner.upstream = upstream;
        }
        self.reload()
    }

    /// Replaces the certificate. Returns when new connections to a running server use it.
    pub(super) async fn set_certificate(&self, certificate: Certificate) -> Result<(), Error> {
        lock(&self.inner).certificate = Some(certificate);
        if self.state().0 != PodState::Running {
            return self.write_files();
        }
        let before = self.config_load_time().await?;
        self.reload()?;
        let deadline = Instant::now() + DEADLINE;
        while self.config_load_time().await? == before {
            if Instant::now() > deadline {
                return Err(self.timeout(format!("{} to load its new certificate", self.name), DEADLINE));
            }
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Opens a connection and returns the time at which the server loaded the configuration that the connection uses.
    async fn config_load_time(&self) -> Result<String, Error> {
        let failed = |source| Error::sql("query the configuration load time", source);
        let client = self.connect("postgres").await?;
        let row = client.query_one("SELECT pg_conf_load_time()::text", &[]).await.map_err(failed)?;
        row.try_get(0).map_err(failed)
    }

    /// Writes the configuration files and makes a running server reload them.
    fn reload(&self) -> Result<(), Error> {
        self.write_files()?;
        match self.state() {
            (_, Some(pid)) => processes::send(pid.cast_signed(), Signal::HUP),
            (_, None) => Ok(()),
        }
    }

    /// Starts the server with its existing data and waits until it accepts connections.
    pub(super) async fn start(&self) -> Result<(), Error> {
        self.expect_state(PodState::Down, "down")?;
        // Clean up after a killed postmaster: kill its children and remove its pid file. PostgreSQL refuses to start if
        // the process id in that file is in use, possibly by an unrelated process.
        self.processes.kill().await?;
        remove_if_exists(&self.pid_file())?;
        self.write_files()?;
        let failed = |source| Error::io(format!("start {}", self.name), source);
        let log = File::options().append(true).create(true).open(self.log_file()).map_err(failed)?;
        let mut command = self.config.program("postgres");
        command.current_dir(&self.directory).arg("-D").arg(self.data());
        command.arg("-c").arg(format!("config_file={}", self.directory.join("postgresql.conf").display()));
        let environment = self.config.environment.iter().filter(|(pod, ..)| *pod == self.name);
        command.envs(environment.map(|(_, name, value)| (name, value)));
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        lock(&self.inner).postmaster = Some(command.spawn().map_err(failed)?);
        self.wait_ready().await
    }

    /// Shuts the server down and waits until it has exited. A paused server is resumed first.
    pub(super) async fn stop(&self, shutdown: Shutdown) -> Result<(), Error> {
        if self.state().0 == PodState::Paused {
            self.resume().await?;
        }
        let signal = match shutdown {
            Shutdown::Smart => Signal::TERM,
            Shutdown::Fast => Signal::INT,
            Shutdown::Immediate => Signal::QUIT,
        };
        let (_, Some(pid)) = self.state() else { return Ok(()) };
        processes::send(pid.cast_signed(), signal)?;
        self.wait_exit().await
    }

    /// Kills the postmaster and all its children with SIGKILL.
    pub(super) async fn kill(&self) -> Result<(), Error> {
        self.processes.kill().await?;
        self.wait_exit().await
    }

    pub(super) async fn pause(&self) -> Result<(), Error> {
        self.expect_state(PodState::Running, "running")?;
        lock(&self.inner).paused = true;
        self.processes.signal(Signal::STOP).await
    }

    pub(super) async fn resume(&self) -> Result<(), Error> {
        self.expect_state(PodState::Paused, "paused")?;
        self.processes.signal(Signal::CONT).await?;
        lock(&self.inner).paused = false;
        Ok(())
    }

    pub(super) async fn throttle(&self, share: f64) -> Result<Throttle, Error> {
        self.expect_state(PodState::Running, "running")?;
        Throttle::start(self.processes.clone(), share).await
    }

    /// Connects as the superuser.
    pub(super) async fn connect(&self, database: &str) -> Result<Client, Error> {
        self.config.connect(self.address(), database).await
    }

    /// Returns a timeout error with the end of the server's log.
    pub(super) fn timeout(&self, waiting_for: impl Into<String>, after: Duration) -> Error {
        Error::Timeout { waiting_for: waiting_for.into(), after, log: self.log_tail() }
    }

    /// Writes `postgresql.conf`, `pg_hba.conf`, the TLS files, and `standby.signal` for a standby.
    fn write_files(&self) -> Result<(), Error> {
        let (address, upstream, certificate) = {
            let inner = lock(&self.inner);
            (inner.address, inner.upstream, inner.certificate.clone())
        };
        let account = self.config.account;
        let hba = self.directory.join("pg_hba.conf");
        account::write_file(&hba, &self.config.pg_hba(), account)?;
        let tls = match certificate {
            Some(certificate) => certificate.install(self.config.client_ca.as_deref(), &self.directory, account)?,
            None => Vec::new(),
        };
        let primary_conninfo = upstream.map(|upstream| self.config.conninfo(upstream, &self.name));
        let conf = self.config.postgresql_conf(&self.name, address, &hba, primary_conninfo.as_deref(), &tls);
        account::write_file(&self.directory.join("postgresql.conf"), &conf, account)?;
        let signal = self.data().join("standby.signal");
        if upstream.is_some() { account::write_file(&signal, "", account) } else { remove_if_exists(&signal) }
    }

    async fn wait_ready(&self) -> Result<(), Error> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if self.state().0 == PodState::Down {
                return Err(Error::Exited { name: self.name.clone(), log: self.log_tail() });
            }
            // The eighth line of postmaster.pid is the server's status. Until this line exists, the server is not
            // ready.
            let lines = fs::read_to_string(self.pid_file()).unwrap_or_default();
            if lines.lines().nth(7).is_some_and(|status| status.trim() == "ready") {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(self.timeout(format!("{} to start", self.name), DEADLINE));
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    async fn wait_exit(&self) -> Result<(), Error> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let exited = match &mut lock(&self.inner).postmaster {
                None => true,
                Some(postmaster) => {
                    let failed = |source| Error::io(format!("wait for {} to exit", self.name), source);
                    postmaster.try_wait().map_err(failed)?.is_some()
                }
            };
            if exited {
                let mut inner = lock(&self.inner);
                inner.postmaster = None;
                inner.paused = false;
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(self.timeout(format!("{} to exit", self.name), DEADLINE));
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    fn pid_file(&self) -> PathBuf {
        self.data().join("postmaster.pid")
    }

    fn log_tail(&self) -> String {
        let log = fs::read(self.log_file()).unwrap_or_else(|error| format!("(no log: {error})").into_bytes());
        String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL)..]).trim().to_owned()
    }
}

impl Drop for Server {
    /// Kills and reaps the postmaster, so that it does not remain as a zombie. The watcher kills the postmaster's
    /// children.
    fn drop(&mut self) {
        if let Some(mut postmaster) = lock(&self.inner).postmaster.take()
            && let Err(error) = postmaster.kill().and_then(|()| postmaster.wait())
        {
            warn!(pod = self.name, %error, "cannot kill or reap the server's postmaster");
        }
    }
}

fn remove_if_exists(path: &std::path::Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()), source))
        }
        _ => Ok(()),
    }
}
