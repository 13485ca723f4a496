//! The etcd server in which Patroni stores the leader's lock.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use tokio::{net::TcpStream, time::sleep};

use super::daemon::Daemon;
use crate::{
    testkit::{Error, account, cluster_config::ClusterConfig, command, processes::POLL_INTERVAL},
    time::{Duration, Instant},
};

/// Timeout for etcd to accept connections.
const DEADLINE: Duration = Duration::from_secs(30);

/// An etcd cluster of one server.
pub(super) struct Etcd {
    config: Arc<ClusterConfig>,
    program: PathBuf,
    directory: PathBuf,
    clients: SocketAddr,
    peers: SocketAddr,
    daemon: Daemon,
}

impl Etcd {
    /// Creates the directory of a server that does not run.
    pub(super) fn new(
        config: &Arc<ClusterConfig>,
        program: &Path,
        [clients, peers]: [SocketAddr; 2],
    ) -> Result<Self, Error> {
        let directory = config.directory.join("etcd");
        account::make_directory(&directory, config.account)?;
        let daemon = Daemon::new("etcd", directory.join("log"));
        Ok(Self { config: Arc::clone(config), program: program.to_path_buf(), directory, clients, peers, daemon })
    }

    /// Starts the server and waits until it accepts connections.
    pub(super) async fn start(&self) -> Result<(), Error> {
        let (clients, peers) = (format!("http://{}", self.clients), format!("http://{}", self.peers));
        let mut command = command::program(&self.program, self.config.account);
        command.current_dir(&self.directory).args(["--name", "etcd", "--data-dir"]).arg(self.directory.join("data"));
        command.args(["--listen-client-urls", &clients, "--advertise-client-urls", &clients]);
        command.args(["--listen-peer-urls", &peers, "--initial-advertise-peer-urls", &peers]);
        command.args(["--initial-cluster", &format!("etcd={peers}")]);
        if cfg!(target_arch = "aarch64") {
            // etcd 3.4 refuses to start on this architecture without this variable.
            command.env("ETCD_UNSUPPORTED_ARCH", "arm64");
        }
        self.daemon.start(command)?;
        let deadline = Instant::now() + DEADLINE;
        while TcpStream::connect(self.clients).await.is_err() {
            self.daemon.expect_running()?;
            if Instant::now() > deadline {
                let waiting_for = "etcd to accept connections".to_owned();
                return Err(Error::Timeout { waiting_for, after: DEADLINE, log: self.daemon.log_tail() });
            }
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    /// Kills the server with SIGKILL.
    pub(super) fn kill(&self) -> Result<(), Error> {
        self.daemon.kill()
    }
}
