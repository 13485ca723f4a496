//! Finds and signals the processes of a server.
//!
//! PostgreSQL's children call `setsid`, so a server's processes share no process group. They are found by their working
//! directory, which is the data directory.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use super::{Account, Error, command};
use crate::time::{Duration, Instant};

/// Timeout for killing all processes of a server, and for finding all of them.
const DEADLINE: Duration = Duration::from_secs(10);

/// Interval between two checks of a condition.
pub(super) const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The processes of one Pod.
#[derive(Clone, Debug)]
pub(super) struct Processes {
    /// Canonical path of the directory that contains the working directories of the processes.
    pub(super) directory: PathBuf,
    /// The account that the processes run as, if it is not the account of this process.
    pub(super) account: Option<Account>,
}

impl Processes {
    /// Kills all processes with SIGKILL and returns when none of them is left.
    pub(super) async fn kill(&self) -> Result<(), Error> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let found = self.list().await?;
            if found.is_empty() {
                return Ok(());
            }
            send_all(&found, Signal::KILL)?;
            if Instant::now() > deadline {
                let waiting_for = format!("processes {found:?} to exit after SIGKILL");
                return Err(Error::Timeout { waiting_for, after: DEADLINE, log: String::new() });
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Sends a signal to all processes, repeatedly until no new process appears.
    pub(super) async fn signal(&self, signal: Signal) -> Result<(), Error> {
        self.for_each(|pid| send(pid, signal)).await
    }

    /// Calls a function for all processes, repeatedly until no new process appears. May call the function more than
    /// once for a process.
    pub(super) async fn for_each(&self, mut f: impl FnMut(i32) -> Result<(), Error>) -> Result<(), Error> {
        let deadline = Instant::now() + DEADLINE;
        let mut reached = BTreeSet::new();
        loop {
            let found = self.list().await?;
            if found.is_subset(&reached) {
                return Ok(());
            }
            found.iter().try_for_each(|pid| f(*pid))?;
            reached = found;
            if Instant::now() > deadline {
                let waiting_for = "a server to stop creating processes".to_owned();
                return Err(Error::Timeout { waiting_for, after: DEADLINE, log: String::new() });
            }
            sleep(POLL_INTERVAL).await;
        }
    }

    /// Returns the ids of the current processes.
    pub(super) async fn list(&self) -> Result<BTreeSet<i32>, Error> {
        if !Path::new("/proc/self/cwd").exists() {
            let mut ps = command::program(Path::new("ps"), None);
            let listing = command::output(ps.args(["-axo", "pid=,ppid=,command="])).await?;
            return Ok(descendants(&listing, &self.directory.to_string_lossy()));
        }
        match self.by_proc() {
            // Without `CAP_SYS_PTRACE`, which root in a container may lack, only the processes' own user can read their
            // working directories.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                let mut shell = command::program(Path::new("/bin/sh"), self.account);
                let listing = command::output(shell.args(["-c", "ls -l /proc/[0-9]*/cwd 2>/dev/null; true"])).await?;
                Ok(working_in(&listing, &self.directory.to_string_lossy()))
            }
            listed => listed.map_err(|source| Error::io("list the processes of a server", source)),
        }
    }

    fn by_proc(&self) -> io::Result<BTreeSet<i32>> {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir("/proc")? {
            let entry = entry?;
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            match fs::read_link(entry.path().join("cwd")) {
                Ok(cwd) if cwd.starts_with(&self.directory) => drop(found.insert(pid)),
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && self.account.is_some() => {
                    return Err(error);
                }
                // The process has another working directory, has just ended, or belongs to an unrelated user.
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Sends a signal to a process. Returns `Ok` if the process no longer exists.
pub(super) fn send(pid: i32, signal: Signal) -> Result<(), Error> {
    send_if_exists(pid, signal).map(drop)
}

/// Sends a signal to a process. Returns false if the process no longer exists.
pub(super) fn send_if_exists(pid: i32, signal: Signal) -> Result<bool, Error> {
    let Some(process) = Pid::from_raw(pid) else { return Ok(false) };
    match kill_process(process, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(errno) => Err(Error::io(format!("send {signal:?} to process {pid}"), errno.into())),
    }
}

fn send_all(pids: &BTreeSet<i32>, signal: Signal) -> Result<(), Error> {
    pids.iter().try_for_each(|pid| send(*pid, signal))
}

/// Returns the processes whose working directory is `directory` or below it, from the output of `ls -l /proc/PID/cwd`.
fn working_in(listing: &str, directory: &str) -> BTreeSet<i32> {
    let pid = |line: &str| {
        let (pid, cwd) = line.split_once("/proc/")?.1.split_once("/cwd -> ")?;
        Path::new(cwd.trim_end_matches(" (deleted)")).starts_with(directory).then(|| pid.parse().ok())?
    };
    listing.lines().filter_map(pid).collect()
}

/// Returns the processes whose command line contains `directory`, and their descendants, from the output of `ps`. Used
/// on systems without `/proc`.
fn descendants(listing: &str, directory: &str) -> BTreeSet<i32> {
    let rows: Vec<(i32, i32, bool)> = listing
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?, line.contains(directory)))
        })
        .collect();
    let mut found: BTreeSet<i32> = rows.iter().filter(|row| row.2).map(|row| row.0).collect();
    loop {
        let before = found.len();
        found.extend(rows.iter().filter(|row| found.contains(&row.1)).map(|row| row.0).collect::<Vec<_>>());
        if found.len() == before {
            return found;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_processes_by_working_directory() {
        let listing = "lrwxrwxrwx 1 a a 0 May 1 10:00 /proc/20/cwd -> /tmp/x/a/data\n\
                       lrwxrwxrwx 1 a a 0 May 1 10:00 /proc/21/cwd -> /tmp/x/ab\n\
                       lrwxrwxrwx 1 a a 0 May 1 10:00 /proc/22/cwd -> /tmp/x/a (deleted)\n";
        assert_eq!(working_in(listing, "/tmp/x/a"), BTreeSet::from([20, 22]));
    }

    #[test]
    fn finds_a_server_by_its_command_line_and_its_descendants() {
        let listing = "  1 0 /sbin/launchd\n 20 1 postgres -D /tmp/x/a/data\n 21 20 postgres: walwriter\n \
                       22 21 postgres: child\n 30 1 postgres -D /tmp/y/data\n 31 30 postgres: walwriter\n";
        assert_eq!(descendants(listing, "/tmp/x/a"), BTreeSet::from([20, 21, 22]));
    }
}
