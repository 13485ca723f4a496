//! The Markdown files that the library includes in its documentation, and the definitions that precede them.

use std::{collections::BTreeMap, fs, path::PathBuf};

use crate::files;

/// A Markdown file that a Rust file includes as documentation.
pub(crate) struct Included {
    pub(crate) rust: PathBuf,
    /// The targets that the Rust file defines before the page, by label. In rustdoc, they take precedence over those of
    /// the page.
    pub(crate) definitions: BTreeMap<String, String>,
}

/// Returns the included Markdown files.
pub(crate) fn included() -> BTreeMap<PathBuf, Included> {
    let mut all = BTreeMap::new();
    for rust in files("src", "rs") {
        let text = fs::read_to_string(&rust).expect("the file is readable");
        let mut definitions = BTreeMap::new();
        for line in text.lines().map(str::trim_start) {
            let doc = line.strip_prefix("//!").or_else(|| line.strip_prefix("///")).map(str::trim);
            let page = line.split_once("doc = include_str!(\"").and_then(|(_, rest)| rest.split_once('"'));
            if let Some((page, _)) = page {
                let path = rust.parent().expect("the file is in a folder").join(page);
                let path = path.canonicalize().expect("the included file exists");
                let included = Included { rust: rust.clone(), definitions: std::mem::take(&mut definitions) };
                assert!(all.insert(path, included).is_none(), "{page} is included twice");
            } else if let Some(doc) = doc {
                let definition = doc.strip_prefix('[').and_then(|doc| doc.split_once("]: "));
                definitions.extend(definition.map(|(label, target)| (label.to_owned(), target.to_owned())));
            } else if !line.starts_with("#[") {
                definitions.clear();
            }
        }
    }
    all
}
