//! The files of the corpus, and the example in its description, are valid and name properties that exist.

use std::{fs, path::Path};

use podpool_simulation::{adversary::CorpusEntry, properties::Property};

/// Returns the example and the files of the corpus, each with its name.
fn entries() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let readme = fs::read_to_string(folder.join("README.md")).expect("the description of the corpus");
    let example = readme.split("```").nth(1).and_then(|block| block.strip_prefix("text\n")).expect("an example");
    let mut entries = vec![("README.md".to_owned(), example.to_owned())];
    for file in fs::read_dir(&folder).expect("the corpus") {
        let path = file.expect("a file of the corpus").path();
        if path.extension().is_some_and(|extension| extension == "plan") {
            let text = fs::read_to_string(&path).expect("a file of the corpus");
            entries.push((path.display().to_string(), text));
        }
    }
    entries
}

#[test]
fn every_entry_is_valid() {
    for (name, text) in entries() {
        let entry: CorpusEntry = text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(Property::named(&entry.property).is_some(), "{name}: unknown property {}", entry.property);
        assert_eq!(entry.to_string().parse(), Ok(entry), "{name}");
    }
}
