//! Finds the processes of a cluster in `/proc`.

use std::{collections::BTreeSet, fs, path::Path};

/// Returns the process ids of all servers of the cluster in this directory.
pub(crate) fn cluster_pids(directory: &Path) -> BTreeSet<u32> {
    let pods = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    pods.flat_map(|pod| server_pids(&pod)).collect()
}

/// Returns the process ids of a Pod's postmaster and its children. `pod` is the Pod's directory.
pub(crate) fn server_pids(pod: &Path) -> BTreeSet<u32> {
    let file = fs::read_to_string(pod.join("data/postmaster.pid")).unwrap();
    let postmaster: u32 = file.lines().next().unwrap().parse().unwrap();
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let parent = |pid: u32| stat(pid).and_then(|stat| stat.split_whitespace().nth(1)?.parse::<u32>().ok());
    let mut pids: BTreeSet<u32> = processes.filter(|pid| parent(*pid) == Some(postmaster)).collect();
    assert!(
        pids.len() > 2 && is_running(postmaster),
        "expected a running postmaster {postmaster} with child processes, got {pids:?}"
    );
    pids.insert(postmaster);
    pids
}

/// Returns true if the process exists and is not a zombie.
pub(crate) fn is_running(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !stat.starts_with('Z'))
}

/// Returns the fields of `/proc/PID/stat` from the process state on.
fn stat(pid: u32) -> Option<String> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(line.rsplit_once(") ")?.1.to_owned())
}
