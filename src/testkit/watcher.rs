//! The cluster's directory and the process that cleans it up.

use std::{
    io::{self, Read, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::fs::{Access, access, statvfs};
use tracing::warn;

use super::{Account, Error, command};

/// The watcher's program: a shell script, which runs on every system and does not depend on the state of this process.
const SCRIPT: &str = include_str!("watcher.sh");

/// Timeout for the watcher's cleanup.
const DEADLINE: Duration = Duration::from_secs(20);

/// Minimum free space in `/dev/shm`, in bytes, for placing the cluster there. A new Pod uses about 40 MB.
const MIN_FREE_MEMORY: u64 = 1 << 30;

/// The process that creates the cluster's directory and cleans it up.
///
/// The watcher creates the directory, and then reads from a pipe that only this process has open for writing. The pipe
/// closes when this value is dropped or when this process ends, even by SIGKILL. Then the watcher kills every process
/// whose working directory is in that directory, and removes the directory. The cleanup is thus the same for every kind
/// of exit.
pub(super) struct Watcher {
    directory: PathBuf,
    account: Option<Account>,
    shell: Child,
}

impl Watcher {
    /// Starts a watcher, which creates a directory below `parent` that only `account` can enter. `account` must be able
    /// to write to `parent`.
    pub(super) fn start(parent: Option<&Path>, account: Option<Account>) -> Result<Self, Error> {
        let parent = parent.map_or_else(default_parent, Path::to_path_buf);
        let (shell, directory) = spawn(&parent, Path::new(""), account).map_err(|source| {
            Error::io(format!("create a directory for the servers in {}", parent.display()), source)
        })?;
        Ok(Self { directory, account, shell })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    #[expect(clippy::disallowed_methods, reason = "blocks, and must not stop when a test pauses tokio's clock")]
    fn clean_up(&mut self) -> io::Result<()> {
        drop(self.shell.stdin.take());
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.shell.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(io::Error::other(format!("the watcher exited with {status}"))),
                None if Instant::now() > deadline => return Err(io::ErrorKind::TimedOut.into()),
                None => sleep(Duration::from_millis(2)),
            }
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let directory = self.directory.display().to_string();
        if let Err(error) = self.clean_up() {
            warn!(%error, %directory, "watcher failed to clean up the local cluster; starting another watcher");
            let again = spawn(Path::new("/"), &self.directory, self.account).and_then(|(shell, _)| {
                self.shell = shell;
                self.clean_up()
            });
            if let Err(error) = again {
                warn!(%error, %directory, "cannot clean up the local cluster; its processes and files remain");
            }
        }
    }
}

/// Returns `/dev/shm` if it has enough free space, otherwise the directory for temporary files. Memory is preferred
/// because ext4 is slow to create files in a directory from which many files were just removed.
fn default_parent() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let enough = statvfs(memory).is_ok_and(|stat| stat.f_bavail.saturating_mul(stat.f_frsize) >= MIN_FREE_MEMORY);
    if enough && access(memory, Access::WRITE_OK).is_ok() { memory.to_path_buf() } else { std::env::temp_dir() }
}

/// Starts a watcher for `directory`, or for a new directory below `parent` if `directory` is empty. Returns the watcher
/// and the path of the directory.
fn spawn(parent: &Path, directory: &Path, account: Option<Account>) -> io::Result<(Child, PathBuf)> {
    // Run as the servers' account, because root in a container may be unable to inspect its processes.
    let mut shell = command::program(Path::new("/bin/sh"), account)
        .args(["-c", SCRIPT, "podpool-testkit-watcher"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let (Some(input), Some(output)) = (&mut shell.stdin, &mut shell.stdout) else {
        return Err(io::Error::other("the watcher has no standard input or output"));
    };
    for line in [parent, directory] {
        input.write_all(&[line.as_os_str().as_bytes(), b"\n"].concat())?;
    }
    // The watcher writes the path of the directory and then closes its standard output.
    let mut reply = String::new();
    output.read_to_string(&mut reply)?;
    match reply.strip_suffix('\n') {
        Some(directory) => Ok((shell, directory.into())),
        None => {
            drop(shell.stdin.take());
            let status = shell.wait()?;
            Err(io::Error::other(format!("cannot create or enter the directory: the watcher exited with {status}")))
        }
    }
}
