//! The StatefulSet's Pods: its own script and its own command line, with this machine's PostgreSQL.

use std::{
    env,
    fmt::Write as _,
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tokio::time::timeout;

use crate::read::{Manifests, spec};

const SCENARIO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kubernetes/replication.sh");
const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres-programs");

/// Each line that says what was seen begins so; there are so many.
const SEEN: (&str, usize) = ("ok: ", 18);

/// Many times what it takes: 35 s.
const LIMIT: Duration = Duration::from_secs(240);

/// `unshare` with file systems, a network and processes of its own, as root, or as an ordinary user who is allowed to.
/// When it ends, everything in it does.
fn unshare() -> Command {
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-current-user", "--keep-caps"]);
    }
    unshare.args(["--mount", "--net", "--pid", "--fork", "--kill-child"]).stdin(Stdio::null());
    unshare
}

/// The directory of PostgreSQL's server programs.
fn programs() -> String {
    let output = Command::new(PROGRAMS).output().expect("scripts/postgres-programs");
    let said = String::from_utf8(output.stdout).expect("text");
    let found =
        said.lines().find_map(|line| line.split_once(" found in ").or_else(|| line.split_once("installed in ")));
    found.unwrap_or_else(|| panic!("{said}{}", String::from_utf8_lossy(&output.stderr))).1.to_owned()
}

/// The uid and gid of the user `postgres`, as whom servers run where we are root.
fn postgres() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("a user `postgres`");
    let mut ids = line.split(':').skip(2).map(|id| id.parse().expect("a number"));
    (ids.next().expect("a uid"), ids.next().expect("a gid"))
}

/// What the manifests say, as the files that the scenario reads.
fn lay_out(work: &Path) {
    let manifests = Manifests::read();
    let write = |folder: &str, files: &mut dyn Iterator<Item = (&String, &String)>| {
        let folder = work.join(folder);
        fs::create_dir(&folder).expect("a folder");
        files.for_each(|(name, text)| fs::write(folder.join(name), text).expect("a file"));
    };
    write("config", &mut manifests.config_maps["postgresql-config"].data.as_ref().unwrap().iter());
    write("secrets", &mut manifests.secrets["postgresql-secret"].string_data.as_ref().unwrap().iter());
    let set = &manifests.stateful_sets["postgresql-sfs"].spec.as_ref().unwrap().template;
    let server = &spec(set).containers[0];
    let mut environment = String::new();
    for variable in server.env.iter().flatten() {
        // The one without a value is the Pod's own name, which the scenario sets.
        match &variable.value {
            Some(value) => writeln!(environment, "export {}='{value}'", variable.name),
            None => writeln!(environment, "export {}", variable.name),
        }
        .expect("a string");
    }
    fs::write(work.join("environment"), environment).expect("a file");
    fs::write(work.join("command"), server.command.as_ref().unwrap().join("\n") + "\n").expect("a file");
    for ordinal in 0..3 {
        fs::create_dir(work.join(format!("volume{ordinal}"))).expect("a folder");
    }
}

/// Lets the servers' user have it all.
fn hand_over(path: &Path, owner: (u32, u32)) {
    chown(path, Some(owner.0), Some(owner.1)).expect("an owner");
    if path.is_dir() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("rights");
        fs::read_dir(path).expect("a folder").for_each(|entry| hand_over(&entry.expect("an entry").path(), owner));
    }
}

#[tokio::test]
async fn the_set_makes_a_cluster_that_replicates_and_survives_restarts_promotion_and_lost_volumes() {
    let able = unshare().args(["sh", "-c", "ip link set lo up && mount -t tmpfs tmpfs /run"]).output();
    if !able.as_ref().is_ok_and(|output| output.status.success()) {
        assert!(
            env::var_os("CI").is_none_or(|ci| ci != "true"),
            "no namespaces with file systems of their own: {able:?}"
        );
        println!("skipped: this needs `unshare` with --mount, --net and --pid, and `ip`: {able:?}");
        return;
    }
    // In memory, where there is room: nobody keeps this data.
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() { memory } else { env::temp_dir() };
    let work = tempfile::Builder::new().prefix("podpool-kubernetes").tempdir_in(parent).expect("a folder");
    lay_out(work.path());
    if rustix::process::geteuid().is_root() {
        hand_over(work.path(), postgres());
    }
    let mut scenario = unshare();
    scenario.arg("bash").arg(SCENARIO).env("WORK", work.path()).env("BIN", programs()).env("LC_ALL", "C");
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(|name| name.starts_with("PG"))) {
        scenario.env_remove(name);
    }
    let output = tokio::process::Command::from(scenario).kill_on_drop(true).output();
    let output = timeout(LIMIT, output).await.expect("the scenario ends").expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.lines().filter(|line| line.starts_with(SEEN.0)).count(), SEEN.1);
    assert_eq!(text.lines().last(), Some("all done"));
}
