//! Runs commands and checks their exit status.

use std::process::{Output, Stdio};

use tokio::process::Command;

/// Runs a command. Returns its standard output, or an error with its status and output.
pub(crate) async fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let Output { status, stdout, stderr } = output.map_err(|error| format!("{:?}: {error}", command.as_std()))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match status.success() {
        true => Ok(text(&stdout)),
        false => Err(format!("{:?}: {status}, {} {}", command.as_std(), text(&stdout), text(&stderr))),
    }
}

/// Runs a shell script that stops at the first error. Panics if it fails.
pub(crate) async fn script(text: &str) -> String {
    run(Command::new("sh").args(["-euc", text])).await.unwrap_or_else(|error| panic!("{error}"))
}
