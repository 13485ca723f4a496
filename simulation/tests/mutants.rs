//! The patches in `mutants/` fit the sources, and name properties that exist.

use std::{
    fs,
    path::{Path, PathBuf},
};

use podpool_simulation::properties::Property;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("mutants")
}

/// Returns the names and texts of the patches.
fn patches() -> Vec<(String, String)> {
    let files = fs::read_dir(folder()).expect("the patches").map(|file| file.expect("a file").path());
    let patches = files.filter(|path| path.extension().is_some_and(|extension| extension == "patch"));
    let read = |path: PathBuf| (path.display().to_string(), fs::read_to_string(&path).expect("a patch"));
    patches.map(read).collect()
}

/// Returns the file and the lines before the change of each part of a patch.
fn parts(patch: &str) -> Vec<(&str, Vec<&str>)> {
    let (mut file, mut parts): (_, Vec<(&str, Vec<&str>)>) = ("", Vec::new());
    for line in patch.lines().skip_while(|line| !line.starts_with("--- ")) {
        if let Some(path) = line.strip_prefix("--- a/") {
            file = path;
        } else if line.starts_with("@@ ") {
            parts.push((file, Vec::new()));
        } else if let (Some(before), Some((_, lines))) = (line.strip_prefix([' ', '-']), parts.last_mut()) {
            lines.push(before);
        }
    }
    parts
}

#[test]
fn every_patch_fits_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let patches = patches();
    assert!(patches.len() > 20, "{} patches", patches.len());
    for (name, patch) in patches {
        let parts = parts(&patch);
        assert!(!parts.is_empty(), "{name} has no changes");
        for (file, lines) in parts {
            let source = fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{name}: {file}: {error}"));
            let source: Vec<_> = source.lines().collect();
            let fits = source.windows(lines.len()).filter(|window| *window == lines.as_slice()).count();
            assert_eq!(fits, 1, "{name}: these lines must be in {file} once: {lines:#?}");
        }
    }
}

#[test]
fn every_patch_names_its_defect_and_properties() {
    for (name, patch) in patches().into_iter().filter(|(name, _)| !name.ends_with("selection.patch")) {
        let field = |field: &str| patch.lines().find_map(|line| line.strip_prefix(field).map(str::trim));
        assert!(field("Defect: ").is_some_and(|defect| !defect.is_empty()), "{name} has no defect");
        let properties = field("Property: ").unwrap_or_default();
        let unknown = properties.split(", ").find(|property| Property::named(property).is_none());
        assert_eq!(unknown, None, "{name}");
        let stem = Path::new(&name).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        assert!(patch.contains(&format!("mutant(\"{stem}\")")), "{name} selects another mutant");
    }
}
