//! A control group of the kernel's with a quota of processor time: `cpu.max` of version 2 (Linux's
//! `admin-guide/cgroup-v2`), `cpu.cfs_quota_us` of version 1 (`admin-guide/cgroup-v1`, `scheduler/sched-bwc`).

use std::{
    fs,
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use tracing::{debug, warn};

/// What a group's name begins with; then come the process that made it and a number.
const PREFIX: &str = "podpool-";

/// How long it is tried to move its processes out, before the group is left where it is: one that is just ending is not
/// moved, and the kernel may let it end only in its next period.
const LEAVES: Duration = Duration::from_secs(2);
const POLL: Duration = Duration::from_millis(1);

/// A group for other processes. Dropped, these go to the group of this process, and it is removed.
#[derive(Debug)]
pub(super) struct Cgroup {
    pub(super) directory: PathBuf,
    /// Of this process.
    own: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

impl Cgroup {
    /// A new one, without a process: where the kernel grants quotas already. No other group is changed for it.
    pub(super) fn create() -> io::Result<Self> {
        let (mounts, groups) = (fs::read_to_string("/proc/self/mounts")?, fs::read_to_string("/proc/self/cgroup")?);
        let none = || io::Error::new(ErrorKind::NotFound, "no control group with a controller for processor time");
        let (own, version) = place(&mounts, &groups).ok_or_else(none)?;
        let parent = match version {
            Version::One => own.clone(),
            // Beside its own: a group that has processes can have none below it with a quota, but for the uppermost, which
            // alone has no type.
            Version::Two => {
                let uppermost = !own.join("cgroup.type").exists();
                let parent = if uppermost { &own } else { own.parent().ok_or_else(none)? };
                let controllers = fs::read_to_string(parent.join("cgroup.subtree_control"))?;
                if !controllers.split_whitespace().any(|controller| controller == "cpu") {
                    return Err(none());
                }
                parent.to_owned()
            }
        };
        sweep(&parent)?;
        loop {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            // Relaxed: only that no two are alike counts.
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let directory = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
            match fs::create_dir(&directory) {
                // Of a process with the same number that was killed.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => return made.map(|()| Self { directory, own, version }),
            }
        }
    }

    /// Moves a process here, and with it the children it will have. One that has ended is no error.
    pub(super) fn take(&self, pid: i32) -> io::Result<()> {
        enter(&self.directory, pid)
    }

    /// Lets its processes run so long in each period, all of them together.
    pub(super) fn limit(&self, runs: Duration, period: Duration) -> io::Result<()> {
        let (runs, period) = (runs.as_micros(), period.as_micros());
        match self.version {
            Version::One => {
                set(&self.directory.join("cpu.cfs_period_us"), &period.to_string())?;
                set(&self.directory.join("cpu.cfs_quota_us"), &runs.to_string())
            }
            Version::Two => set(&self.directory.join("cpu.max"), &format!("{runs} {period}")),
        }
    }

    /// Lets its processes run as they like.
    fn unlimit(&self) -> io::Result<()> {
        match self.version {
            Version::One => set(&self.directory.join("cpu.cfs_quota_us"), "-1"),
            Version::Two => set(&self.directory.join("cpu.max"), "max"),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the kernel's time goes on where a test's is paused")]
    fn dissolve(&self) -> io::Result<()> {
        let until = Instant::now() + LEAVES;
        loop {
            let mut moved = Ok(());
            for pid in fs::read_to_string(self.directory.join("cgroup.procs"))?.lines() {
                moved = moved.and(pid.parse().map_or(Ok(()), |pid| enter(&self.own, pid)));
            }
            match fs::remove_dir(&self.directory) {
                Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < until => sleep(POLL),
                removed => return removed.and(moved),
            }
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let directory = self.directory.display();
        if let Err(error) = self.unlimit() {
            debug!(%error, %directory, "a control group keeps its quota, if it has one, until its processes have left");
        }
        if let Err(error) = self.dissolve() {
            warn!(%error, %directory, "a control group stays behind");
        }
    }
}

/// Removes the groups that a process left behind which was killed. One with processes in it the kernel does not remove.
fn sweep(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let name = entry.file_name();
        let maker = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-')).map(|(maker, _)| maker);
        if maker.is_some_and(|maker| !Path::new("/proc").join(maker).exists()) {
            let _ = fs::remove_dir(entry.path()); // somebody else's, or swept by somebody else
        }
    }
    Ok(())
}

fn enter(directory: &Path, pid: i32) -> io::Result<()> {
    match set(&directory.join("cgroup.procs"), &pid.to_string()) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(()),
        entered => entered,
    }
}

/// Writes to a file that the kernel made: where it did not, none is made here.
fn set(file: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

/// The group that this process is in, of `/proc/self/mounts` and `/proc/self/cgroup`: where the controller for
/// processor time is one of version 1, there; else in version 2.
fn place(mounts: &str, own: &str) -> Option<(PathBuf, Version)> {
    let mount = |wanted: &dyn Fn(&str, &str) -> bool| {
        mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (point, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            wanted(kind, options).then(|| PathBuf::from(point))
        })
    };
    let path = |wanted: &dyn Fn(&str) -> bool| {
        own.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            wanted(controllers).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let cpu = |list: &str| list.split(',').any(|one| one == "cpu");
    let one = mount(&|kind, options| kind == "cgroup" && cpu(options)).zip(path(&cpu));
    if let Some((point, path)) = one {
        return Some((point.join(path), Version::One));
    }
    let (point, path) = mount(&|kind, _| kind == "cgroup2").zip(path(&str::is_empty))?;
    Some((point.join(path), Version::Two))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\n\
                       cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
                       cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
    const TWO: &str = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n";

    #[test]
    fn finds_its_own_group() {
        let own = "5:cpuset:/\n4:cpu,cpuacct:/kubepods/a\n0::/\n";
        let one = (PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/kubepods/a"), Version::One);
        assert_eq!(place(ONE, own), Some(one));
        let two = (PathBuf::from("/sys/fs/cgroup/user.slice/b"), Version::Two);
        assert_eq!(place(TWO, "0::/user.slice/b\n"), Some(two));
        assert_eq!(place("proc /proc proc rw 0 0\n", "0::/\n"), None);
    }
}
