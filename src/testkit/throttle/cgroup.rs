//! Creates a Linux control group with a CPU quota: `cpu.max` in cgroup v2 (kernel documentation
//! `admin-guide/cgroup-v2`), `cpu.cfs_quota_us` in cgroup v1 (`admin-guide/cgroup-v1`, `scheduler/sched-bwc`).
//!
//! The testkit may run on a developer's machine, so it must not change other control groups, and removing its group
//! must not kill the processes in it. Crates for container runtimes assume that they own the hierarchy:
//!
//! - `cgroups-rs` 0.5 creates a v2 group by enabling every available controller in `cgroup.subtree_control` of the
//!   mount point and of each parent, and ignores errors of those writes. It depends on `zbus`, because it also drives
//!   systemd.
//! - `libcgroups` 0.6 (of youki) enables the controllers of all parents in the same way, and kills the processes of a
//!   group that it removes. It depends on `oci-spec`, `procfs` and `pathrs`.
//! - `controlgroup` 0.3 supports cgroup v1 only.
//!
//! With `cgroups-rs` and `controlgroup`, dropping the handle of a group also does not remove the group. This module
//! only reads and writes a handful of files, so it needs no dependency.

use std::{
    fs,
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    thread::sleep,
    time::{Duration, Instant},
};

use tracing::{debug, warn};

/// Prefix of a group's name. The id of the process that created the group and a number follow it.
const PREFIX: &str = "podpool-";

/// Time limit for removing the group. First, all its processes must be moved to another group or exit. An exiting
/// process cannot be moved, and a throttled process may get the CPU time to exit only in its next period.
const REMOVE_DEADLINE: Duration = Duration::from_secs(2);

/// Interval between two attempts to remove the group.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// A control group. Dropping this value moves the processes in the group to the group of this process, and removes the
/// group.
#[derive(Debug)]
pub(super) struct Cgroup {
    pub(super) directory: PathBuf,
    /// The group of this process.
    own: PathBuf,
    version: Version,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Cgroup {
    /// Creates an empty group below a parent group that already enables CPU quotas. Changes no other group.
    pub(super) fn create() -> io::Result<Self> {
        let (mounts, groups) = (fs::read_to_string("/proc/self/mounts")?, fs::read_to_string("/proc/self/cgroup")?);
        let unavailable =
            || io::Error::new(ErrorKind::NotFound, "the cpu controller is not enabled for new control groups here");
        let (own, version) = own_group(&mounts, &groups).ok_or_else(unavailable)?;
        let parent = match version {
            Version::V1 => own.clone(),
            // A v2 group that contains processes cannot enable controllers for child groups, so the new group becomes a
            // sibling of this process's group. Only the root group, the one without `cgroup.type`, is exempt.
            Version::V2 => {
                let is_root = !own.join("cgroup.type").exists();
                let parent = if is_root { &own } else { own.parent().ok_or_else(unavailable)? };
                let controllers = fs::read_to_string(parent.join("cgroup.subtree_control"))?;
                if !controllers.split_whitespace().any(|controller| controller == "cpu") {
                    return Err(unavailable());
                }
                parent.to_owned()
            }
        };
        remove_stale_groups(&parent)?;
        loop {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            // Relaxed: the numbers only have to be unique.
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let directory = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
            match fs::create_dir(&directory) {
                // A killed process that had the same process id left this group behind, so try the next number.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                created => return created.map(|()| Self { directory, own, version }),
            }
        }
    }

    /// Moves a process into the group. Its future children start in the group too. Returns `Ok` if the process has
    /// ended.
    pub(super) fn add(&self, pid: i32) -> io::Result<()> {
        move_process(&self.directory, pid)
    }

    /// Limits the total CPU time of all processes in the group to `quota` per `period`.
    pub(super) fn set_quota(&self, quota: Duration, period: Duration) -> io::Result<()> {
        let (quota, period) = (quota.as_micros(), period.as_micros());
        match self.version {
            Version::V1 => {
                write_existing(&self.directory.join("cpu.cfs_period_us"), &period.to_string())?;
                write_existing(&self.directory.join("cpu.cfs_quota_us"), &quota.to_string())
            }
            Version::V2 => write_existing(&self.directory.join("cpu.max"), &format!("{quota} {period}")),
        }
    }

    /// Removes the CPU limit of the group.
    fn clear_quota(&self) -> io::Result<()> {
        match self.version {
            Version::V1 => write_existing(&self.directory.join("cpu.cfs_quota_us"), "-1"),
            Version::V2 => write_existing(&self.directory.join("cpu.max"), "max"),
        }
    }

    /// Moves the processes to the group of this process and removes the group.
    #[expect(
        clippy::disallowed_methods,
        reason = "waits for the kernel in real time, also when a test pauses tokio's clock"
    )]
    fn remove(&self) -> io::Result<()> {
        let until = Instant::now() + REMOVE_DEADLINE;
        loop {
            let mut moved = Ok(());
            for pid in fs::read_to_string(self.directory.join("cgroup.procs"))?.lines() {
                moved = moved.and(pid.parse().map_or(Ok(()), |pid| move_process(&self.own, pid)));
            }
            match fs::remove_dir(&self.directory) {
                Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < until => {
                    sleep(POLL_INTERVAL);
                }
                removed => return removed.and(moved),
            }
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let directory = self.directory.display();
        if let Err(error) = self.clear_quota() {
            debug!(
                %error,
                %directory,
                "cannot clear the CPU quota of a control group; it applies to processes that cannot be moved out"
            );
        }
        if let Err(error) = self.remove() {
            warn!(%error, %directory, "cannot remove a control group; run rmdir on it after its processes have ended");
        }
    }
}

