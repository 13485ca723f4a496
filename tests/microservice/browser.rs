//! Chromium, driven by ChromeDriver through the WebDriver protocol (W3C), which is JSON over HTTP.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use crate::{common::programs::programs, http::Connection};

/// What a browser may take to start, or to do anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// A browser without a screen. Its processes end with it, and its profile goes.
pub(crate) struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    browser: Option<Pid>,
    // Removed last: the processes still write there.
    _profile: TempDir,
}

impl Browser {
    /// Starts the browser; `None`, and a line that says so, where it is not installed.
    pub(crate) async fn start() -> Option<Self> {
        let [driver, chromium] = programs(["chromedriver", "chromium"])?;
        let profile = TempDir::new().expect("a directory");
        let mut driver = Command::new(driver)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("ChromeDriver starts");
        let mut lines = BufReader::new(driver.stdout.take().expect("piped")).lines();
        let port = async {
            loop {
                let line = lines.next_line().await.expect("its output").expect("ChromeDriver goes on");
                if let Some((_, port)) = line.split_once("started successfully on port ") {
                    return port.trim_end_matches('.').parse().expect("a port");
                }
            }
        };
        let port = timeout(PATIENCE, port).await.expect("ChromeDriver listens");
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut browser = Self { driver, address, session: String::new(), browser: None, _profile: profile };
        browser.open(&chromium).await;
        Some(browser)
    }

    async fn open(&mut self, chromium: &Path) {
        let profile = format!("--user-data-dir={}", self._profile.path().display());
        let arguments = [
            "--headless",
            // The one page that is opened is ours; the sandbox needs rights that containers do not give.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            // Nothing but the page is asked for.
            "--no-first-run",
            "--disable-quic",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &profile,
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "binary": chromium, "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = self.ask("POST", "/session", &wanted).await;
        self.session = session["sessionId"].as_str().expect("a session").to_owned();
        let process = session["capabilities"]["goog:processID"].as_i64().and_then(|id| i32::try_from(id).ok());
        self.browser = process.and_then(Pid::from_raw);
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let asked = async {
            let mut connection = Connection::open(self.address).await?;
            connection.ask(method, path, &body.to_string()).await
        };
        let (head, body) = timeout(PATIENCE, asked).await.expect("ChromeDriver answers").expect("an answer");
        let mut answer: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(head.status, 200, "{method} {path}: {answer}");
        answer["value"].take()
    }

    async fn command(&self, command: &str, body: Value) -> Value {
        self.ask("POST", &format!("/session/{}/{command}", self.session), &body).await
    }

    pub(crate) async fn go(&self, url: &str) {
        self.command("url", json!({ "url": url })).await;
    }

    /// What a function's body returns in the page.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.command("execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// Runs the script until it returns something else than `null`, `false`, 0 or an empty text.
    pub(crate) async fn until(&self, within: Duration, what: &str, script: &str) -> Value {
        let found = timeout(within, async {
            loop {
                let value = self.run(script).await;
                let empty = value.is_null() || value == false || value == 0 || value == "";
                if !empty {
                    return value;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        match found.await {
            Ok(value) => value,
            Err(_) => {
                let page = self.run("return document.body.innerText").await;
                panic!("not within {within:?}: {what}; the page says {page}, its console {:?}", self.console().await)
            }
        }
    }

    /// A command of Chromium's DevTools protocol.
    pub(crate) async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.command("goog/cdp/execute", json!({ "cmd": command, "params": parameters })).await
    }

    /// Presses keys, as the keyboard does; `\u{e004}` is the tabulator, `\u{e00d}` the space bar (WebDriver 17.4.2).
    pub(crate) async fn press(&self, keys: &str) {
        let events: Vec<_> = keys
            .chars()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() })))
            .collect();
        self.command("actions", json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": events }] })).await;
    }

    /// What the page wrote to its console, and what it could not load.
    pub(crate) async fn console(&self) -> Vec<Value> {
        let lines = self.command("se/log", json!({ "type": "browser" })).await;
        lines.as_array().expect("a list of lines").clone()
    }

    /// A picture of the whole page, as PNG.
    pub(crate) async fn picture(&self) -> Vec<u8> {
        let parameters = json!({ "format": "png", "captureBeyondViewport": true });
        let answer = self.devtools("Page.captureScreenshot", parameters).await;
        let text = answer["data"].as_str().expect("a picture");
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).expect("base64")
    }

    /// Ends the browser in order.
    pub(crate) async fn finish(mut self) {
        self.ask("DELETE", &format!("/session/{}", self.session), &json!({})).await;
        self.browser = None;
        self.driver.kill().await.expect("ChromeDriver ends");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // A failed test: ChromeDriver is killed with its handle, and the browser it started would stay.
        if let Some(browser) = self.browser {
            let _ = kill_process(browser, Signal::KILL);
        }
    }
}
