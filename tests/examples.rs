//! Runs every example program and checks its output.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    time::Duration,
};

use podpool::testkit::Cluster;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::timeout,
};

#[allow(dead_code, reason = "other test binaries use the rest")]
#[path = "tls/authority.rs"]
mod authority;
mod common;
use authority::Authority;
use common::programs::programs as installed;

/// Time limit for each step of an example. A step normally takes a fraction of that.
const LIMIT: Duration = Duration::from_secs(30);

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");

/// Examples that other tests and the demo run. These are complete programs, so they may be longer than 100 lines.
const PROGRAMS: [&str; 3] = ["load", "microservice", "resolve"];

/// Builds the examples. Returns the directory that contains the executables.
fn programs() -> PathBuf {
    let test = env::current_exe().expect("the path of this program is known");
    // The path of the test program is `target/PROFILE/deps/examples-HASH`.
    let profile = test.parent().and_then(Path::parent).expect("the program is in the profile's directory");
    let mut cargo = std::process::Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["build", "--quiet", "--all-features", "--examples", "--target-dir"]);
    cargo.arg(profile.parent().expect("the profile's directory is in the target directory"));
    match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(name) => drop(cargo.args(["--profile", name])),
    }
    assert!(cargo.status().expect("cargo runs").success(), "cargo build --examples");
    profile.join("examples")
}

/// A cluster, and the names of the examples that have run on it.
struct Stage {
    cluster: Cluster,
    programs: PathBuf,
    url: String,
    ran: BTreeSet<&'static str>,
}

impl Stage {
    /// Sets `DATABASE_URL` for the examples that run from now on.
    fn with_url(&mut self, url: String) -> &mut Self {
        self.url = url;
        self
    }

    fn command(&mut self, name: &'static str) -> Command {
        self.ran.insert(name);
        let mut command = Command::new(self.programs.join(name));
        // `rotating_password` gets a URL without a password and reads PGPASSWORD. The other examples ignore PGPASSWORD.
        command.env("DATABASE_URL", &self.url).env("PGPASSWORD", self.cluster.password());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        command
    }

    /// Runs an example to completion and checks that it succeeds. Returns its output.
    async fn run(&mut self, name: &'static str, arguments: &[&str]) -> String {
        let output = self.command(name).args(arguments).output();
        let output: Output =
            timeout(LIMIT, output).await.expect("the example finishes in time").expect("the example starts");
        let text = String::from_utf8(output.stdout).expect("the output is UTF-8");
        assert!(
            output.status.success(),
            "{name}: {}: {text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        println!("== {name}\n{text}");
        text
    }

    /// Starts an example that runs until SIGTERM.
    fn start(&mut self, name: &'static str) -> Running {
        let mut child = self.command(name).spawn().expect("the example starts");
        let lines = BufReader::new(child.stdout.take().expect("the output is piped")).lines();
        Running { name, child, lines, output: Vec::new() }
    }
}

/// A running example.
struct Running {
    name: &'static str,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    output: Vec<String>,
}

impl Running {
    /// Waits for a line that contains this text.
    async fn prints(&mut self, text: &str) {
        let waiting = async {
            while let Some(line) = self.lines.next_line().await.expect("the output is UTF-8") {
                self.output.push(line);
                if self.output.last().is_some_and(|line| line.contains(text)) {
                    return true;
                }
            }
            false
        };
        let found = timeout(LIMIT, waiting).await;
        assert!(matches!(found, Ok(true)), "{} does not print {text:?}: {:?}", self.name, self.output);
    }

