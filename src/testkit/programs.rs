//! Finds PostgreSQL's server programs on this machine.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use super::{Account, Error, command};

/// The programs that a cluster requires.
const REQUIRED: [&str; 2] = ["initdb", "postgres"];

/// The program that copies a primary. Some packages, which contain only a server, lack it.
pub(super) const BASE_BACKUP: &str = "pg_basebackup";

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
    /// Finds the programs: in `directory` or `PG_BIN` if set, otherwise on `PATH`, then in the directories of packages,
    /// newest version first. Directories that contain `pg_basebackup` too are preferred.
    pub(super) async fn find(directory: Option<&Path>, account: Option<Account>) -> Result<Self, Error> {
        let searched = directory.map_or_else(candidates, |directory| vec![directory.to_path_buf()]);
        let Some(directory) = choose(&searched) else {
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

    /// Returns an error unless this program exists.
    pub(super) fn require(&self, name: &str) -> Result<(), Error> {
        if self.has(name) { Ok(()) } else { Err(Error::ProgramsMissing { searched: vec![self.directory.clone()] }) }
    }

    pub(super) fn major(&self) -> u32 {
        self.major
    }
}

/// Returns the first directory that contains the programs, if possible one that contains `pg_basebackup` too.
fn choose(directories: &[PathBuf]) -> Option<&PathBuf> {
    let has_required = |directory: &&PathBuf| REQUIRED.iter().all(|name| directory.join(name).is_file());
    let mut usable = directories.iter().filter(has_required);
    let first = usable.clone().next();
    usable.find(|directory| directory.join(BASE_BACKUP).is_file()).or(first)
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
    fn prefers_a_directory_with_pg_basebackup_but_does_not_require_one() {
        let parent = tempfile::tempdir().unwrap();
        let directories = ["client", "server", "all"].map(|name| parent.path().join(name));
        let programs: [&[&str]; 3] =
            [&["pg_basebackup"], &["initdb", "postgres"], &["initdb", "postgres", BASE_BACKUP]];
        for (directory, programs) in directories.iter().zip(programs) {
            fs::create_dir(directory).unwrap();
            for program in programs {
                fs::write(directory.join(program), "").unwrap();
            }
        }
        assert_eq!(choose(&directories[..1]), None);
        assert_eq!(choose(&directories[..2]), Some(&directories[1]));
        assert_eq!(choose(&directories), Some(&directories[2]));
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
