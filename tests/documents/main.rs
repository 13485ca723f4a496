//! Tests that every link of the Markdown files leads somewhere, on a repository page and in rustdoc, and that no block
//! of code shows lines that only rustdoc hides.

use std::{
    collections::BTreeMap,
    fs,
    path::{Component, Path, PathBuf},
};

mod markdown;
mod rendered;
mod source;

use markdown::{Link, Page};
use source::{Included, included};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).canonicalize().expect("the folder exists")
}

/// Returns the files with this extension in a folder and its subfolders, except in hidden folders and those of builds.
fn files_in(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder is readable") {
        let path = entry.expect("the entry is readable").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" && name != "node_modules" {
            found.extend(files_in(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    files_in(&root().join(folder), extension)
}

fn pages() -> BTreeMap<PathBuf, Page> {
    let parse = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("the page is readable");
        (path, Page::parse(&text))
    };
    files_in(&root(), "md").into_iter().map(parse).collect()
}

fn is_external(target: &str) -> bool {
    ["http://", "https://", "mailto:"].iter().any(|scheme| target.starts_with(scheme))
}

/// Splits a target into path and anchor.
fn parts(target: &str) -> (&str, &str) {
    target.split_once('#').unwrap_or((target, ""))
}

/// Returns the path of a target, without `..` in it.
fn resolve(page: &Path, target: &str) -> PathBuf {
    let mut path = page.parent().expect("the page is in a folder").to_owned();
    for part in Path::new(target).components() {
        match part {
            Component::ParentDir => _ = path.pop(),
            part => path.push(part),
        }
    }
    path
}

/// Returns the fault of a target on a repository page, if there is one.
fn fault(page: &Path, target: &str, pages: &BTreeMap<PathBuf, Page>) -> Option<&'static str> {
    let (path, anchor) = parts(target);
    if is_external(target) {
        return None;
    }
    if path.contains("::") || ["crate", "Self", "self", "super"].contains(&path) {
        return Some("a repository page cannot resolve a path of Rust");
    }
    let file = if path.is_empty() { page.to_owned() } else { resolve(page, path) };
    if !file.starts_with(root()) {
        return Some("the target is outside of the repository");
    }
    if !file.exists() {
        return Some("there is no such file");
    }
    let has_anchor = || pages.get(&file).is_some_and(|page| page.anchors.contains(anchor));
    (!anchor.is_empty() && !has_anchor()).then_some("the file has no such heading")
}

/// Returns the faults of the links of a page.
fn link_faults(path: &Path, page: &Page, pages: &BTreeMap<PathBuf, Page>, is_included: bool) -> Vec<String> {
    let mut faults = Vec::new();
    for (line, link) in &page.links {
        let (target, fault) = match link {
            Link::Definition { target, .. } => (target, fault(path, target, pages)),
            Link::Inline { target } if is_included && !is_external(target) && !parts(target).0.is_empty() => {
                (target, Some("rustdoc needs another target: use a reference, and define it on the page and before it"))
            }
            Link::Inline { target } => (target, fault(path, target, pages)),
            Link::Reference { label, .. } if page.definition(label).is_some() => continue,
            // Text in brackets is no link, unless it is code, which rustdoc would resolve.
            Link::Reference { label, shortcut: true } if !label.starts_with('`') => continue,
            Link::Reference { label, .. } => (label, Some("the label is not defined on this page")),
        };
        faults.extend(fault.map(|fault| format!("{}:{line}: {target}: {fault}", path.display())));
    }
    faults
}

/// Returns the differences between the definitions of a page and those that precede it in the Rust file.
fn definition_faults(path: &Path, page: &Page, included: &Included) -> Vec<String> {
    let mut faults = Vec::new();
    let internal: BTreeMap<_, _> = page.definitions().collect();
    for label in included.definitions.keys().filter(|label| !internal.contains_key(&***label)) {
        faults.push(format!("{}: {label} is not defined in {}", included.rust.display(), path.display()));
    }
    for (label, target) in internal {
        let Some(item) = included.definitions.get(label) else {
            if !is_external(target) {
                faults.push(format!("{}: {label} is not defined for {}", included.rust.display(), path.display()));
            }
            continue;
        };
        let ((item, item_anchor), (file, anchor)) = (parts(item), parts(target));
        let name = item.rsplit("::").next().unwrap_or(item).trim_end_matches("()");
        let file = resolve(path, file);
        let named = file.components().chain([Component::Normal(file.file_stem().unwrap_or_default())]);
        let is_named = named.map(|part| part.as_os_str().to_string_lossy().replace('-', "_")).any(|part| part == name);
        let is_source =
            item.starts_with("../") && item.ends_with(&format!("{}.html", target.trim_start_matches("../src/")));
        let contains = || fs::read_to_string(&file).is_ok_and(|text| text.contains(name));
        if !is_external(target) && !is_named && !is_source && !contains() {
            faults.push(format!("{}: {target}: the file does not contain {name}", path.display()));
        }
        if file.extension().is_some_and(|extension| extension == "md") && item_anchor != anchor {
            faults.push(format!("{}: {label}: expected the anchor {item_anchor}, got {anchor}", path.display()));
        }
    }
    faults
}

