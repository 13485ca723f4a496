//! Runs PostgreSQL's programs as child processes: as an unprivileged user, with English messages, and without the
//! caller's `PG*` environment variables.

use std::{
    env,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
};

use super::{Account, Error};

/// Builds a command that runs in its own process group, so that Ctrl-C in a terminal signals only the test, not the
/// servers.
pub(super) fn program(path: &Path, account: Option<Account>) -> Command {
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).env("LC_ALL", "C").current_dir("/");
    command.process_group(0);
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("PG")) {
            command.env_remove(name);
        }
    }
    if let Some(Account { uid, gid }) = account {
        command.uid(uid).gid(gid);
    }
    command
}

/// Runs a program until it exits and returns its standard output. Dropping the future kills the program.
pub(super) async fn output(command: &mut Command) -> Result<String, Error> {
    let command = std::mem::replace(command, Command::new(""));
    let program = Path::new(command.get_program()).to_path_buf();
    let output = tokio::process::Command::from(command).kill_on_drop(true).output().await;
    let output = output.map_err(|source| Error::io(format!("run {}", program.display()), source))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        return Ok(text(&output.stdout));
    }
    let program = program.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    Err(Error::Program { program, status: output.status, output: text(&output.stdout) + &text(&output.stderr) })
}
