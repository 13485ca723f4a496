//! Every example, run as its users run it, on one cluster.

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

#[allow(dead_code, reason = "the tests of TLS use the rest")]
#[path = "tls/authority.rs"]
mod authority;
mod common;
use authority::Authority;
use common::programs::programs as installed;

/// Many times what an example takes.
const LIMIT: Duration = Duration::from_secs(30);

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/examples");

/// Programs more than examples, which other tests and the demo run; they may be longer.
const ELSEWHERE: [&str; 3] = ["load", "microservice", "resolve"];

/// The folder with the programs, built anew where need be.
fn programs() -> PathBuf {
    let test = env::current_exe().expect("the test's own path");
    // target/PROFILE/deps/examples-HASH
    let profile = test.parent().and_then(Path::parent).expect("the profile's directory");
    let mut cargo = std::process::Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo.args(["build", "--quiet", "--all-features", "--examples", "--target-dir"]);
    cargo.arg(profile.parent().expect("the target directory"));
    match profile.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => {}
        Some(name) => drop(cargo.args(["--profile", name])),
    }
    assert!(cargo.status().expect("cargo").success(), "cargo build --examples");
    profile.join("examples")
}

struct Stage {
    cluster: Cluster,
    programs: PathBuf,
    url: String,
    ran: BTreeSet<&'static str>,
}

impl Stage {
    /// From now on with this URL.
    fn at(&mut self, url: String) -> &mut Self {
        self.url = url;
        self
    }

    fn command(&mut self, name: &'static str) -> Command {
        self.ran.insert(name);
        let mut command = Command::new(self.programs.join(name));
        // A password beside the URL, for the one whose URL has none; the others do not look at it.
        command.env("DATABASE_URL", &self.url).env("PGPASSWORD", self.cluster.password());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true);
        command
    }

    /// Runs an example to its end, which has to be a good one. Gives what it printed.
    async fn run(&mut self, name: &'static str, arguments: &[&str]) -> String {
        let output = self.command(name).args(arguments).output();
        let output: Output = timeout(LIMIT, output).await.expect("it ends").expect("it runs");
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(
            output.status.success(),
            "{name}: {}: {text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        println!("== {name}\n{text}");
        text
    }

    /// Starts an example that runs until it is asked to end.
    fn start(&mut self, name: &'static str) -> Running {
        let mut child = self.command(name).spawn().expect("it starts");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Running { name, child, lines, said: Vec::new() }
    }
}

struct Running {
    name: &'static str,
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    said: Vec<String>,
}

impl Running {
    /// Waits for a line that has this in it.
    async fn says(&mut self, what: &str) {
        let waiting = async {
            while let Some(line) = self.lines.next_line().await.expect("text") {
                self.said.push(line);
                if self.said.last().is_some_and(|line| line.contains(what)) {
                    return true;
                }
            }
            false
        };
        let found = timeout(LIMIT, waiting).await;
        assert!(matches!(found, Ok(true)), "{} never says {what:?}: {:?}", self.name, self.said);
    }

