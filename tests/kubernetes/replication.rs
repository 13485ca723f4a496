//! Tests replication between the StatefulSet's Pods. Runs the script and the command line from the manifests with the
//! PostgreSQL installation of this machine.

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

use crate::{
    certificates::Cluster,
    lookup::{CERTIFICATE, CONFIG, SET, container, template},
    read::Manifests,
};

const SCENARIO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kubernetes/replication.sh");
const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/postgres-programs");

/// Prefix of the line that the scenario prints for each verified property, and the expected number of such lines.
const VERIFIED: (&str, usize) = ("ok: ", 31);

/// Time limit for the scenario, which normally takes 45 s.
const LIMIT: Duration = Duration::from_secs(600);

/// Returns an `unshare` command that creates mount, network and PID namespaces. Users other than root need a user
/// namespace for that, which some systems forbid. When the command ends, all processes in the namespaces are killed.
fn unshare() -> Command {
    let mut unshare = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        unshare.args(["--user", "--map-current-user", "--keep-caps"]);
    }
    unshare.args(["--mount", "--net", "--pid", "--fork", "--kill-child"]).stdin(Stdio::null());
    unshare
}

/// Returns the directory of PostgreSQL's server programs.
fn programs() -> String {
    let output = Command::new(PROGRAMS).output().expect("scripts/postgres-programs starts");
    let text = String::from_utf8(output.stdout).expect("the output is UTF-8");
    let found =
        text.lines().find_map(|line| line.split_once(" found in ").or_else(|| line.split_once("installed in ")));
    found.unwrap_or_else(|| panic!("{text}{}", String::from_utf8_lossy(&output.stderr))).1.to_owned()
}

/// Returns the uid and gid of the user `postgres`. If this test runs as root, the servers run as that user.
fn postgres() -> (u32, u32) {
    let users = fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
    let line = users.lines().find(|line| line.starts_with("postgres:")).expect("there is a user `postgres`");
    let mut ids = line.split(':').skip(2).map(|id| id.parse().expect("a number"));
    (ids.next().expect("the line has a uid"), ids.next().expect("the line has a gid"))
}

/// Writes the contents of the manifests to the files that the scenario reads.
fn write_files(work: &Path, job: &Cluster) {
    let manifests = Manifests::read();
    // The certificate of the Job, and a renewed one.
    for folder in ["tls", "tls.new"] {
        job.create();
        fs::create_dir(work.join(folder)).expect("the folder is created");
        for file in ["ca.crt", "tls.crt", "tls.key"] {
            let path = work.join(folder).join(file);
            fs::write(&path, job.read(CERTIFICATE, file)).expect("the file is written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("the permissions are set");
        }
        fs::remove_dir_all(job.secret(CERTIFICATE)).expect("the Secret is deleted");
    }
    let write = |folder: &str, files: &mut dyn Iterator<Item = (&String, &String)>| {
        let folder = work.join(folder);
        fs::create_dir(&folder).expect("the folder is created");
        files.for_each(|(name, text)| fs::write(folder.join(name), text).expect("the file is written"));
    };
    write("config", &mut manifests.config_maps[CONFIG].data.as_ref().unwrap().iter());
    write("secrets", &mut manifests.secrets["postgresql-secret"].string_data.as_ref().unwrap().iter());
    let server = container(template(&manifests, SET));
    let mut environment = String::new();
    for variable in server.env.iter().flatten() {
        // The only variable without a value is POD_NAME, which the scenario sets.
        match &variable.value {
            Some(value) => writeln!(environment, "export {}='{value}'", variable.name),
            None => writeln!(environment, "export {}", variable.name),
        }
        .expect("writing to a string succeeds");
    }
    fs::write(work.join("environment"), environment).expect("the file is written");
    fs::write(work.join("command"), server.command.as_ref().unwrap().join("\n") + "\n").expect("the file is written");
    for ordinal in 0..3 {
        for folder in ["volume", "socket"] {
            fs::create_dir(work.join(format!("{folder}{ordinal}"))).expect("the folder is created");
        }
    }
}

/// Changes the owner of a folder and of everything in it.
fn change_owner(path: &Path, owner: (u32, u32)) {
    chown(path, Some(owner.0), Some(owner.1)).expect("the owner is changed");
    if path.is_dir() {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("the permissions are set");
        fs::read_dir(path)
            .expect("the folder is readable")
            .for_each(|entry| change_owner(&entry.expect("the entry is readable").path(), owner));
    }
}

#[tokio::test]
async fn replication_survives_restarts_promotion_and_lost_volumes() {
    let supported = unshare().args(["sh", "-c", "ip link set lo up && mount -t tmpfs tmpfs /run"]).output();
    if !supported.as_ref().is_ok_and(|output| output.status.success()) {
        assert!(env::var_os("CI").is_none_or(|ci| ci != "true"), "cannot create the namespaces: {supported:?}");
        println!("skipped: requires `unshare` with --mount, --net and --pid, and `ip`: {supported:?}");
        return;
    }
    let Some(job) = Cluster::new() else { return };
    // Uses memory instead of a disk if possible, because the data is temporary.
    let memory = PathBuf::from("/dev/shm");
    let parent = if memory.is_dir() { memory } else { env::temp_dir() };
    let work = tempfile::Builder::new().prefix("podpool-kubernetes").tempdir_in(parent).expect("the folder is created");
    write_files(work.path(), &job);
    if rustix::process::geteuid().is_root() {
        change_owner(work.path(), postgres());
    }
    let mut scenario = unshare();
    // A shell in the background ignores SIGINT, and its children cannot trap it.
    scenario
        .args(["env", "--default-signal=INT,QUIT", "bash"])
        .arg(SCENARIO)
        .env("WORK", work.path())
        .env("BIN", programs())
        .env("LC_ALL", "C");
    for (name, _) in env::vars_os().filter(|(name, _)| name.to_str().is_some_and(|name| name.starts_with("PG"))) {
        scenario.env_remove(name);
    }
    let output = tokio::process::Command::from(scenario).kill_on_drop(true).output();
    let output = timeout(LIMIT, output).await.expect("the scenario finishes in time").expect("the scenario starts");
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{text}");
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.lines().filter(|line| line.starts_with(VERIFIED.0)).count(), VERIFIED.1);
    assert_eq!(text.lines().last(), Some("all done"));
}
