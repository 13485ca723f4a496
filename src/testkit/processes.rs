//! The processes of a server. PostgreSQL's children each start a session of their own, so no process group holds them;
//! but all of them work in the data directory, and that is how they are found.

use std::{collections::BTreeSet, fs, io, path::Path, time::Duration};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::{Error, command};

/// How long a server's processes may take to vanish after SIGKILL, or to be found after SIGSTOP.
const DEADLINE: Duration = Duration::from_secs(10);

/// How often a condition is looked at again.
pub(super) const POLL: Duration = Duration::from_millis(5);

/// The processes that work below `directory`, which is canonical.
pub(super) async fn below(directory: &Path) -> Result<BTreeSet<i32>, Error> {
    let listed = if Path::new("/proc/self/cwd").exists() { by_proc(directory) } else { by_ps(directory).await? };
    listed.map_err(|source| Error::io("list the processes of a server", source))
}

/// Ends every process below `directory` with SIGKILL, and returns when none is left.
pub(super) async fn kill_all(directory: &Path) -> Result<(), Error> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let found = below(directory).await?;
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

/// Sends a signal to every process below `directory`, again and again until no new process turns up.
pub(super) async fn signal_all(directory: &Path, signal: Signal) -> Result<(), Error> {
    let deadline = Instant::now() + DEADLINE;
    let mut reached = BTreeSet::new();
    loop {
        let found = below(directory).await?;
        if found.is_subset(&reached) {
            return Ok(());
        }
        send_all(&found, signal)?;
        reached = found;
        if Instant::now() > deadline {
            let what = "the end of new processes".to_owned();
            return Err(Error::Timeout { what, after: DEADLINE, log: String::new() });
        }
        sleep(POLL).await;
    }
}

/// Sends a signal; a process that is gone already is no error.
pub(super) fn send(pid: i32, signal: Signal) -> Result<(), Error> {
    let Some(process) = Pid::from_raw(pid) else { return Ok(()) };
    match kill_process(process, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
        Err(errno) => Err(Error::io(format!("send {signal:?} to process {pid}"), errno.into())),
    }
}

fn send_all(pids: &BTreeSet<i32>, signal: Signal) -> Result<(), Error> {
    pids.iter().try_for_each(|pid| send(*pid, signal))
}

fn by_proc(directory: &Path) -> io::Result<BTreeSet<i32>> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // Neither processes of others nor those that have just ended let us look; neither is a server's of ours.
        if fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(directory)) {
            found.insert(pid);
        }
    }
    Ok(found)
}

/// Without `/proc`: the processes whose command line names the directory, and their descendants.
async fn by_ps(directory: &Path) -> Result<io::Result<BTreeSet<i32>>, Error> {
    let mut ps = command::program(Path::new("ps"), None);
    let listing = command::output(ps.args(["-axo", "pid=,ppid=,command="])).await?;
    Ok(Ok(descendants(&listing, &directory.to_string_lossy())))
}

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
    fn finds_a_server_and_all_that_descends_from_it() {
        let listing = "  1 0 /sbin/launchd\n 20 1 postgres -D /tmp/x/a/data\n 21 20 postgres: walwriter\n \
                       22 21 postgres: child\n 30 1 postgres -D /tmp/y/data\n 31 30 postgres: walwriter\n";
        assert_eq!(descendants(listing, "/tmp/x/a"), BTreeSet::from([20, 21, 22]));
    }
}