    /// Ends it with SIGTERM, and gives everything it said.
    async fn end(mut self) -> String {
        let pid = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())).expect("running");
        kill_process(pid, Signal::TERM).expect("it takes a signal");
        while let Some(line) = timeout(LIMIT, self.lines.next_line()).await.expect("it ends").expect("text") {
            self.said.push(line);
        }
        let status = timeout(LIMIT, self.child.wait()).await.expect("it ends").expect("a status");
        let mut errors = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut errors).await.expect("text");
        let text = self.said.join("\n");
        assert!(status.success(), "{}: {status}: {text}{errors}", self.name);
        println!("== {}\n{text}\n", self.name);
        text
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_does_what_it_says() {
    let programs = programs();
    let authority = Authority::new("ours");
    let service = "postgresql-svc.k8s-training.svc.cluster.local";
    let identity = authority.issue(&[service, &format!("*.{service}")]);
    let cluster = Cluster::builder().certificate(&*identity.certificate, &*identity.key).start();
    let cluster = cluster.await.expect("a cluster");
    let url = cluster.srv_url();
    let mut stage = Stage { cluster, programs, url, ran: BTreeSet::new() };

    let text = stage.run("quickstart", &[]).await;
    assert!(text.contains(" is PostgreSQL ") && text.contains("and it is 20"));

    let text = stage.run("transactions", &[]).await;
    let (done, before) = (text.matches(": done\n").count(), text.matches(": was done before\n").count());
    assert_eq!((done, before), (1, 1));

    let text = stage.run("read_write_split", &[]).await;
    let by = |what: &str| text.lines().find_map(|line| Some(line.split_once(what)?.1.to_owned())).expect(what);
    assert!(by("was written by ").starts_with("postgresql-sfs-0 "));
    assert!(!by("counted by ").starts_with("postgresql-sfs-0 "));
    assert!(by("says ").starts_with("postgresql-sfs-0 "));

    let text = stage.run("custom_policy", &[]).await;
    assert_eq!(text.matches(" of 200, latency ").count(), 3);

    let pods = tempfile::NamedTempFile::new().expect("a file");
    let line = |pod: &podpool::testkit::Pod| format!("{} {}\n", pod.name(), pod.address());
    let lines: String = stage.cluster.pods().iter().map(line).collect();
    fs::write(pods.path(), lines).expect("a file");
    let text = stage.run("custom_resolver", &[pods.path().to_str().expect("a plain path")]).await;
    assert!(text.contains("3 Pods by the file ") && text.matches("answered by postgresql-sfs-").count() == 10);

    let ca = tempfile::NamedTempFile::new().expect("a file");
    fs::write(ca.path(), authority.certificate()).expect("a file");
    let tls = format!("&sslmode=verify-full&sslrootcert={}", ca.path().display());
    let pod = |i: usize| format!("postgresql-sfs-{i}.{service}");
    for (url, name, verified) in [
        (stage.cluster.url(), "127.", &(|_| service.to_owned()) as &dyn Fn(usize) -> String),
        (stage.cluster.srv_url() + "&ssl_verify_name=pod", "postgresql-sfs-", &pod),
    ] {
        let text = stage.at(format!("{url}{tls}")).run("tls", &[]).await;
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

    let (_, rest) = stage.cluster.srv_url().split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("a URL");
    let url = format!("postgres://{}@{rest}", stage.cluster.user());
    let text = stage.at(url).run("rotating_password", &[]).await;
    assert_eq!(text.matches("connections were opened with the new one\n").count(), 2);
    assert_eq!(text.matches("with the old one: an error of kind `auth`\n").count(), 2);
    let (requests, failed) = text.lines().last().and_then(|line| line.split_once(" requests, ")).expect("counts");
    assert!(requests.parse::<u64>().expect("a number") > 500 && failed == "0 failed");
    let url = stage.cluster.srv_url();
    stage.at(url);

    let mut shutdown = stage.start("graceful_shutdown");
    shutdown.says("working").await;
    let text = shutdown.end().await;
    assert!(text.contains("asked to end") && text.contains("every connection came back"));
    assert_eq!(text.matches(" pieces of work").count(), 4);

    let mut observer = stage.start("observer");
    for _ in 0..3 {
        observer.says("probing -> healthy").await;
    }
    stage.cluster.kill(2).await.expect("killed");
    observer.says("ALARM: postgresql-sfs-2 ").await;
    let text = observer.end().await;
    assert!(text.contains("postgresql-sfs-0") && text.contains(" is primary now") && text.ends_with("the end"));

    stage.cluster.shutdown().await.expect("an orderly end");
    let mut ran: BTreeSet<String> = stage.ran.iter().map(|name| (*name).to_owned()).collect();
    ran.extend(ELSEWHERE.map(str::to_owned));
    ran.extend(["local_cluster", "pgbouncer"].map(str::to_owned)); // below
    assert_eq!(ran, there_are(), "run, and there");
}

/// A PgBouncer in front of a Pod, in transaction mode, with two server connections. `None` where it is not installed.
async fn bouncer(cluster: &Cluster, directory: &Path) -> Option<(Child, u16)> {
    let [program] = installed(["pgbouncer"])?;
    let pod = cluster.pod(0).address();
    // Free a moment ago; it says so if it is not any more.
    let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("a port").port();
    let users = directory.join("users");
    fs::write(&users, format!("\"{}\" \"{}\"\n", cluster.user(), cluster.password())).expect("a file");
    let ini = directory.join("pgbouncer.ini");
    let text = format!(
        "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = scram-sha-256\nauth_file = {}\npool_mode = transaction\ndefault_pool_size = 2\n",
        pod.ip(),
        pod.port(),
        users.display(),
    );
    fs::write(&ini, text).expect("a file");
    let mut command = Command::new(program);
    command.arg("--quiet").arg(&ini).stdin(Stdio::null()).kill_on_drop(true);
    if geteuid().is_root() {
        // It refuses to run as root.
        let passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd");
        let line = passwd.lines().find(|line| line.starts_with("postgres:")).expect("a user `postgres`");
        let mut ids = line.split(':').skip(2).map(|id| id.parse::<u32>().expect("a number"));
        let (uid, gid) = (ids.next().expect("a uid"), ids.next().expect("a gid"));
        for path in [directory, &users, &ini] {
            std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("an owner");
        }
        command.uid(uid).gid(gid);
    }
    let mut child = command.spawn().expect("it starts");
    common::until(LIMIT, "PgBouncer listens", || {
        assert!(child.try_wait().expect("a status").is_none(), "PgBouncer ended");
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    })
    .await;
    Some((child, port))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pgbouncer_gives_few_server_processes_to_many_requests() {
    let directory = tempfile::tempdir().expect("a directory");
    let cluster = Cluster::start(1).await.expect("a cluster");
    let Some((mut bouncer, port)) = bouncer(&cluster, directory.path()).await else { return };
    let (account, rest) = cluster.url().split_once('@').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("a URL");
    let database = rest.split_once('/').expect("a database").1.split('?').next().expect("a database").to_owned();
    let url = format!("{account}@127.0.0.1:{port}/{database}");
    let mut stage = Stage { cluster, programs: programs(), url, ran: BTreeSet::new() };
    let text = stage.run("pgbouncer", &[]).await;
    assert!(text.contains("40 and 2 are 42\n") && text.contains("the limit is 2s\n"));
    assert!(text.contains("by 1 server processes") || text.contains("by 2 server processes"));
    bouncer.kill().await.expect("it ends");
    stage.cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test]
async fn the_local_cluster_takes_commands_and_remembers_them() {
    let program = programs().join("local_cluster");
    let mut child = Command::new(program);
    child.arg("2").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = child.spawn().expect("it starts");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(b"kill 1\nhelp\nnonsense\nhistory\nstart 1\n!99\n!1\nstatus\nquit\n").await.expect("it reads");
    let output = timeout(LIMIT, child.wait_with_output()).await.expect("it ends").expect("it runs");
    let text = String::from_utf8(output.stdout).expect("text");
    println!("{text}");
    assert!(output.status.success(), "{}", output.status);
    assert!(text.contains("DATABASE_URL=postgres://"));
    // Done three times: killed, started, and killed once more.
    assert_eq!(text.matches("done in ").count(), 3);
    assert!(text.contains("   1  kill 1\n   2  help\n   3  nonsense\n   4  history\n"));
    assert!(text.contains("`nonsense` is no command") && text.contains("`!99` is no command so far"));
    let (_, last) = text.rsplit_once("POD  ").expect("a table");
    let row = |pod: &str| {
        last.lines().find(|line| line.starts_with(pod)).expect("a row").split_whitespace().collect::<Vec<_>>()
    };
    assert_eq!((row("postgresql-sfs-0")[3], row("postgresql-sfs-1")[3]), ("running", "down"));
}

/// The examples in the folder.
fn there_are() -> BTreeSet<String> {
    let entries = fs::read_dir(FOLDER).expect("the folder").map(|entry| entry.expect("an entry").path());
    let programs = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").exists());
    programs.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect()
}

#[test]
fn each_is_short_and_in_the_table() {
    let table = fs::read_to_string(format!("{FOLDER}/README.md")).expect("a README");
    for name in there_are() {
        assert!(table.contains(&format!("| [`{name}`](")), "{name} is not in the table");
        let file = format!("{FOLDER}/{name}.rs");
        if !ELSEWHERE.contains(&&*name) && name != "local_cluster" {
            let lines = fs::read_to_string(&file).expect("a file").lines().count();
            assert!(lines < 100, "{file} has {lines} lines");
        }
    }
}
