//! A running microservice and its HTTP responses.

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

/// Default time limit for each condition that a test waits for.
pub(crate) const LIMIT: Duration = Duration::from_secs(15);

/// Time limit for a response. Exceeds the maximum `sleep_ms` plus the service's own timeouts.
const RESPONSE_LIMIT: Duration = Duration::from_secs(90);

/// A running microservice. Dropping it kills the process.
pub(crate) struct Service {
    child: Child,
    output: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
    address: SocketAddr,
}

/// A response with a JSON body.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Response {
    /// Returns the value of a string field.
    pub(crate) fn text(&self, field: &str) -> &str {
        self.body[field].as_str().unwrap_or_else(|| panic!("expected a string in `{field}`: {self:?}"))
    }

    /// Returns the fields `kind` and `applied` of a failed request. Asserts that the status is 503 and no field is
    /// missing.
    pub(crate) fn failure(&self) -> (&str, &str) {
        assert_eq!(self.status, 503, "{self:?}");
        assert!(!self.text("error").is_empty());
        assert_eq!(fields(&self.body), ["applied", "error", "kind"]);
        (self.text("kind"), self.text("applied"))
    }
}

/// Returns the names of an object's fields, sorted.
pub(crate) fn fields(object: &Value) -> Vec<&str> {
    let mut names: Vec<_> = object.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable();
    names
}

/// Returns a command that starts the program with these environment variables, and without the ones that the test
/// itself may have inherited.
pub(crate) fn command(variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program::path());
    for name in ["DATABASE_URL", "LISTEN_ADDR", "MAX_REQUESTS", "RUST_LOG", "NO_COLOR"] {
        command.env_remove(name);
    }
    command.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    command
}

impl Service {
    /// Starts the program on an unused port and waits until it accepts connections, which it does even if no Pod is up.
    pub(crate) async fn start(url: &str) -> Self {
        Self::start_with(url, &[]).await
    }

    /// Like [`start`](Self::start), with further environment variables.
    pub(crate) async fn start_with(url: &str, others: &[(&str, &str)]) -> Self {
        let log = "microservice=trace,podpool=trace,tokio_postgres=debug";
        let variables = [("DATABASE_URL", url), ("LISTEN_ADDR", "127.0.0.1:0"), ("RUST_LOG", log)];
        let variables = [&variables, others].concat();
        let mut child = command(&variables).spawn().expect("the program starts");
        let output = Arc::new(Mutex::new(String::new()));
        let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        let readers = vec![
            tokio::spawn(collect(BufReader::new(stdout), output.clone())),
            tokio::spawn(collect(BufReader::new(stderr), output.clone())),
        ];
        let mut address = None;
        until(LIMIT, "the service listens", || {
            let output = output.lock().expect("no reader has panicked");
            address = output.split_once("listening on http://").and_then(|(_, rest)| rest.lines().next()?.parse().ok());
            address.is_some()
        })
        .await;
        Self { child, output, readers, address: address.expect("the service listens") }
    }

    /// Starts the program and waits until every Pod is usable.
    pub(crate) async fn ready(cluster: &Cluster) -> Self {
        let service = Self::start(&cluster.url()).await;
        service.get_until("/readyz", |response| response.body["usable"] == cluster.len()).await;
        service
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) async fn connect(&self) -> Connection {
        Connection::open(self.address).await.expect("the service accepts the connection")
    }

    /// Returns true if the service accepts connections.
    pub(crate) async fn accepts(&self) -> bool {
        Connection::open(self.address).await.is_ok()
    }

    /// Sends a request on a new connection. Returns the JSON response.
    pub(crate) async fn request(&self, method: &str, path: &str, body: &str) -> Response {
        request(&mut self.connect().await, method, path, body).await
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request("GET", path, "").await
    }

    pub(crate) async fn write(&self, id: &str) -> Response {
        self.request("POST", "/write", &serde_json::json!({ "id": id, "run": "test" }).to_string()).await
    }

    /// Returns the content type and the body of a successful response that is not JSON.
    pub(crate) async fn get_text(&self, path: &str) -> (String, String) {
        let (head, body) = self.connect().await.request("GET", path, "").await.expect("the service responds");
        assert_eq!(head.status, 200, "{body}");
        (head.header("content-type").expect("the response has a content type").to_owned(), body)
    }

    /// Repeats a request until the response meets a condition. Returns that response.
    pub(crate) async fn get_until(&self, path: &str, condition: impl Fn(&Response) -> bool) -> Response {
        let polling = async {
            loop {
                let response = self.get(path).await;
                if condition(&response) {
                    return response;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let found = timeout(LIMIT, polling).await;
        found.unwrap_or_else(|_| panic!("no response to {path} met the condition: {}", self.output()))
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        let pid = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        let sent = rustix::process::kill_process(pid.expect("the program runs"), rustix::process::Signal::TERM);
        sent.expect("the signal is delivered");
    }

    /// Waits for the program to exit. Returns its status and all of its output.
    pub(crate) async fn exit(mut self) -> (ExitStatus, String) {
        let status = timeout(LIMIT, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("the program does not exit: {}", self.output()));
        for reader in std::mem::take(&mut self.readers) {
            reader.await.expect("the reader does not panic");
        }
        (status.expect("the status is available"), self.output())
    }

    /// Stops the program with SIGTERM. Verifies that its status is 0 and that its output contains no password.
    pub(crate) async fn stop(self, cluster: &Cluster) {
        self.terminate();
        let (status, output) = self.exit().await;
        assert_eq!(status.code(), Some(0), "{output}");
        assert_no_password(&output, cluster);
    }

    pub(crate) fn output(&self) -> String {
        self.output.lock().expect("no reader has panicked").clone()
    }
}

/// Verifies that the output does not contain the password, either in plain text or URL-encoded.
pub(crate) fn assert_no_password(output: &str, cluster: &Cluster) {
    let encoded = cluster.url().split_once("://user:").and_then(|(_, rest)| Some(rest.split_once('@')?.0.to_owned()));
    for secret in [&cluster.password(), &encoded.expect("the URL contains a password")] {
        assert!(secret.len() > 5 && !output.contains(secret), "the output contains the password: {output}");
    }
}

/// Sends a request on an open connection. Returns the JSON response.
pub(crate) async fn request(connection: &mut Connection, method: &str, path: &str, body: &str) -> Response {
    let responding = connection.request(method, path, body);
    let response = timeout(RESPONSE_LIMIT, responding).await.expect("the service responds in time");
    let (head, body) = response.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
    assert_eq!(head.header("content-type"), Some("application/json"), "{method} {path}: {body}");
    Response { status: head.status, body: serde_json::from_str(&body).expect("the body is JSON") }
}

/// Appends all lines to `output`.
async fn collect(mut lines: impl AsyncBufReadExt + Unpin, output: Arc<Mutex<String>>) {
    let mut line = String::new();
    while lines.read_line(&mut line).await.is_ok_and(|read| read > 0) {
        output.lock().expect("no other reader has panicked").push_str(&line);
        line.clear();
    }
}
