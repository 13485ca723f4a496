//! Checks the pages that rustdoc has rendered into the target directory.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{files, files_in};

/// The command that renders the pages.
const COMMAND: &str = "cargo doc --no-deps --all-features";

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|data| data.modified()).ok()
}

/// Returns the rendered pages, unless they are missing or older than their sources.
fn pages() -> Option<BTreeMap<PathBuf, String>> {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("the folder is in the target directory");
    let doc = target.join("doc").canonicalize().ok()?;
    let rendered = modified(&doc.join("podpool/guide/index.html"))?;
    let sources = ["src", "docs"].into_iter().flat_map(|folder| [files(folder, "rs"), files(folder, "md")]).flatten();
    if sources.filter_map(|path| modified(&path)).any(|source| source > rendered) {
        return None;
    }
    let read = |path: PathBuf| fs::read_to_string(&path).map(|text| (path, text)).expect("the page is readable");
    Some(files_in(&doc.join("podpool"), "html").into_iter().map(read).collect())
}

/// Returns the part of a page that this crate documents: the last section contains the documentation of traits of other
/// crates, with links that only those crates can resolve.
fn own(text: &str) -> &str {
    text.split("id=\"blanket-implementations\"").next().unwrap_or_default()
}

/// Returns the fault of a link, if there is one.
fn fault(page: &Path, target: &str, pages: &BTreeMap<PathBuf, String>) -> Option<String> {
    if target.starts_with("https://") || target.starts_with("http://") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let folder = page.parent().expect("the page is in a folder");
    let path = if path.is_empty() { page.to_owned() } else { folder.join(path) };
    let Ok(path) = path.canonicalize() else { return Some("there is no such file".to_owned()) };
    // Anchors of source code are line numbers, which a script resolves.
    let text = pages.get(&path).filter(|_| !anchor.is_empty())?;
    (!text.contains(&format!("id=\"{anchor}\""))).then(|| "the page has no such anchor".to_owned())
}

#[test]
fn rendered_pages_have_no_unresolved_link() {
    let Some(pages) = pages() else {
        // Set where the pages are always rendered before the tests.
        assert!(
            std::env::var_os("PODPOOL_RENDERED").is_none(),
            "the rendered pages are missing or out of date; run `{COMMAND}`"
        );
        println!("skipped: the rendered pages are missing or out of date; run `{COMMAND}`");
        return;
    };
    let mut faults = Vec::new();
    let mut links = 0;
    for (page, text) in &pages {
        // rustdoc leaves a link that it cannot resolve as text. Other pages have links to items of other crates, which
        // it cannot resolve without the documentation of those crates.
        let has_markdown = page.iter().any(|part| part == "guide" || part == "config");
        let is_unresolved = has_markdown && own(text).contains("[<code>");
        faults.extend(is_unresolved.then(|| format!("{}: `[` before code", page.display())));
        for target in own(text).split(" href=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            links += 1;
            faults.extend(fault(page, target, &pages).map(|fault| format!("{}: {target}: {fault}", page.display())));
        }
    }
    println!("checked {links} links of {} pages", pages.len());
    assert!(pages.keys().any(|page| page.ends_with("guide/tls/index.html")), "the guide is rendered");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
