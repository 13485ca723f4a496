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

/// What the watcher runs: a shell, which is everywhere, and which nothing of this process can break.
const SCRIPT: &str = include_str!("watcher.sh");

/// How long the watcher may take to clean up.
const DEADLINE: Duration = Duration::from_secs(20);

/// How much free memory lets the servers live in memory, in bytes. A Pod takes about 40 MB at first.
const ROOM: u64 = 1 << 30;

/// The cluster's directory, and the process that cleans it up.
///
/// The watcher makes the directory, and reads from a pipe that only this process can write to. When the pipe ends,
/// because this value was dropped or because this process is gone (SIGKILL too), it kills every process that works in
/// the directory and removes it. So there is one way to clean up and it is the one that is always taken.
pub(super) struct Watcher {
    directory: PathBuf,
    account: Option<Account>,
    shell: Child,
}

impl Watcher {
    /// Makes a directory below `parent`, which `account` has to be able to write to, for `account` alone.
    pub(super) fn start(parent: Option<&Path>, account: Option<Account>) -> Result<Self, Error> {
        let parent = parent.map_or_else(roomy, Path::to_path_buf);
        let (shell, directory) = spawn(&parent, Path::new(""), account)
            .map_err(|source| Error::io(format!("make a directory for the servers in {}", parent.display()), source))?;
        Ok(Self { directory, account, shell })
    }

    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    #[expect(clippy::disallowed_methods, reason = "it blocks, and runs where a test's clock stands still")]
    fn clean_up(&mut self) -> io::Result<()> {
        drop(self.shell.stdin.take());
        let deadline = Instant::now() + DEADLINE;
        loop {
            match self.shell.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(io::Error::other(format!("the watcher ended with {status}"))),
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
            warn!(%error, %directory, "the watcher did not clean up; another one will");
            let again = spawn(Path::new("/"), &self.directory, self.account).and_then(|(shell, _)| {
                self.shell = shell;
                self.clean_up()
            });
            if let Err(error) = again {
                warn!(%error, %directory, "the local cluster was not cleaned up");
            }
        }
    }
}

/// Memory where there is enough of it: ext4 is slow to make files where many were just removed.
fn roomy() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let enough = statvfs(memory).is_ok_and(|room| room.f_bavail.saturating_mul(room.f_frsize) >= ROOM);
    if enough && access(memory, Access::WRITE_OK).is_ok() { memory.to_path_buf() } else { std::env::temp_dir() }
}

/// Starts the watcher on a directory, or on a new one below `parent` where that is empty; tells the directory's name.
fn spawn(parent: &Path, directory: &Path, account: Option<Account>) -> io::Result<(Child, PathBuf)> {
    // As the servers' user: root in a container may not look into another user's processes.
    let mut shell = command::program(Path::new("/bin/sh"), account)
        .args(["-c", SCRIPT, "podpool-testkit-watcher"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let (Some(input), Some(output)) = (&mut shell.stdin, &mut shell.stdout) else {
        return Err(io::Error::other("the watcher has no pipes"));
    };
    for line in [parent, directory] {
        input.write_all(&[line.as_os_str().as_bytes(), b"\n"].concat())?;
    }
    // The watcher closes its end once it has told.
    let mut told = String::new();
    output.read_to_string(&mut told)?;
    match told.strip_suffix('\n') {
        Some(directory) => Ok((shell, directory.into())),
        None => {
            drop(shell.stdin.take());
            let status = shell.wait()?;
            Err(io::Error::other(format!("the directory cannot be made or entered ({status})")))
        }
    }
}
