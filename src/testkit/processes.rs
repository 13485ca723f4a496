//! The processes of a server. PostgreSQL's children each start a session of their own, so no process group holds them;
//! but all of them work in the data directory, and that is how they are found.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use super::{Account, Error, command};
use crate::time::{Duration, Instant};

/// How long a server's processes may take to vanish after SIGKILL, or to be found after SIGSTOP.
const DEADLINE: Duration = Duration::from_secs(10);

/// How often a condition is looked at again.
pub(super) const POLL: Duration = Duration::from_millis(5);

/// One Pod's processes, or one cluster's.
#[derive(Clone, Debug)]
pub(super) struct Processes {
    /// Where they work; canonical.
    pub(super) directory: PathBuf,
    /// Who they run as, where that is not us.
    pub(super) account: Option<Account>,
}

impl Processes {
    /// Ends every process of it with SIGKILL, and returns when none is left.
    pub(super) async fn kill(&self) -> Result<(), Error> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let found = self.list().await?;
            if found.is_empty() {
                return Ok(());
            }
            send_all(&found, Signal::KILL)?;
            if Instant::now() > deadline {
                let what = format!("the end of the processes {found:?} after SIGKILL");
                return Err(Error::Timeout { what, after: DEADLINE, log: String::new() });
            }
            sleep(POLL).await;
        }
    }

    /// Sends a signal to every process of it, again and again until no new process turns up.
    pub(super) async fn signal(&self, signal: Signal) -> Result<(), Error> {
        self.each(|pid| send(pid, signal)).await
    }

    /// Does this to every process of it, again and again until no new process turns up.
    pub(super) async fn each(&self, mut work: impl FnMut(i32) -> Result<(), Error>) -> Result<(), Error> {
        let deadline = Instant::now() + DEADLINE;
        let mut reached = BTreeSet::new();
        loop {
            let found = self.list().await?;
            if found.is_subset(&reached) {
                return Ok(());
            }
            found.iter().try_for_each(|pid| work(*pid))?;
            reached = found;
            if Instant::now() > deadline {
                let what = "the end of new processes".to_owned();
                return Err(Error::Timeout { what, after: DEADLINE, log: String::new() });
            }
            sleep(POLL).await;
        }
    }

    /// Who is there now.
    pub(super) async fn list(&self) -> Result<BTreeSet<i32>, Error> {
        if !Path::new("/proc/self/cwd").exists() {
            let mut ps = command::program(Path::new("ps"), None);
            let listing = command::output(ps.args(["-axo", "pid=,ppid=,command="])).await?;
            return Ok(descendants(&listing, &self.directory.to_string_lossy()));
        }
        match self.by_proc() {
            // Root in a container may not look into another user's processes. That user may.
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
                // Works elsewhere, has just ended, or belongs to somebody else.
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Sends a signal; a process that is gone already is no error.
pub(super) fn send(pid: i32, signal: Signal) -> Result<(), Error> {
    reach(pid, signal).map(drop)
}

/// Sends a signal. Says whether the process is still there.
pub(super) fn reach(pid: i32, signal: Signal) -> Result<bool, Error> {
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

/// The processes that `ls -l /proc/PID/cwd` shows to work in or below the directory.
fn working_in(listing: &str, directory: &str) -> BTreeSet<i32> {
    let pid = |line: &str| {
        let (pid, cwd) = line.split_once("/proc/")?.1.split_once("/cwd -> ")?;
        Path::new(cwd.trim_end_matches(" (deleted)")).starts_with(directory).then(|| pid.parse().ok())?
    };
    listing.lines().filter_map(pid).collect()
}

/// Without `/proc`: the processes whose command line names the directory, and their descendants.
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
    fn finds_who_works_in_a_directory() {
        let listing = "lrwxrwxrwx 1 a a 0 May 1 10:00 /proc/20/cwd -> /tmp/x/a/data\n\
                       lrwxrwxrwx 1 a a 0 May 1 10:00 /proc/21/cwd -> /tmp/x/ab\n\
                       lrwxrwxrwx 1 a a 0 May 1 10:00 /proc/22/cwd -> /tmp/x/a (deleted)\n";
        assert_eq!(working_in(listing, "/tmp/x/a"), BTreeSet::from([20, 22]));
    }

    #[test]
    fn finds_a_server_and_all_that_descends_from_it() {
        let listing = "  1 0 /sbin/launchd\n 20 1 postgres -D /tmp/x/a/data\n 21 20 postgres: walwriter\n \
                       22 21 postgres: child\n 30 1 postgres -D /tmp/y/data\n 31 30 postgres: walwriter\n";
        assert_eq!(descendants(listing, "/tmp/x/a"), BTreeSet::from([20, 21, 22]));
    }
}
