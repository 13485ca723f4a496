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
    Error, Role, Shutdown, State, account,
    certificate::Certificate,
    lock,
    processes::{self, POLL, Processes},
    site::Site,
    throttle::Throttle,
};
use crate::{
    Endpoint,
    time::{Duration, Instant},
};

/// How long a server may take to start or to stop. A primary alone waits 60 s for a standby that does not answer.
pub(super) const DEADLINE: Duration = Duration::from_secs(90);

/// How much of the server's log goes into an error, in bytes.
const LOG_TAIL: usize = 2000;

/// One Pod's PostgreSQL server: its directory, its address, its processes.
///
/// Below the Pod's directory lie `data`, the configuration files, and `log`.
pub(super) struct Server {
    site: Arc<Site>,
    name: String,
    directory: PathBuf,
    processes: Processes,
    inner: Mutex<Inner>,
}

struct Inner {
    address: SocketAddr,
    role: Role,
    /// The primary that a standby follows.
    follows: Option<SocketAddr>,
    /// What it shows over TLS.
    certificate: Option<Certificate>,
    postmaster: Option<Child>,
    paused: bool,
}

impl Server {
    /// A server that does not run and has no data yet.
    pub(super) fn new(site: Arc<Site>, name: String, address: SocketAddr, role: Role) -> Result<Self, Error> {
        let directory = site.directory.join(&name);
        if !directory.exists() {
            account::make_directory(&directory, site.account)?;
        }
        let certificate = site.certificate.clone();
        let inner = Inner { address, role, follows: None, certificate, postmaster: None, paused: false };
        let processes = Processes { directory: directory.clone(), account: site.account };
        Ok(Self { site, name, directory, processes, inner: Mutex::new(inner) })
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

    pub(super) fn role(&self) -> Role {
        lock(&self.inner).role
    }

    pub(super) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub(super) fn log_file(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// What the processes do, and the postmaster's id while it runs.
    pub(super) fn state(&self) -> (State, Option<u32>) {
        let mut inner = lock(&self.inner);
        let paused = inner.paused;
        match &mut inner.postmaster {
            None => (State::Down, None),
            Some(postmaster) => match postmaster.try_wait() {
                Ok(None) => (if paused { State::Paused } else { State::Running }, Some(postmaster.id())),
                Ok(Some(status)) => {
                    warn!(pod = self.name, %status, "the server ended by itself");
                    inner.postmaster = None;
                    inner.paused = false;
                    (State::Down, None)
                }
                // Not our child any more: then it is gone.
                Err(_) => (State::Down, None),
            },
        }
    }

    pub(super) fn expect(&self, state: State, expected: &'static str) -> Result<(), Error> {
        let (is, _) = self.state();
        if is == state {
            return Ok(());
        }
        Err(Error::State { name: self.name.clone(), is: is.as_str(), expected })
    }

    /// Changes the address; takes effect at the next start.
    pub(super) fn set_address(&self, address: SocketAddr) {
        lock(&self.inner).address = address;
    }

    /// Makes it a primary, or a standby of the server at `follows`: in memory and in the files, and a running server
    /// reads them again.
    pub(super) fn set_role(&self, follows: Option<SocketAddr>) -> Result<(), Error> {
        {
            let mut inner = lock(&self.inner);
            inner.role = if follows.is_some() { Role::Standby } else { Role::Primary };
            inner.follows = follows;
        }
        self.reload()
    }

    /// Gives it another certificate: in the files, and a running server uses it from the next connection on.
    pub(super) async fn set_certificate(&self, certificate: Certificate) -> Result<(), Error> {
        lock(&self.inner).certificate = Some(certificate);
        if self.state().0 != State::Running {
            return self.write_files();
        }
        let before = self.loaded_at().await?;
        self.reload()?;
        let deadline = Instant::now() + DEADLINE;
        while self.loaded_at().await? == before {
            if Instant::now() > deadline {
                return Err(self.timeout(format!("the new certificate of {}", self.name), DEADLINE));
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// When a new connection's settings were read.
    async fn loaded_at(&self) -> Result<String, Error> {
        let failed = |source| Error::sql("ask when the settings were read", source);
        let client = self.connect("postgres").await?;
        let row = client.query_one("SELECT pg_conf_load_time()::text", &[]).await.map_err(failed)?;
        row.try_get(0).map_err(failed)
    }

    /// Writes the files, and has a running server read them.
    fn reload(&self) -> Result<(), Error> {
        self.write_files()?;
        match self.state() {
            (_, Some(pid)) => processes::send(pid.cast_signed(), Signal::HUP),
            (_, None) => Ok(()),
        }
    }

    /// Starts the server with the data it has, and waits until it takes connections.
    pub(super) async fn start(&self) -> Result<(), Error> {
        self.expect(State::Down, "down")?;
        // What a killed postmaster left, whose process id may belong to somebody else by now.
        self.processes.kill().await?;
        remove_if_there(&self.pid_file())?;
        self.write_files()?;
        let failed = |source| Error::io(format!("start {}", self.name), source);
        let log = File::options().append(true).create(true).open(self.log_file()).map_err(failed)?;
        let mut command = self.site.program("postgres");
        command.current_dir(&self.directory).arg("-D").arg(self.data());
        command.arg("-c").arg(format!("config_file={}", self.directory.join("postgresql.conf").display()));
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        lock(&self.inner).postmaster = Some(command.spawn().map_err(failed)?);
        self.wait_ready().await
    }

    /// Asks the server to stop and waits until it has. A paused one is resumed first.
    pub(super) async fn stop(&self, shutdown: Shutdown) -> Result<(), Error> {
        if self.state().0 == State::Paused {
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

    /// SIGKILL to the postmaster and all its children.
    pub(super) async fn kill(&self) -> Result<(), Error> {
        self.processes.kill().await?;
        self.wait_exit().await
    }

    pub(super) async fn pause(&self) -> Result<(), Error> {
        self.expect(State::Running, "running")?;
        lock(&self.inner).paused = true;
        self.processes.signal(Signal::STOP).await
    }

    pub(super) async fn resume(&self) -> Result<(), Error> {
        self.expect(State::Paused, "paused")?;
        self.processes.signal(Signal::CONT).await?;
        lock(&self.inner).paused = false;
        Ok(())
    }

    pub(super) async fn throttle(&self, share: f64) -> Result<Throttle, Error> {
        self.expect(State::Running, "running")?;
        Throttle::start(self.processes.clone(), share).await
    }

    /// Connects as the superuser.
    pub(super) async fn connect(&self, database: &str) -> Result<Client, Error> {
        self.site.connect(self.address(), database).await
    }

    pub(super) fn timeout(&self, what: impl Into<String>, after: Duration) -> Error {
        Error::Timeout { what: what.into(), after, log: self.log_tail() }
    }

    /// Makes the files say what the role is: `postgresql.conf`, `pg_hba.conf` and `standby.signal`.
    fn write_files(&self) -> Result<(), Error> {
        let (address, follows, certificate) = {
            let inner = lock(&self.inner);
            (inner.address, inner.follows, inner.certificate.clone())
        };
        let account = self.site.account;
        let hba = self.directory.join("pg_hba.conf");
        account::write_file(&hba, &self.site.pg_hba(), account)?;
        let tls = match certificate {
            Some(certificate) => certificate.install(self.site.client_ca.as_deref(), &self.directory, account)?,
            None => Vec::new(),
        };
        let primary = follows.map(|primary| self.site.conninfo(primary, &self.name));
        let conf = self.site.postgresql_conf(&self.name, address, &hba, primary.as_deref(), &tls);
        account::write_file(&self.directory.join("postgresql.conf"), &conf, account)?;
        let signal = self.data().join("standby.signal");
        if follows.is_some() { account::write_file(&signal, "", account) } else { remove_if_there(&signal) }
    }

    async fn wait_ready(&self) -> Result<(), Error> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if self.state().0 == State::Down {
                return Err(Error::Exited { name: self.name.clone(), log: self.log_tail() });
            }
            // The eighth line is the server's own word for it. Not there yet is not ready.
            let lines = fs::read_to_string(self.pid_file()).unwrap_or_default();
            if lines.lines().nth(7).is_some_and(|status| status.trim() == "ready") {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(self.timeout(format!("the start of {}", self.name), DEADLINE));
            }
            sleep(POLL).await;
        }
    }

    async fn wait_exit(&self) -> Result<(), Error> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let ended = match &mut lock(&self.inner).postmaster {
                None => true,
                Some(postmaster) => {
                    let failed = |source| Error::io(format!("wait for the end of {}", self.name), source);
                    postmaster.try_wait().map_err(failed)?.is_some()
                }
            };
            if ended {
                let mut inner = lock(&self.inner);
                inner.postmaster = None;
                inner.paused = false;
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(self.timeout(format!("the end of {}", self.name), DEADLINE));
            }
            sleep(POLL).await;
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
    /// Leaves no zombie. The watcher ends the children.
    fn drop(&mut self) {
        if let Some(mut postmaster) = lock(&self.inner).postmaster.take()
            && let Err(error) = postmaster.kill().and_then(|()| postmaster.wait())
        {
            warn!(pod = self.name, %error, "the server did not end");
        }
    }
}

fn remove_if_there(path: &std::path::Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io(format!("remove {}", path.display()), source))
        }
        _ => Ok(()),
    }
}
