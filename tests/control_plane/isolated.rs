//! Runs a scenario in namespaces of its own.
//!
//! The test binary runs itself again, with only one scenario selected, in new network, mount and PID namespaces. When
//! that process ends, the kernel kills every process of the control plane and of the Pods.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::shell::script;

/// Environment variable that is set only for processes inside the namespaces: the directory for all files.
const INSIDE: &str = "PODPOOL_CONTROL_PLANE_STATE";

/// The script that builds the programs of the control plane, and prints their directory.
const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/control-plane");

/// Programs that the tests run.
const REQUIRED: [&str; 7] = ["unshare", "nsenter", "setpriv", "ip", "nft", "bash", "pg_isready"];

/// Paths that a scenario uses.
pub(crate) struct Paths {
    /// An empty directory in memory.
    pub(crate) state: PathBuf,
    /// The programs of the control plane.
    pub(crate) programs: PathBuf,
}

/// Returns the paths if called inside the namespaces.
///
/// Outside, runs the test named `test` in new namespaces and returns `None`. Panics if that run fails. If the machine
/// lacks a requirement, skips the test, or panics if `CI=true`.
pub(crate) async fn inside(test: &'static str) -> Option<Paths> {
    let programs = programs().unwrap_or_else(|error| panic!("{error}"));
    if let Some(state) = env::var_os(INSIDE) {
        let state = PathBuf::from(state);
        script(&format!("mount -t tmpfs -o mode=755 tmpfs {}", state.display())).await;
        return Some(Paths { state, programs });
    }
    if let Some(missing) = missing(&programs) {
        assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "{missing}");
        println!("skipped: {missing}");
        return None;
    }
    crate::program::path();
    let state = tempfile::Builder::new().prefix("podpool-control-plane").tempdir().expect("the directory is created");
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child"]);
    command.arg("--mount-proc").arg(env::current_exe().expect("the test binary has a path"));
    command.args([test, "--exact", "--ignored", "--nocapture"]).env(INSIDE, state.path()).stdin(Stdio::null());
    // The parent-death signal is sent when the thread ends that started the process, so this thread waits.
    let status = tokio::task::block_in_place(|| command.status()).expect("setpriv starts");
    assert!(status.success(), "{test}: {status}");
    None
}

/// Returns the directory for the programs of the control plane.
fn programs() -> Result<PathBuf, String> {
    let output = Command::new(PROGRAMS).arg("--path").output().map_err(|error| format!("{PROGRAMS}: {error}"))?;
    let text = String::from_utf8(output.stdout).map_err(|error| format!("{PROGRAMS}: {error}"))?;
    Ok(PathBuf::from(text.trim()))
}

/// Returns the first requirement that this machine does not meet.
fn missing(programs: &Path) -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("the scenarios need root, to run Pods as other users".into());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let installed = |name: &str| env::split_paths(&path).any(|directory| directory.join(name).is_file());
    if let Some(name) = REQUIRED.into_iter().find(|name| !installed(name)) {
        return Some(format!("{name} is not installed"));
    }
    let name = crate::plane::PROGRAMS.into_iter().find(|name| !programs.join(name).is_file())?;
    Some(format!("{} does not exist; run `make control-plane`, which needs Go", programs.join(name).display()))
}
