use std::{
    fs, io,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
};

use rustix::process::geteuid;

use super::Error;

/// Who runs the servers, in the order in which they are looked for.
const NAMES: [&str; 3] = ["postgres", "_postgres", "nobody"];

/// The ordinary user that the servers run as when we are root: PostgreSQL refuses to run as root.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Account {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Account {
    /// `None` where we are an ordinary user ourselves.
    pub(super) fn find() -> Result<Option<Self>, Error> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let users = fs::read_to_string("/etc/passwd").map_err(|source| Error::io("read /etc/passwd", source))?;
        match NAMES.iter().find_map(|name| entry(&users, name)) {
            Some(account) => Ok(Some(account)),
            None => {
                let source = io::Error::new(io::ErrorKind::NotFound, "no user postgres, _postgres or nobody");
                Err(Error::io("find an ordinary user to run PostgreSQL as", source))
            }
        }
    }
}

/// Makes a directory that only the servers' user can enter.
pub(super) fn make_directory(path: &Path, account: Option<Account>) -> Result<(), Error> {
    let failed = |source| Error::io(format!("make the directory {}", path.display()), source);
    fs::create_dir(path).map_err(failed)?;
    hand_over(path, account, 0o700).map_err(failed)
}

/// Writes a file, whole or not at all, that only the servers' user can read.
pub(super) fn write_file(path: &Path, text: &str, account: Option<Account>) -> Result<(), Error> {
    let failed = |source| Error::io(format!("write {}", path.display()), source);
    let new = path.with_extension("new");
    fs::write(&new, "").map_err(failed)?;
    hand_over(&new, account, 0o600).map_err(failed)?;
    fs::write(&new, text).map_err(failed)?;
    fs::rename(&new, path).map_err(failed)
}

pub(super) fn hand_over(path: &Path, account: Option<Account>, mode: u32) -> io::Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    match account {
        Some(Account { uid, gid }) => chown(path, Some(uid), Some(gid)),
        None => Ok(()),
    }
}

fn entry(users: &str, name: &str) -> Option<Account> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        // macOS writes `nobody` as -2.
        let mut id = || -> Option<u32> { fields.next()?.parse::<i64>().ok().map(|id| id as u32) };
        id(); // the password's place
        Some(Account { uid: id()?, gid: id()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_ids_of_a_user() {
        let users = "root:x:0:0:root:/root:/bin/sh\npostgres:x:101:104:x:/:/bin/sh\nnobody:*:-2:-2::/:/usr/bin/false\n";
        assert_eq!(entry(users, "postgres"), Some(Account { uid: 101, gid: 104 }));
        assert_eq!(entry(users, "nobody"), Some(Account { uid: u32::MAX - 1, gid: u32::MAX - 1 }));
        assert_eq!(entry(users, "_postgres"), None);
    }
}
