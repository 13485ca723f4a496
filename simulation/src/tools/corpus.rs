//! The plans that once failed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{adversary::CorpusEntry, run::run};

/// Runs every plan of the corpus, and prints the violations.
#[must_use]
pub fn corpus() -> bool {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let entries = fs::read_dir(&folder).map(|entries| entries.flatten().map(|entry| entry.path()));
    let mut paths: Vec<PathBuf> = entries.into_iter().flatten().collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "plan"));
    paths.sort();
    let failed = paths.iter().filter(|path| !passes(path)).count();
    println!("{} plans, {failed} failed", paths.len());
    failed == 0
}

fn passes(path: &Path) -> bool {
    let text = fs::read_to_string(path).map_err(|error| error.to_string());
    let entry = text.and_then(|text| text.parse::<CorpusEntry>().map_err(|error| error.to_string()));
    match entry {
        Ok(entry) => {
            let violations = run(&entry.plan).violations;
            violations.iter().for_each(|violation| println!("{}: {violation}", path.display()));
            violations.is_empty()
        }
        Err(error) => {
            println!("{}: {error}", path.display());
            false
        }
    }
}
