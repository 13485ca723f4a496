//! Copies the data directory of a running primary without `pg_basebackup`, which some packages lack.
//!
//! The steps are those of "Making a Base Backup Using the Low-Level API" in the PostgreSQL manual. The copy contains no
//! WAL: the standby streams it from the primary, which keeps it because of `wal_keep_size`.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
};

use super::{Account, Error, account, server::Server};

/// Directories whose content is not copied, because a server creates it again (the manual lists them).
const WITHOUT_CONTENT: [&str; 8] =
    ["pg_dynshmem", "pg_notify", "pg_replslot", "pg_serial", "pg_snapshots", "pg_stat_tmp", "pg_subtrans", "pg_wal"];

/// Files that are not copied, because they belong to the running server.
const NOT_COPIED: [&str; 3] = ["pg_internal.init", "postmaster.opts", "postmaster.pid"];

/// The file with the position at which the backup began. The manual requires that it is the last one copied.
const CONTROL_FILE: &str = "global/pg_control";

/// Copies the data of the primary, which must be running, to `data`, which must not exist.
pub(super) async fn copy(primary: &Server, data: PathBuf, account: Option<Account>, major: u32) -> Result<(), Error> {
    let failed = |source| Error::sql(format!("make a base backup of {}", primary.name()), source);
    // PostgreSQL 15 has renamed the functions.
    let (start, stop) = if major < 15 {
        ("SELECT pg_start_backup('podpool', true, false)", "SELECT labelfile FROM pg_stop_backup(false, false)")
    } else {
        ("SELECT pg_backup_start('podpool', true)", "SELECT labelfile FROM pg_backup_stop(false)")
    };
    // The backup ends with the session that has started it.
    let client = primary.connect("postgres").await?;
    client.batch_execute(start).await.map_err(failed)?;
    let (source, target) = (primary.data(), data.clone());
    let copied = tokio::task::spawn_blocking(move || {
        copy_directory(&source, &target, Path::new(""), account)?;
        copy_file(&source.join(CONTROL_FILE), &target.join(CONTROL_FILE), account)
    });
    let failed_to_copy = |source| Error::io(format!("copy the data of {}", primary.name()), source);
    copied.await.map_err(|source| failed_to_copy(io::Error::other(source)))?.map_err(failed_to_copy)?;
    let label: String = client.query_one(stop, &[]).await.map_err(failed)?.get(0);
    account::write_file(&data.join("backup_label"), &label, account)
}

/// Copies a directory except the control file. `below` is its path below the data directory.
fn copy_directory(source: &Path, target: &Path, below: &Path, account: Option<Account>) -> io::Result<()> {
    fs::create_dir(target.join(below))?;
    account::set_owner(&target.join(below), account, 0o700)?;
    if WITHOUT_CONTENT.iter().any(|name| below == Path::new(name)) {
        return Ok(());
    }
    for entry in fs::read_dir(source.join(below))? {
        let entry = entry?;
        let (name, below) = (entry.file_name(), below.join(entry.file_name()));
        if name.to_str().is_some_and(|name| NOT_COPIED.contains(&name) || name.starts_with("pgsql_tmp"))
            || below == Path::new(CONTROL_FILE)
        {
            continue;
        }
        let copied = match entry.file_type() {
            Ok(kind) if kind.is_dir() => copy_directory(source, target, &below, account),
            Ok(_) => copy_file(&source.join(&below), &target.join(&below), account),
            Err(error) => Err(error),
        };
        match copied {
            // The server removes files while it runs. The replay of the WAL does not require them.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            copied => copied?,
        }
    }
    Ok(())
}

fn copy_file(source: &Path, target: &Path, account: Option<Account>) -> io::Result<()> {
    fs::copy(source, target)?;
    account::set_owner(target, account, 0o600)
}
