//! Runs every command of docs/runbook.md.

use std::path::Path;

use tokio::process::Command;

use crate::{cluster, run};

/// Returns the commands in the blocks of shell code of the page.
fn commands() -> Vec<String> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/runbook.md");
    let text = std::fs::read_to_string(path).expect("the page is readable");
    let mut is_shell = false;
    let mut commands = Vec::new();
    for line in text.lines() {
        match line {
            "```sh" => is_shell = true,
            "```" => is_shell = false,
            line if is_shell && line.starts_with("podpool ") => commands.push(line.to_owned()),
            _ => {}
        }
    }
    commands
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_commands_of_the_runbook_work() {
    let service = "postgresql-svc.k8s-training.svc.cluster.local";
    let cluster = cluster(3).service(service).start().await.expect("the cluster starts");
    let server = cluster.dns().address();
    let folder = Path::new(env!("CARGO_BIN_EXE_podpool")).parent().expect("the program is in a folder");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap_or_default());
    let commands = commands();
    assert!(commands.len() >= 6, "{commands:?}");
    for command in commands {
        // The page's `resolve` uses the name servers of the Pod, and its `watch` runs until it is interrupted.
        let line = match &command {
            resolve if resolve.starts_with("podpool resolve ") => format!("{command} --server {server}"),
            watch if watch.starts_with("podpool watch") => format!("{command} --count 1"),
            _ => command.clone(),
        };
        let mut shell = Command::new("sh");
        shell.args(["-c", &line]).env("PATH", &path);
        let run = run(shell, &cluster.url()).await;
        println!("$ {line}\n{}{}", run.stdout, run.stderr);
        assert_eq!(run.status, 0, "{command}: {}{}", run.stdout, run.stderr);
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}
