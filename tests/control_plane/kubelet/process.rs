//! Starts a container's process in namespaces of its own, and further processes in the same namespaces.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

/// Time limit for the setup of the namespaces, which takes milliseconds.
const LIMIT: Duration = Duration::from_secs(30);

/// A process without a network that holds a Pod's network namespace open. Dropping it ends the process.
pub(super) struct Sandbox {
    _child: Child,
    pub(super) pid: u32,
}

impl Sandbox {
    pub(super) async fn start() -> Self {
        let child = Command::new("unshare").args(["--net", "sleep", "infinity"]).kill_on_drop(true).spawn();
        let child = child.expect("unshare starts");
        let pid = child.id().expect("the process runs");
        let own = fs::read_link("/proc/self/ns/net").expect("the namespace is readable");
        until("the network namespace", || fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|other| other != own))
            .await;
        Self { _child: child, pid }
    }
}

/// The identity and the variables of a container's processes.
#[derive(Clone)]
pub(super) struct Account {
    pub(super) user: i64,
    pub(super) group: i64,
    /// Additional group, which owns the Pod's volumes.
    pub(super) volumes: i64,
    pub(super) variables: BTreeMap<String, String>,
}

impl Account {
    /// Returns the arguments of `setpriv` for this account.
    fn arguments(&self) -> [String; 8] {
        [
            "setpriv".into(),
            format!("--reuid={}", self.user),
            format!("--regid={}", self.group),
            format!("--groups={}", self.volumes),
            "--no-new-privs".into(),
            "--bounding-set=-all".into(),
            "--inh-caps=-all".into(),
            "--".into(),
        ]
    }
}

/// A container's process. Dropping it kills all processes of the container.
pub(super) struct Process {
    child: Child,
    pub(super) entry: Entry,
}

/// Access to a running container's namespaces.
#[derive(Clone)]
pub(super) struct Entry {
    /// The first process of the container, as numbered outside of its namespace.
    first: Pid,
    account: Account,
}

impl Process {
    /// Starts a container. `mounts` are the shell commands that mount its root directory on `root`.
    pub(super) async fn start(
        sandbox: &Sandbox,
        mounts: &str,
        root: &Path,
        account: Account,
        command: &[String],
        log: &Path,
    ) -> Self {
        let log = File::options().create(true).append(true).open(log).expect("the log file is created");
        let script = format!("{mounts}\nexec chroot '{}' \"$@\"", root.display());
        let child = Command::new("nsenter")
            .arg(format!("--net=/proc/{}/ns/net", sandbox.pid))
            .args(["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-euc", &script, "container"])
            .args(account.arguments())
            .args(command)
            .env_clear()
            .envs(&account.variables)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the descriptor is copied"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("nsenter starts");
        let parent = child.id().expect("the process runs");
        let mut first = None;
        // The process changes its root directory after all mounts, just before it executes the command.
        until("the container's namespaces", || {
            let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
            first = children.split_whitespace().next().and_then(|pid| Pid::from_raw(pid.parse().ok()?));
            let entered = |pid: Pid| fs::read_link(format!("/proc/{}/root", pid.as_raw_nonzero()));
            let exited = !Path::new(&format!("/proc/{parent}/ns/net")).exists();
            exited || first.is_some_and(|pid| entered(pid).is_ok_and(|path| path != Path::new("/")))
        })
        .await;
        // A process that has already exited is reported by `wait`.
        let first = first.unwrap_or_else(|| Pid::from_raw(parent.cast_signed()).expect("a process id"));
        Self { child, entry: Entry { first, account } }
    }

    pub(super) async fn wait(&mut self) -> ExitStatus {
        self.child.wait().await.expect("the status is available")
    }
}

impl Entry {
    /// Sends a signal to the first process. Like in any container, that process ignores signals without a handler.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = kill_process(self.first, signal); // fails only if the process has exited
    }

    /// Returns a command that runs in the container.
    pub(super) fn command(&self, words: &[String]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--target={}", self.first.as_raw_nonzero()));
        command.args(["--mount", "--net", "--pid", "--root", "--wd"]).args(self.account.arguments()).args(words);
        command.env_clear().envs(&self.account.variables).kill_on_drop(true);
        command
    }
}

async fn until(description: &str, mut condition: impl FnMut() -> bool) {
    let polling = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LIMIT, polling).await.unwrap_or_else(|_| panic!("not set up within {LIMIT:?}: {description}"));
}
