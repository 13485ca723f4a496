//! Runs the command-line tool `podpool` against real servers, name servers and PgBouncer: broken set-ups, whose cause
//! and remedy it must name, and good ones.

use std::{
    path::Path,
    process::{Output, Stdio},
    time::{Duration, Instant},
};

use podpool::testkit::Cluster;
use serde_json::Value;
use tokio::process::Command;

#[allow(dead_code, reason = "other test binaries use the rest")]
#[path = "../tls/authority.rs"]
mod authority;
#[allow(dead_code, reason = "other test binaries use the rest")]
#[path = "../pgbouncer/bouncer.rs"]
mod bouncer;
mod commands;
#[path = "../common/mod.rs"]
mod common;
mod names;
mod runbook;
mod servers;
mod tls;

/// Time limit for one run of the tool, which normally takes less than a second.
const LIMIT: Duration = Duration::from_secs(30);

/// The password of every cluster of these tests, with characters that a URL must encode. It is never printed.
const PASSWORD: &str = "s3cret:w/rd%";

/// One run of the tool.
struct Run {
    status: i32,
    stdout: String,
    stderr: String,
    took: Duration,
}

/// Runs the tool with `DATABASE_URL` and these arguments.
async fn podpool(url: &str, arguments: &[&str]) -> Run {
    let mut command = Command::new(env!("CARGO_BIN_EXE_podpool"));
    command.args(arguments);
    run(command, url).await
}

/// Runs a command with `DATABASE_URL`, and checks that it never prints the password.
async fn run(mut command: Command, url: &str) -> Run {
    for variable in ["PGHOST", "PGPASSWORD", "PGSSLMODE", "PGUSER"] {
        command.env_remove(variable);
    }
    command.env("DATABASE_URL", url).env("HOME", "/nonexistent").stdin(Stdio::null()).kill_on_drop(true);
    let began = Instant::now();
    let output = tokio::time::timeout(LIMIT, command.output()).await.expect("the tool ends in time");
    let Output { status, stdout, stderr } = output.expect("the tool starts");
    let text = |bytes| String::from_utf8(bytes).expect("the output is text");
    let (stdout, stderr) = (text(stdout), text(stderr));
    for output in [&stdout, &stderr] {
        assert!(!output.contains("s3cret"), "the password is printed: {output}");
    }
    Run { status: status.code().expect("the tool exits"), stdout, stderr, took: began.elapsed() }
}

/// Starts building a cluster whose password is [`PASSWORD`].
fn cluster(pods: usize) -> podpool::testkit::ClusterBuilder {
    Cluster::builder().pods(pods).password(PASSWORD)
}

/// Checks a broken set-up: the tool must exit with `status`, and name the cause and the remedy in the step, in its text
/// and in its JSON.
async fn assert_explains(url: &str, status: i32, step: &str, cause: &str, remedy: &str) -> Run {
    let run = podpool(url, &["check"]).await;
    println!("{}\n[exit status {}, {:.1?}]\n", run.stdout, run.status, run.took);
    assert_eq!(run.status, status, "{cause}: {}", run.stderr);
    let lines: Vec<_> = run.stdout.lines().collect();
    let at = lines.iter().position(|line| line.contains(cause));
    let at = at.unwrap_or_else(|| panic!("`{cause}` is not printed: {}", run.stdout));
    let words: Vec<_> = lines[at].split_whitespace().take(2).collect();
    assert_eq!(words, [if status == 1 { "error" } else { "warning" }, step], "{}", lines[at]);
    let printed = lines[at..].iter().find_map(|line| line.trim().strip_prefix("remedy: "));
    let printed = printed.unwrap_or_else(|| panic!("no remedy for `{cause}`: {}", run.stdout));
    assert!(printed.contains(remedy), "`{remedy}` is not part of: {printed}");

    let json = podpool(url, &["check", "--json"]).await;
    assert_eq!(json.status, status, "{}", json.stdout);
    let value: Value = serde_json::from_str(&json.stdout).expect("the output is JSON");
    assert_eq!(value["result"], if status == 1 { "error" } else { "warning" });
    let findings = value["findings"].as_array().expect("there are findings");
    let found = findings.iter().any(|finding| {
        let has = |key: &str, text: &str| finding[key].as_str().is_some_and(|value| value.contains(text));
        has("step", step) && has("cause", cause) && has("remedy", remedy)
    });
    assert!(found, "{cause}, {remedy}: {}", json.stdout);
    run
}

/// Checks a good set-up, in which the tool finds nothing. It must take less than a second in at least one of five runs,
/// because other tests use the same processors.
async fn assert_good(url: &str) {
    let mut times = Vec::new();
    for _ in 0..5 {
        let run = podpool(url, &["check"]).await;
        println!("{}\n[exit status {}, {:.1?}]\n", run.stdout, run.status, run.took);
        assert_eq!(run.status, 0, "{}{}", run.stdout, run.stderr);
        assert!(run.stdout.contains("no problem found"), "{}", run.stdout);
        times.push(run.took);
        if run.took < Duration::from_secs(1) {
            return;
        }
    }
    panic!("each check took a second or more: {times:.1?}");
}

/// Writes a file for the tool to read.
fn write(path: &Path, text: &str) -> String {
    std::fs::write(path, text).expect("the file is written");
    path.display().to_string()
}
