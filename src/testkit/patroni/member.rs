//! One Pod of a Patroni cluster: Patroni, the PostgreSQL server that it manages, and their files.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{daemon::Daemon, settings};
use crate::{
    Endpoint,
    testkit::{Error, account, cluster_config::ClusterConfig, command, processes::Processes},
};

/// A Pod. Its directory contains the data directory `data`, Patroni's configuration, and the file `log` with the output
/// of Patroni and PostgreSQL.
pub(super) struct Member {
    config: Arc<ClusterConfig>,
    name: String,
    directory: PathBuf,
    program: PathBuf,
    address: SocketAddr,
    api: SocketAddr,
    pub(super) patroni: Daemon,
    processes: Processes,
}

impl Member {
    /// Creates the directory and the configuration of a Pod that does not run. Its server listens on `address`,
    /// Patroni's REST API on `api`.
    pub(super) fn new(
        config: &Arc<ClusterConfig>,
        name: String,
        program: &Path,
        [address, api, etcd]: [SocketAddr; 3],
    ) -> Result<Self, Error> {
        let directory = config.directory.join(&name);
        account::make_directory(&directory, config.account)?;
        let text = settings::patroni(config, &name, &directory, [address, api, etcd]);
        account::write_file(&directory.join(settings::FILE), &text, config.account)?;
        Ok(Self {
            config: Arc::clone(config),
            patroni: Daemon::new(format!("Patroni of {name}"), directory.join("log")),
            processes: Processes { directory: directory.clone(), account: config.account },
            name,
            directory,
            program: program.to_path_buf(),
            address,
            api,
        })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn api(&self) -> SocketAddr {
        self.api
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        Endpoint::named(self.name.as_str(), self.address)
    }

    /// Returns the path of Patroni's configuration.
    pub(super) fn settings(&self) -> PathBuf {
        self.directory.join(settings::FILE)
    }

    /// Starts Patroni, which takes over a running server or starts it.
    pub(super) fn start(&self) -> Result<(), Error> {
        let mut command = command::program(&self.program, self.config.account);
        // The watcher finds the processes by their working directory.
        command.current_dir(&self.directory).env("HOME", &self.directory).arg(self.settings());
        self.patroni.start(command)
    }

    /// Kills Patroni and the server with SIGKILL, and removes the server's pid file: its process id may still belong to
    /// a process that has ended but that no parent has waited for.
    pub(super) async fn kill(&self) -> Result<(), Error> {
        self.patroni.kill()?;
        self.processes.kill().await?;
        match std::fs::remove_file(self.directory.join("data/postmaster.pid")) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::io(format!("remove the pid file of {}", self.name), source))
            }
            _ => Ok(()),
        }
    }
}