/// Returns the faults of the blocks of Rust code.
fn code_faults(path: &Path, page: &Page, is_included: bool) -> Vec<String> {
    let mut faults = Vec::new();
    for block in &page.blocks {
        let first = block.language.split(',').next().unwrap_or_default();
        let is_doctest = is_included && ["", "no_run", "ignore", "should_panic", "compile_fail"].contains(&first);
        if is_doctest {
            faults.push(format!("{}:{}: Rust code without `rust` after the fence", path.display(), block.line));
        }
        for line in block.lines.iter().filter(|_| is_doctest || first == "rust") {
            if line.trim() == "#" || line.trim_start().starts_with("# ") {
                faults.push(format!("{}: a line that only rustdoc hides: {line}", path.display()));
            }
        }
    }
    faults
}

/// Checks each page.
fn check(faults_of: impl Fn(&Path, &Page) -> Vec<String>, pages: &BTreeMap<PathBuf, Page>) {
    let faults: Vec<_> = pages.iter().flat_map(|(path, page)| faults_of(path, page)).collect();
    assert!(pages.len() > 20, "{} pages", pages.len());
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn every_link_has_a_target_on_a_repository_page() {
    let (pages, included) = (pages(), included());
    check(|path, page| link_faults(path, page, &pages, included.contains_key(path)), &pages);
}

#[test]
fn links_of_included_pages_have_the_same_target_in_rustdoc() {
    let (pages, included) = (pages(), included());
    assert!(included.len() > 15, "{} included pages", included.len());
    let faults: Vec<_> =
        included.iter().flat_map(|(path, included)| definition_faults(path, &pages[path], included)).collect();
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn rust_code_shows_no_line_that_only_rustdoc_hides() {
    let (pages, included) = (pages(), included());
    check(|path, page| code_faults(path, page, included.contains_key(path)), &pages);
}

#[test]
fn a_fault_of_each_kind_is_found() {
    let path = root().join("docs/page.md");
    let text = "# A\n[a](crate::Pool) [b](missing.md) [c](#missing) [`d`] [e][f] [g](../../outside.md) [h](tls.md)\n\
                \n[i]: Self::X\n\n```\n# hidden\n```\n";
    let page = Page::parse(text);
    let pages = BTreeMap::new();
    assert_eq!(link_faults(&path, &page, &pages, false).len(), 7);
    assert_eq!(link_faults(&path, &Page::parse("[h](tls.md) [text] [i](https://a.b)\n"), &pages, false).len(), 0);
    assert_eq!(link_faults(&path, &Page::parse("[h](tls.md)\n"), &pages, true).len(), 1);
    assert_eq!((code_faults(&path, &page, true).len(), code_faults(&path, &page, false).len()), (2, 0));
    let definitions = [("i", "crate::Missing"), ("j", "crate::J")];
    let definitions = definitions.map(|(label, target)| (label.to_owned(), target.to_owned())).into();
    let included = Included { rust: PathBuf::from("lib.rs"), definitions };
    let page = Page::parse("[i]: tls.md\n[k]: tls.md\n");
    assert_eq!(definition_faults(&path, &page, &included).len(), 3);
}

/// Returns the first block of TOML of a page in `docs/`.
fn toml_of(page: &str) -> String {
    let text = fs::read_to_string(root().join("docs").join(page)).expect("the page is readable");
    let block = Page::parse(&text).blocks.into_iter().find(|block| block.language == "toml");
    block.expect("the page has a block of TOML").lines.join("\n")
}

#[test]
fn the_documented_profile_is_the_one_of_this_repository() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).expect("the manifest is readable");
    let profile = toml_of("development-laptop.md");
    assert!(profile.starts_with("[profile.dev.package]") && manifest.contains(&profile), "{profile}");
}