/// Removes the groups that killed test processes left behind. The kernel refuses to remove a group that still contains
/// processes.
fn remove_stale_groups(parent: &Path) -> io::Result<()> {
    for entry in fs::read_dir(parent)? {
        let entry = entry?;
        let name = entry.file_name();
        let creator = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-')).map(|(pid, _)| pid);
        if creator.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            // Ignore errors: the group may belong to another user, or another process may be removing it too.
            let _ = fs::remove_dir(entry.path());
        }
    }
    Ok(())
}

/// Moves a process into the group at `directory`. Returns `Ok` if the process has ended.
fn move_process(directory: &Path, pid: i32) -> io::Result<()> {
    match write_existing(&directory.join("cgroup.procs"), &pid.to_string()) {
        Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => Ok(()),
        moved => moved,
    }
}

/// Writes to an existing file of the kernel. Unlike `fs::write`, never creates a file.
fn write_existing(file: &Path, value: &str) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(file)?.write_all(value.as_bytes())
}

/// Finds the group of this process in the content of `/proc/self/mounts` and `/proc/self/cgroup`: the group in the v1
/// hierarchy of the `cpu` controller if there is one, otherwise the v2 group.
fn own_group(mounts: &str, groups: &str) -> Option<(PathBuf, Version)> {
    let mount = |wanted: &dyn Fn(&str, &str) -> bool| {
        mounts.lines().find_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (point, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            wanted(kind, options).then(|| PathBuf::from(point))
        })
    };
    let path = |wanted: &dyn Fn(&str) -> bool| {
        groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            wanted(controllers).then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let cpu = |list: &str| list.split(',').any(|name| name == "cpu");
    let v1 = mount(&|kind, options| kind == "cgroup" && cpu(options)).zip(path(&cpu));
    if let Some((point, path)) = v1 {
        return Some((point.join(path), Version::V1));
    }
    let (point, path) = mount(&|kind, _| kind == "cgroup2").zip(path(&str::is_empty))?;
    Some((point.join(path), Version::V2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V1_MOUNTS: &str = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpuset cgroup rw,cpuset 0 0\n\
                       cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n\
                       cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
    const V2_MOUNTS: &str = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n";

    #[test]
    fn finds_the_control_group_of_this_process_in_v1_and_v2() {
        let groups = "5:cpuset:/\n4:cpu,cpuacct:/kubepods/a\n0::/\n";
        let v1 = (PathBuf::from("/sys/fs/cgroup/cpu,cpuacct/kubepods/a"), Version::V1);
        assert_eq!(own_group(V1_MOUNTS, groups), Some(v1));
        let v2 = (PathBuf::from("/sys/fs/cgroup/user.slice/b"), Version::V2);
        assert_eq!(own_group(V2_MOUNTS, "0::/user.slice/b\n"), Some(v2));
        assert_eq!(own_group("proc /proc proc rw 0 0\n", "0::/\n"), None);
    }
}
