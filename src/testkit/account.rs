//! The operating system account that runs the servers, and the files that it owns.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use rustix::process::geteuid;

use super::Error;

/// Names of accounts that may run the servers, in order of preference.
const NAMES: [&str; 3] = ["postgres", "_postgres", "nobody"];

/// The unprivileged account that runs the servers if this process runs as root. PostgreSQL refuses to run as root.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// Finds the account. Returns `None` if this process does not run as root.
    pub(super) fn find() -> Result<Option<Self>, Error> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd").map_err(|source| Error::io("read /etc/passwd", source))?;
        match NAMES.iter().find_map(|name| entry(&users, name)) {
            Some(account) => Ok(Some(account)),
            None => {
                let source =
                    io::Error::new(io::ErrorKind::NotFound, "/etc/passwd has no user postgres, _postgres or nobody");
                Err(Error::io("find an unprivileged user to run PostgreSQL as", source))
            }
        }
    }
}

/// Creates a directory that only the servers' account can enter.
pub(super) fn make_directory(path: &Path, account: Option<Account>) -> Result<(), Error> {
    let failed = |source| Error::io(format!("create the directory {}", path.display()), source);
    fs::create_dir(path).map_err(failed)?;
    set_owner(path, account, 0o700).map_err(failed)
}

/// Writes a file atomically. Only the servers' account can read it.
pub(super) fn write_file(path: &Path, text: &str, account: Option<Account>) -> Result<(), Error> {
    let failed = |source| Error::io(format!("write {}", path.display()), source);
    let new = path.with_extension("new");
    fs::write(&new, "").map_err(failed)?;
    set_owner(&new, account, 0o600).map_err(failed)?;
    fs::write(&new, text).map_err(failed)?;
    fs::rename(&new, path).map_err(failed)
}

/// Sets the mode of a file and makes the servers' account its owner.
pub(super) fn set_owner(path: &Path, account: Option<Account>, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    match account {
        Some(Account { uid, gid }) => chown(path, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

/// Returns the user id and group id of a user from the content of `/etc/passwd`.
fn entry(users: &str, name: &str) -> Option<Account> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        // Ids can be negative, such as -2 on macOS.
        let mut id = || -> Option<u32> { fields.next()?.parse::<i64>().ok().map(|id| id as u32) };
        id(); // skips the password field
        Some(Account { uid: id()?, gid: id()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_user_and_group_ids_from_etc_passwd() {
        let users = "root:x:0:0:root:/root:/bin/sh\npostgres:x:101:104:x:/:/bin/sh\nnobody:*:-2:-2::/:/usr/bin/false\n";
        assert_eq!(entry(users, "postgres"), Some(Account { uid: 101, gid: 104 }));
        assert_eq!(entry(users, "nobody"), Some(Account { uid: u32::MAX - 1, gid: u32::MAX - 1 }));
        assert_eq!(entry(users, "_postgres"), None);
    }
}
