//! Locates installed programs that some tests run, such as name servers.

use std::path::PathBuf;

/// Directories where packages install server programs. Often only root's `PATH` contains them.
const DIRECTORIES: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// Returns the paths of the named programs.
///
/// If one of them is not installed, prints its name and returns `None`, so that the caller can skip its test. Panics
/// instead if `CI=true`.
pub fn programs<const N: usize>(names: [&str; N]) -> Option<[PathBuf; N]> {
    let found = names.map(|name| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let directories = std::env::split_paths(&path).chain(DIRECTORIES.map(PathBuf::from));
        directories.map(|directory| directory.join(name)).find(|program| program.is_file())
    });
    if let Some(missing) = found.iter().position(Option::is_none) {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{} is not installed", names[missing]);
        println!("skipped: {} is not installed", names[missing]);
        return None;
    }
    Some(found.map(Option::unwrap_or_default))
}