    /// Stops the example with SIGTERM and checks that it exits successfully. Returns its whole output.
    async fn terminate(mut self) -> String {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("the example runs");
        kill_process(pid, Signal::TERM).expect("SIGTERM is sent");
        while let Some(line) = timeout(LIMIT, self.lines.next_line())
            .await
            .expect("the example exits in time")
            .expect("the output is UTF-8")
        {
            self.output.push(line);
        }
        let status = timeout(LIMIT, self.child.wait())
            .await
            .expect("the example exits in time")
            .expect("the status is available");
        let mut errors = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut errors).await.expect("the output is UTF-8");
        let text = self.output.join("\n");
        assert!(status.success(), "{}: {status}: {text}{errors}", self.name);
        println!("== {}\n{text}\n", self.name);
        text
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_prints_the_expected_output() {
    let programs = programs();
    let authority = Authority::new("ours");
    let service = "postgresql-svc.k8s-training.svc.cluster.local";
    let identity = authority.issue(&[service, &format!("*.{service}")]);
    let cluster = Cluster::builder().certificate(&*identity.certificate, &*identity.key).start();
    let cluster = cluster.await.expect("the cluster starts");
    let url = cluster.srv_url();
    let mut stage = Stage { cluster, programs, url, ran: BTreeSet::new() };

    let text = stage.run("quickstart", &[]).await;
    assert!(text.contains(" runs PostgreSQL ") && text.contains("\nthe time is 20"));

    let text = stage.run("transactions", &[]).await;
    let (first, second) = (text.matches(": applied\n").count(), text.matches(": already applied\n").count());
    assert_eq!((first, second), (1, 1));

    let text = stage.run("types", &[]).await;
    assert!(text.starts_with("2 notes, of which 1 are happy: "));

    let text = stage.run("streams", &[]).await;
    assert!(text.contains(" is 5000050000\n") && text.contains(" is 1\n") && text.contains("[1000, 1000, 500] rows"));

    let text = stage.run("copy", &[]).await;
    assert!(text.contains("copied 2 + 1000 rows in, and 1002 (sum 502503) and 1002 out\n"));
    assert!(text.contains("an aborted COPY has left 0 rows\n"));

    let text = stage.run("cancel", &[]).await;
    assert_eq!(text.matches(": true").count(), 3);
    assert!(text.contains("connections closed: 0, "));

    let text = stage.run("read_write_split", &[]).await;
    let after = |words: &str| text.lines().find_map(|line| Some(line.split_once(words)?.1.to_owned())).expect(words);
    assert!(after("was written on ").starts_with("postgresql-sfs-0 "));
    assert!(!after("counted on ").starts_with("postgresql-sfs-0 "));
    assert!(after("read from ").starts_with("postgresql-sfs-0 "));

    let text = stage.run("custom_policy", &[]).await;
    assert_eq!(text.matches(" of 200, latency ").count(), 3);

    let pods = tempfile::NamedTempFile::new().expect("the file is created");
    let line = |pod: &podpool::testkit::Pod| format!("{} {}\n", pod.name(), pod.address());
    let lines: String = stage.cluster.pods().iter().map(line).collect();
    fs::write(pods.path(), lines).expect("the file is written");
    let text = stage.run("custom_resolver", &[pods.path().to_str().expect("the path is UTF-8")]).await;
    assert!(text.contains("3 Pods from the file "));
    let responded = |line: &&str| line.starts_with("postgresql-sfs-") && line.ends_with(" responded");
    assert_eq!(text.lines().filter(responded).count(), 10);

    let ca = tempfile::NamedTempFile::new().expect("the file is created");
    fs::write(ca.path(), authority.certificate()).expect("the file is written");
    let tls = format!("&sslmode=verify-full&sslrootcert={}", ca.path().display());
    let pod = |i: usize| format!("postgresql-sfs-{i}.{service}");
    for (url, name, verified) in [
        (stage.cluster.url(), "127.", &(|_| service.to_owned()) as &dyn Fn(usize) -> String),
        (stage.cluster.srv_url() + "&ssl_verify_name=pod", "postgresql-sfs-", &pod),
    ] {
        let text = stage.with_url(format!("{url}{tls}")).run("tls", &[]).await;
        for i in 0..3 {
            let is = |line: &&str| {
                line.starts_with(name)
                    && line.contains(": TLSv1.3, TLS_")
                    && line.ends_with(&format!(" as {}", verified(i)))
            };
            assert!(text.lines().filter(is).count() >= 1, "Pod {i}");
        }
        assert_eq!(text.matches(" verified as ").count(), 3);
        assert!((1..=3).contains(&text.matches(" wrong_name: ").count()) && text.contains("an error of kind `tls`\n"));
    }

    let (_, rest) =
        stage.cluster.srv_url().split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("the URL parses");
    let url = format!("postgres://{}@{rest}", stage.cluster.user());
    let text = stage.with_url(url).run("rotating_password", &[]).await;
    assert_eq!(text.matches(" connections with the new one\n").count(), 2);
    assert_eq!(text.matches("the old password causes an error of kind `auth`\n").count(), 2);
    let (requests, failed) =
        text.lines().last().and_then(|line| line.split_once(" requests, ")).expect("the last line has two counts");
    assert!(requests.parse::<u64>().expect("a number") > 500 && failed == "0 failed");
    let url = stage.cluster.srv_url();
    stage.with_url(url);

    let mut shutdown = stage.start("graceful_shutdown");
    shutdown.prints("working").await;
    let text = shutdown.terminate().await;
    assert!(text.contains("terminated") && text.contains("every connection was returned"));
    assert_eq!(text.matches(" statements\n").count(), 4);

    let mut observer = stage.start("observer");
    for _ in 0..3 {
        observer.prints("probing -> healthy").await;
    }
    stage.cluster.kill(2).await.expect("the Pod is killed");
    observer.prints("ALARM: postgresql-sfs-2 ").await;
    let text = observer.terminate().await;
    assert!(text.contains("postgresql-sfs-0") && text.contains(" is now the primary") && text.ends_with("closed"));

    stage.cluster.shutdown().await.expect("the cluster shuts down");
    let mut ran: BTreeSet<String> = stage.ran.iter().map(|name| (*name).to_owned()).collect();
    ran.extend(PROGRAMS.map(str::to_owned));
    ran.extend(["local_cluster", "pgbouncer"].map(str::to_owned)); // run by other tests of this file
    assert_eq!(ran, examples(), "examples that ran, and examples in the folder");
}

/// Starts PgBouncer in front of Pod 0, in transaction mode, with two server connections. Returns its process and port,
/// or `None` if PgBouncer is not installed.
async fn start_pgbouncer(cluster: &Cluster, directory: &Path) -> Option<(Child, u16)> {
    let [program] = installed(["pgbouncer"])?;
    let pod = cluster.pod(0).address();
    // If another process takes the port before PgBouncer does, PgBouncer exits.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .expect("the port is bound")
        .local_addr()
        .expect("the socket has an address")
        .port();
    let users = directory.join("users");
    fs::write(&users, format!("\"{}\" \"{}\"\n", cluster.user(), cluster.password())).expect("the file is written");
    let ini = directory.join("pgbouncer.ini");
    let text = format!(
        "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\n\
         default_pool_size = 2\n",
        pod.ip(),
        pod.port(),
        users.display(),
    );
    fs::write(&ini, text).expect("the file is written");
    let mut command = Command::new(program);
    command.arg("--quiet").arg(&ini).stdin(Stdio::null()).kill_on_drop(true);
    if geteuid().is_root() {
        // PgBouncer refuses to run as root.
        let passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
        let line = passwd.lines().find(|line| line.starts_with("postgres:")).expect("there is a user `postgres`");
        let mut ids = line.split(':').skip(2).map(|id| id.parse::<u32>().expect("a number"));
        let (uid, gid) = (ids.next().expect("the line has a uid"), ids.next().expect("the line has a gid"));
        for path in [directory, &users, &ini] {
            std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("the owner is changed");
        }
        command.uid(uid).gid(gid);
    }
    let mut child = command.spawn().expect("PgBouncer starts");
    common::until(LIMIT, "a connection to PgBouncer", || {
        assert!(child.try_wait().expect("the status is available").is_none(), "PgBouncer exited");
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    })
    .await;
    Some((child, port))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbouncer_example_shares_two_server_connections() {
    let directory = tempfile::tempdir().expect("the directory is created");
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let Some((mut bouncer, port)) = start_pgbouncer(&cluster, directory.path()).await else { return };
    let (account, rest) =
        cluster.url().split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("the URL parses");
    let database = rest
        .split_once('/')
        .expect("the URL has a database")
        .1
        .split('?')
        .next()
        .expect("the URL has a database")
        .to_owned();
    let url = format!("{account}@127.0.0.1:{port}/{database}");
    let mut stage = Stage { cluster, programs: programs(), url, ran: BTreeSet::new() };
    let text = stage.run("pgbouncer", &[]).await;
    assert!(text.contains("40 + 2 = 42\n") && text.contains("statement_timeout within the transaction: 2s\n"));
    assert!(text.contains("and 1 server processes") || text.contains("and 2 server processes"));
    bouncer.kill().await.expect("PgBouncer is killed");
    stage.cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test]
async fn local_cluster_example_executes_and_repeats_commands() {
    let program = programs().join("local_cluster");
    let mut child = Command::new(program);
    child.arg("2").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = child.spawn().expect("the example starts");
    let mut input = child.stdin.take().expect("the input is piped");
    input
        .write_all(b"kill 1\nhelp\nnonsense\nhistory\nstart 1\n!99\n!1\nstatus\nquit\n")
        .await
        .expect("the commands are sent");
    let output = timeout(LIMIT, child.wait_with_output())
        .await
        .expect("the example exits in time")
        .expect("the output is readable");
    let text = String::from_utf8(output.stdout).expect("the output is UTF-8");
    println!("{text}");
    assert!(output.status.success(), "{}", output.status);
    assert!(text.contains("DATABASE_URL=postgres://") && text.contains("&sslmode=verify-full&sslrootcert=/"));
    // Three commands succeed: `kill 1`, `start 1`, and `!1`, which repeats `kill 1`.
    assert_eq!(text.matches("done in ").count(), 3);
    assert!(text.contains("   1  kill 1\n   2  help\n   3  nonsense\n   4  history\n"));
    assert!(text.contains("unknown command `nonsense`") && text.contains("`!99` is not in the history"));
    let (_, last) = text.rsplit_once("POD  ").expect("the output contains the table");
    let row = |pod: &str| {
        last.lines()
            .find(|line| line.starts_with(pod))
            .expect("the table has a row for the Pod")
            .split_whitespace()
            .collect::<Vec<_>>()
    };
    assert_eq!((row("postgresql-sfs-0")[3], row("postgresql-sfs-1")[3]), ("running", "down"));
}

/// Returns the names of the examples in the folder.
fn examples() -> BTreeSet<String> {
    let entries =
        fs::read_dir(FOLDER).expect("the folder is readable").map(|entry| entry.expect("the entry is readable").path());
    let programs = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").exists());
    programs.map(|path| path.file_stem().expect("the path has a file name").to_string_lossy().into_owned()).collect()
}

#[test]
fn examples_are_short_and_listed_in_the_readme() {
    let table = fs::read_to_string(format!("{FOLDER}/README.md")).expect("the README is readable");
    for name in examples() {
        assert!(table.contains(&format!("| [`{name}`](")), "examples/README.md does not list {name}");
        let file = format!("{FOLDER}/{name}.rs");
        if !PROGRAMS.contains(&&*name) && name != "local_cluster" {
            let lines = fs::read_to_string(&file).expect("the file is readable").lines().count();
            assert!(lines < 100, "{file} has {lines} lines");
        }
    }
}
