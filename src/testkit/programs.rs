//! Finds PostgreSQL's server programs on this machine.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use super::{Account, Error, command};

/// The programs that a cluster requires.
const REQUIRED: [&str; 3] = ["initdb", "postgres", "pg_basebackup"];

/// Minimum major version: the first one that applies a new `primary_conninfo` without a restart.
const MIN_MAJOR: u32 = 13;

/// Directories where packages install the server programs, as (`parent`, `prefix`, `below`) for
/// `parent/prefixVERSION/below`. `scripts/postgres-programs` searches the same directories.
const PACKAGE_DIRECTORIES: [(&str, &str, &str); 6] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/usr/local", "pgsql", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
];

/// PostgreSQL's server programs, all of one version.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    directory: PathBuf,
    major: u32,
}

impl Programs {
    /// Finds the programs: in `PG_BIN` if it is set, otherwise on `PATH`, then in the directories of packages, newest
    /// version first.
    pub(super) async fn find(account: Option<Account>) -> Result<Self, Error> {
        let searched = candidates();
        let Some(directory) =
            searched.iter().find(|directory| REQUIRED.iter().all(|name| directory.join(name).is_file()))
        else {
            return Err(Error::ProgramsMissing { searched });
        };
        let program = directory.join("postgres");
        let version = command::output(command::program(&program, account).arg("--version")).await?;
        match major(&version) {
            Some(major) if major >= MIN_MAJOR => Ok(Self { directory: directory.clone(), major }),
            _ => Err(Error::Version { program, version: version.trim().to_owned() }),
        }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.path(name).is_file()
    }

    pub(super) fn major(&self) -> u32 {
        self.major
    }
}

fn candidates() -> Vec<PathBuf> {
    if let Some(directory) = env::var_os("PG_BIN").filter(|value| !value.is_empty()) {
        return vec![directory.into()];
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<PathBuf> = Vec::new();
    for directory in env::split_paths(&path) {
        // In a directory on PATH, distributions install symbolic links to only some of PostgreSQL's programs. The
        // directory of a link's target contains all programs.
        let target = fs::canonicalize(directory.join("postgres")).ok().and_then(|p| p.parent().map(Path::to_path_buf));
        directories.extend([Some(directory), target].into_iter().flatten());
    }
    directories.extend(
        PACKAGE_DIRECTORIES.iter().flat_map(|(parent, prefix, below)| versions(Path::new(parent), prefix, below)),
    );
    directories.dedup();
    directories
}

/// Returns the existing directories `parent/prefixVERSION/below`, newest version first.
fn versions(parent: &Path, prefix: &str, below: &str) -> Vec<PathBuf> {
    // Ignore a parent that cannot be read.
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name();
            let version = name.to_str()?.strip_prefix(prefix)?;
            let version = if version.is_empty() { 0 } else { version.split('.').next()?.parse().ok()? };
            Some((version, entry.path().join(below)))
        })
        .collect();
    found.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    found.into_iter().map(|(_, path)| path).collect()
}

/// Parses the major version: 15 from `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, 18 from
/// `postgres (PostgreSQL) 18beta1`.
fn major(version: &str) -> Option<u32> {
    let number = version.split_once("(PostgreSQL) ")?.1;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_major_version_of_releases_and_betas() {
        assert_eq!(major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major("postgres (EnterpriseDB) 9"), None);
    }

    #[test]
    fn lists_the_newest_installed_version_first() {
        let parent = tempfile::tempdir().unwrap();
        for version in ["9.6", "15", "17", "other"] {
            fs::create_dir(parent.path().join(version)).unwrap();
        }
        let found = versions(parent.path(), "", "bin");
        assert_eq!(found, ["17", "15", "9.6"].map(|version| parent.path().join(version).join("bin")));
    }
}
