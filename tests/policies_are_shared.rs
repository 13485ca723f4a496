//! Tests that the pool, the benchmarks and the simulation use the same implementation of each policy.

use std::{fs, path::Path};

fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("the folder is readable") {
        let path = entry.expect("the entry is readable").path();
        if path.is_dir() {
            // The library's own tests may call a policy.
            if path.file_name().is_none_or(|name| name != "tests") {
                sources(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.display().to_string(), fs::read_to_string(&path).expect("the file is readable")));
        }
    }
}

/// Returns the code of a source file, without comments and without the tests at its end. Normalizes whitespace.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

#[test]
fn each_policy_is_implemented_once_and_shared() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut library, mut benches) = (Vec::new(), Vec::new());
    sources(&root.join("src"), &mut library);
    sources(&root.join("benches"), &mut benches);
    for policy in ["LeastCost", "LeastInFlight", "PeakEwma", "Random", "RoundRobin"] {
        let ours = format!("impl Policy for {policy} ");
        let at: Vec<_> = library.iter().filter(|(_, text)| code(text).contains(&ours)).map(|(path, _)| path).collect();
        assert_eq!(at.len(), 1, "{policy}: {at:?}");
    }
    // Policies are called in only two places: to select an idle connection, and to pick the Pod for a new connection.
    let picks: Vec<_> =
        library.iter().filter(|(_, text)| code(text).contains("hooser.pick(")).map(|(p, _)| p).collect();
    let known = ["src/balance/select.rs", "src/pool/opener/mod.rs"];
    assert!(picks.iter().all(|path| known.iter().any(|known| path.ends_with(known))), "{picks:?}");
    assert_eq!(picks.len(), known.len());
    // Checkouts, the benchmarks and the simulation select Pods with the same function, `select_fast`.
    let text_of = |path: &str| code(&library.iter().find(|(at, _)| at.ends_with(path)).expect(path).1);
    for path in ["src/pool/checkout/try_idle.rs", "src/bench/mod.rs", "src/bench/simulated.rs"] {
        assert!(text_of(path).contains("select_fast("), "{path}");
    }
    // The benchmarks neither implement a policy nor read a Pod's load.
    for (path, text) in benches {
        for name in ["Policy for ", "Candidates", ".latency(", "min_by_key("] {
            assert!(!code(&text).contains(name), "{path} contains `{name}`");
        }
    }
}
