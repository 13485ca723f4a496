//! A client in a process of its own, so that a test can stop it or limit its CPU time.

use std::{
    env,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::Duration,
};

/// Maximum time between two lines of a client process.
const LIMIT: Duration = Duration::from_secs(600);

/// Environment variable with the argument of a client process.
const ARGUMENT: &str = "PODPOOL_TEST_CLIENT";

/// A running client process: this test program, restricted to one test. Dropping it ends the process.
pub struct ClientProcess {
    child: Child,
    lines: Receiver<String>,
}

impl ClientProcess {
    /// Returns the argument of this process if it is a client process, and `None` if it is the test.
    pub fn argument() -> Option<String> {
        env::var(ARGUMENT).ok()
    }

    /// Starts a client process that runs this test with an argument.
    pub fn start(test: &str, argument: &str) -> Self {
        let mut child = Command::new(env::current_exe().expect("the path of this program is known"))
            .args(["--exact", test, "--nocapture"])
            .env(ARGUMENT, argument)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the process starts");
        let output = BufReader::new(child.stdout.take().expect("the output is piped"));
        let (sender, lines) = channel();
        // Ends with the output.
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    /// Waits for the next line that contains `prefix`, and returns the rest of that line. The test harness may have
    /// printed the name of the test before it, without a line break.
    pub fn next(&mut self, prefix: &str) -> String {
        self.next_within(LIMIT, prefix).unwrap_or_else(|| panic!("no line within {LIMIT:?}; expected {prefix:?}"))
    }

    /// Like [`next`](Self::next), but returns `None` if the process prints no line for this time.
    pub fn next_within(&mut self, limit: Duration, prefix: &str) -> Option<String> {
        loop {
            match self.lines.recv_timeout(limit) {
                Ok(line) => {
                    if let Some((_, rest)) = line.split_once(prefix) {
                        return Some(rest.to_owned());
                    }
                }
                Err(RecvTimeoutError::Timeout) => return None,
                Err(RecvTimeoutError::Disconnected) => panic!("the process has ended; expected {prefix:?}"),
            }
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the process, for example `STOP`.
    pub fn signal(&self, signal: &str) {
        let id = self.id();
        let status = Command::new("kill").args([format!("-{signal}"), id.to_string()]).status().expect("`kill` runs");
        assert!(status.success(), "kill -{signal} {id}: {status}");
    }
}

impl Drop for ClientProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
