//! The program while it runs.

use std::{
    net::SocketAddr,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use podpool::testkit::Cluster;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};

use crate::{common::until, http::Connection, program};

/// What is waited for at most, where nothing else is said.
pub(crate) const SOON: Duration = Duration::from_secs(15);

/// A running service. It is killed with its handle.
pub(crate) struct Service {
    child: Child,
    output: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    address: SocketAddr,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn word(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_else(|| panic!("no `{field}` in {self:?}"))
    }

    /// `kind` and `applied` of a 503, which has an error's text too.
    pub(crate) fn unavailable(&self) -> (&str, &str) {
        assert_eq!(self.status, 503, "{self:?}");
        assert!(!self.word("error").is_empty());
        assert_eq!(fields(&self.body), ["applied", "error", "kind"]);
        (self.word("kind"), self.word("applied"))
    }
}

/// The names of an object's fields, sorted.
pub(crate) fn fields(object: &Value) -> Vec<&str> {
    let mut names: Vec<_> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// The program with these variables and no others of its own.
pub(crate) fn command(variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program::path());
    for name in ["DATABASE_URL", "LISTEN_ADDR", "RUST_LOG", "NO_COLOR"] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

impl Service {
    /// Starts the program on a port of its own and waits until it listens, which needs no Pod.
    pub(crate) async fn start(url: &str) -> Self {
        let log = "microservice=trace,podpool=trace,tokio_postgres=debug";
        let variables = [("DATABASE_URL", url), ("LISTEN_ADDR", "127.0.0.1:0"), ("RUST_LOG", log)];
        let mut child = command(&variables).spawn().expect("the program");
        let output = Arc::new(Mutex::new(String::new()));
        let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let readers = vec![
            tokio::spawn(collect(BufReader::new(stdout), output.clone())),
            tokio::spawn(collect(BufReader::new(stderr), output.clone())),
        ];
        let mut address = None;
        until(SOON, "the service listens", || {
            let output = output.lock().expect("no reader panics");
            address = output.split_once("listening on http://").and_then(|(_, rest)| rest.lines().next()?.parse().ok());
            address.is_some()
        })
        .await;
        Self { child, output, readers, address: address.expect("waited for") }
    }

    /// Starts the program and waits until it is ready.
    pub(crate) async fn ready(cluster: &Cluster) -> Self {
        let service = Self::start(&cluster.url()).await;
        service.eventually("/readyz", |answer| answer.body["usable"] == cluster.len()).await;
        service
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.address).await.expect("a connection to the service")
    }

    /// Whether the door is still open.
    pub(crate) async fn accepts(&self) -> bool {
        Connection::open(self.address).await.is_ok()
    }

    /// A request on a connection of its own; every answer is JSON.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: &str) -> Answer {
        ask(&mut self.connect().await, method, path, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "").await
    }

    pub(crate) async fn write(&self, id: &str) -> Answer {
        self.ask("POST", "/write", &serde_json::json!({ "id": id, "run": "test" }).to_string()).await
    }

    pub(crate) async fn text(&self, path: &str) -> (String, String) {
        let (head, body) = self.connect().await.ask("GET", path, "").await.expect("an answer");
        assert_eq!(head.status, 200, "{body}");
        (head.header("content-type").expect("a content type").to_owned(), body)
    }

    /// Asks until the answer is as wanted.
    pub(crate) async fn eventually(&self, path: &str, wanted: impl Fn(&Answer) -> bool) -> Answer {
        let asking = async {
            loop {
                let answer = self.get(path).await;
                if wanted(&answer) {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(SOON, asking).await.unwrap_or_else(|_| panic!("{path} was never as wanted: {}", self.output()))
    }

    pub(crate) fn terminate(&self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        let sent = rustix::process::kill_process(pid.expect("a running child"), rustix::process::Signal::TERM);
        sent.expect("the program takes a signal");
    }

    /// Waits for the program's end. Gives its exit status and everything it printed.
    pub(crate) async fn end(mut self) -> (ExitStatus, String) {
        let status = timeout(SOON, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("the program does not end: {}", self.output()));
        for reader in std::mem::take(&mut self.readers) {
            reader.await.expect("the reader of its output");
        }
        (status.expect("its exit status"), self.output())
    }

    /// Ends it with SIGTERM; checks that it went well and that it never told the password.
    pub(crate) async fn finish(self, cluster: &Cluster) {
        self.terminate();
        let (status, output) = self.end().await;
        assert_eq!(status.code(), Some(0), "{output}");
        assert_tells_no_password(&output, cluster);
    }

    fn output(&self) -> String {
        self.output.lock().expect("no reader panics").clone()
    }
}

/// Not the password, as it is or as a URL has it.
pub(crate) fn assert_tells_no_password(output: &str, cluster: &Cluster) {
    let encoded = cluster.url().split_once("://user:").and_then(|(_, rest)| Some(rest.split_once('@')?.0.to_owned()));
    for secret in [&cluster.password(), &encoded.expect("a URL with a password")] {
        assert!(secret.len() > 5 && !output.contains(secret), "the output has the password in it: {output}");
    }
}

pub(crate) async fn ask(connection: &mut Connection, method: &str, path: &str, body: &str) -> Answer {
    let asked = timeout(Duration::from_secs(90), connection.ask(method, path, body)).await;
    let (head, body) = asked.expect("an answer in time").unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    assert_eq!(head.header("content-type"), Some("application/json"), "{method} {path}: {body}");
    Answer { status: head.status, body: serde_json::from_str(&body).expect("JSON") }
}

async fn collect(mut from: impl AsyncBufReadExt + Unpin, into: Arc<Mutex<String>>) {
    let mut line = String::new();
    while from.read_line(&mut line).await.is_ok_and(|read| read > 0) {
        into.lock().expect("nobody panics with it").push_str(&line);
        line.clear();
    }
}
