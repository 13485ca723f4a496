//! Programs from the system's packages that some tests start.

use std::path::PathBuf;

/// Where packages put servers' programs, beside `PATH`, which has these for root alone.
const DIRECTORIES: [&str; 2] = ["/usr/sbin", "/usr/local/sbin"];

/// The programs of these names; `None`, and a line that says so, where one is missing. Where everything has to be
/// tested, that is a failure.
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
