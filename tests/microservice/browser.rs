//! Chromium, controlled by ChromeDriver through the WebDriver protocol (W3C), which is JSON over HTTP.

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

/// Time limit for starting the browser and for each command.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// Keys in WebDriver's encoding (W3C WebDriver, section 17.4.2).
pub(crate) const TAB: char = '\u{e004}';
pub(crate) const SPACE: char = '\u{e00d}';

/// A headless browser with an empty profile. Dropping it kills the processes and removes the profile.
pub(crate) struct Browser {
    driver: Child,
    address: SocketAddr,
    session: String,
    browser: Option<Pid>,
    // This field is the last one, so that the directory is removed only after ChromeDriver, which writes to it, has
    // been killed.
    profile: TempDir,
}

impl Browser {
    /// Starts the browser. Returns `None` and prints the reason if it is not installed.
    pub(crate) async fn start() -> Option<Self> {
        let [driver, chromium] = programs(["chromedriver", "chromium"])?;
        let profile = TempDir::new().expect("the directory is created");
        let mut driver = Command::new(driver)
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("ChromeDriver starts");
        let mut lines = BufReader::new(driver.stdout.take().expect("the output is piped")).lines();
        let port = async {
            loop {
                let line = lines.next_line().await.expect("the output is readable").expect("ChromeDriver runs");
                if let Some((_, port)) = line.split_once("started successfully on port ") {
                    return port.trim_end_matches('.').parse().expect("a port");
                }
            }
        };
        let port = timeout(COMMAND_LIMIT, port).await.expect("ChromeDriver listens");
        // Drains the output, so that ChromeDriver does not block on a full pipe.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut browser = Self { driver, address, session: String::new(), browser: None, profile };
        browser.open(&chromium).await;
        Some(browser)
    }

    /// Opens a session, which starts Chromium.
    async fn open(&mut self, chromium: &Path) {
        let profile = format!("--user-data-dir={}", self.profile.path().display());
        let arguments = [
            "--headless",
            // The sandbox requires privileges that containers lack. The browser opens only the service's page.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            // These options turn off Chromium's own background requests.
            "--no-first-run",
            "--disable-quic",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            &profile,
        ];
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "binary": chromium, "args": arguments },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let session = self.request("POST", "/session", &capabilities).await;
        self.session = session["sessionId"].as_str().expect("the session has an id").to_owned();
        let process = session["capabilities"]["goog:processID"].as_i64().and_then(|id| i32::try_from(id).ok());
        self.browser = process.and_then(Pid::from_raw);
    }

    /// Sends a request to ChromeDriver. Returns the value in its response.
    async fn request(&self, method: &str, path: &str, body: &Value) -> Value {
        let responding = async {
            let mut connection = Connection::open(self.address).await?;
            connection.request(method, path, &body.to_string()).await
        };
        let response = timeout(COMMAND_LIMIT, responding).await.expect("ChromeDriver responds in time");
        let (head, body) = response.expect("ChromeDriver responds");
        let mut response: Value = serde_json::from_str(&body).expect("the body is JSON");
        assert_eq!(head.status, 200, "{method} {path}: {response}");
        response["value"].take()
    }

    /// Sends a command to the session.
    async fn command(&self, command: &str, body: Value) -> Value {
        self.request("POST", &format!("/session/{}/{command}", self.session), &body).await
    }

    pub(crate) async fn navigate(&self, url: &str) {
        self.command("url", json!({ "url": url })).await;
    }

    /// Runs a script as the body of a function in the page. Returns its result.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.command("execute/sync", json!({ "script": script, "args": [] })).await
    }

    /// Runs the script until it returns a value other than `null`, `false`, 0 or an empty string.
    pub(crate) async fn until(&self, limit: Duration, description: &str, script: &str) -> Value {
        let found = timeout(limit, async {
            loop {
                let value = self.run(script).await;
                let is_empty = value.is_null() || value == false || value == 0 || value == "";
                if !is_empty {
                    return value;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        match found.await {
            Ok(value) => value,
            Err(_) => {
                let page = self.run("return document.body.innerText").await;
                let console = self.console().await;
                panic!("condition not met within {limit:?}: {description}; page: {page}; console: {console:?}")
            }
        }
    }

    /// Sends a command of Chromium's DevTools protocol.
    pub(crate) async fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.command("goog/cdp/execute", json!({ "cmd": command, "params": parameters })).await
    }

    /// Presses and releases these keys one after the other.
    pub(crate) async fn press(&self, keys: &[char]) {
        let events: Vec<_> = keys
            .iter()
            .flat_map(|key| ["keyDown", "keyUp"].map(|kind| json!({ "type": kind, "value": key.to_string() })))
            .collect();
        self.command("actions", json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": events }] })).await;
    }

    /// Returns the new lines of the page's console, which include failed requests.
    pub(crate) async fn console(&self) -> Vec<Value> {
        let lines = self.command("se/log", json!({ "type": "browser" })).await;
        lines.as_array().expect("a list of lines").clone()
    }

    /// Returns a screenshot of the whole page as PNG.
    pub(crate) async fn screenshot(&self) -> Vec<u8> {
        let parameters = json!({ "format": "png", "captureBeyondViewport": true });
        let response = self.devtools("Page.captureScreenshot", parameters).await;
        let text = response["data"].as_str().expect("the response contains an image");
        base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).expect("the image is base64")
    }

    /// Closes the browser and stops ChromeDriver.
    pub(crate) async fn close(mut self) {
        self.request("DELETE", &format!("/session/{}", self.session), &json!({})).await;
        self.browser = None;
        self.driver.kill().await.expect("ChromeDriver is killed");
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // After a failed test, the browser still runs. Killing ChromeDriver does not end the browser.
        if let Some(browser) = self.browser {
            let _ = kill_process(browser, Signal::KILL);
        }
    }
}
