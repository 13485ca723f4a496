//! A child process that runs until it is killed: etcd or Patroni.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command},
    sync::Mutex,
};

use rustix::process::Signal;
use tracing::warn;

use crate::testkit::{Error, lock, processes};

/// Number of bytes from the end of the log that an error text includes.
const LOG_TAIL: usize = 8000;

/// A child process with a log file. Dropping it kills and reaps the process, but not the process's children.
#[derive(Debug)]
pub(super) struct Daemon {
    name: String,
    log: PathBuf,
    child: Mutex<Option<Child>>,
}

impl Daemon {
    /// Creates a daemon that is not running. `log` receives its output.
    pub(super) fn new(name: impl Into<String>, log: PathBuf) -> Self {
        Self { name: name.into(), log, child: Mutex::new(None) }
    }

    /// Starts the process and appends its output to the log. Kills a process that was started before.
    pub(super) fn start(&self, mut command: Command) -> Result<(), Error> {
        self.kill()?;
        let failed = |source| Error::io(format!("start {}", self.name), source);
        let log = File::options().append(true).create(true).open(&self.log).map_err(failed)?;
        command.stdout(log.try_clone().map_err(failed)?).stderr(log);
        *lock(&self.child) = Some(command.spawn().map_err(failed)?);
        Ok(())
    }

    /// Kills the process with SIGKILL and waits until it has ended. Does nothing if it is not running.
    pub(super) fn kill(&self) -> Result<(), Error> {
        let Some(mut child) = lock(&self.child).take() else { return Ok(()) };
        let killed = child.kill().and_then(|()| child.wait());
        killed.map(drop).map_err(|source| Error::io(format!("kill {}", self.name), source))
    }

    /// Sends a signal to the process. Does nothing if it is not running.
    pub(super) fn signal(&self, signal: Signal) -> Result<(), Error> {
        let pid = lock(&self.child).as_ref().map(Child::id);
        pid.map_or(Ok(()), |pid| processes::send(pid.cast_signed(), signal))
    }

    /// Returns an error with the end of the log if the process has exited.
    pub(super) fn expect_running(&self) -> Result<(), Error> {
        match lock(&self.child).as_mut().map(Child::try_wait) {
            Some(Ok(None)) => Ok(()),
            _ => Err(Error::Exited { name: self.name.clone(), log: self.log_tail() }),
        }
    }

    /// Returns the end of the log.
    pub(super) fn log_tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_else(|error| format!("(no log: {error})").into_bytes());
        String::from_utf8_lossy(&log[log.len().saturating_sub(LOG_TAIL)..]).trim().to_owned()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            warn!(daemon = self.name, %error, "cannot kill or reap a daemon of the local Patroni cluster");
        }
    }
}
