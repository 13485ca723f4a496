//! The differences between operating systems that other modules depend on: the places of files, and Unix sockets. Real
//! and simulated systems share them.

use std::{ffi::OsString, path::PathBuf};

/// True if the operating system has Unix sockets that tokio supports.
pub(crate) const HAS_UNIX_SOCKETS: bool = cfg!(unix);

/// Maximum length of a Unix socket's path, without its final zero byte (unix(7); 104 bytes with it on BSD and macOS).
pub(crate) const MAX_SOCKET_PATH: usize = if cfg!(any(target_os = "linux", target_os = "android")) { 107 } else { 103 };

/// The default directories of Unix sockets, for which the password file has the host `localhost` (PostgreSQL
/// manual, "The Password File"). In libpq, the directory is fixed when libpq is built: `/tmp` in PostgreSQL's own
/// sources and on macOS and BSD, but `/var/run/postgresql` or `/run/postgresql` in the packages of all Linux
/// distributions. On Linux, `/tmp` does not count, because every user can create a socket there, which would
/// receive the password of `localhost`.
pub(crate) const SOCKET_DIRECTORIES: &[&str] =
    if cfg!(target_os = "linux") { &["/var/run/postgresql", "/run/postgresql"] } else { &["/tmp"] };

/// Returns the path of the file with the names that have fixed addresses.
pub(crate) fn hosts_file() -> PathBuf {
    if cfg!(windows) {
        let system = std::env::var_os("SystemRoot").unwrap_or_else(|| r"C:\Windows".into());
        PathBuf::from(system).join(r"System32\drivers\etc\hosts")
    } else {
        "/etc/hosts".into()
    }
}

/// Returns the path of libpq's default password file: `~/.pgpass`, or `%APPDATA%\postgresql\pgpass.conf` on Windows.
/// `variable` returns the value of an environment variable that is not empty.
pub(crate) fn passfile(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if cfg!(windows) {
        return Some(PathBuf::from(variable("APPDATA")?).join("postgresql").join("pgpass.conf"));
    }
    let home = variable("HOME").map(PathBuf::from).or_else(std::env::home_dir)?;
    (!home.as_os_str().is_empty()).then(|| home.join(".pgpass"))
}

/// Returns the directory in which libpq looks for certificates and keys that are not configured.
#[cfg(feature = "_tls")]
pub(crate) fn certificate_directory() -> Option<PathBuf> {
    if cfg!(windows) {
        std::env::var_os("APPDATA").map(|parent| PathBuf::from(parent).join("postgresql"))
    } else {
        std::env::home_dir().map(|home| home.join(".postgresql"))
    }
}
