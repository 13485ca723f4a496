//! The benches, the simulator and the pool call the same code: no policy is written twice.

use std::{fs, path::Path};

fn sources(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((path.display().to_string(), fs::read_to_string(&path).expect("a text")));
        }
    }
}

/// A source without the comments, the tests at its end, and the blanks.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = text.lines().map(|line| line.split("//").next().unwrap_or_default());
    lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

#[test]
fn no_policy_is_written_twice() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut library, mut benches) = (Vec::new(), Vec::new());
    sources(&root.join("src"), &mut library);
    sources(&root.join("benches"), &mut benches);
    for policy in ["LeastCost", "LeastInFlight", "PeakEwma", "Random", "RoundRobin"] {
        let ours = format!("impl Policy for {policy} ");
        let at: Vec<_> = library.iter().filter(|(_, text)| code(text).contains(&ours)).map(|(path, _)| path).collect();
        assert_eq!(at.len(), 1, "{policy}: {at:?}");
    }
    // One way from a snapshot to a Pod: who picks goes through `balance::select`, but for the one who opens a connection
    // where none is idle.
    let picks: Vec<_> =
        library.iter().filter(|(_, text)| code(text).contains("hooser.pick(")).map(|(p, _)| p).collect();
    let known = ["src/balance/select.rs", "src/pool/queue.rs"];
    assert!(picks.iter().all(|path| known.iter().any(|known| path.ends_with(known))), "{picks:?}");
    assert_eq!(picks.len(), known.len());
    // And through the quick way first, whoever it is.
    let text_of = |path: &str| code(&library.iter().find(|(at, _)| at.ends_with(path)).expect(path).1);
    for path in ["src/pool/idle.rs", "src/bench/mod.rs", "src/bench/simulated.rs"] {
        assert!(text_of(path).contains("select_at_once("), "{path}");
    }
    // A bench compares nothing but what the library picks: it has no policy and reads no load to choose by.
    for (path, text) in benches {
        for word in ["Policy for ", "Candidates", ".latency(", "min_by_key("] {
            assert!(!code(&text).contains(word), "{path} has `{word}`");
        }
    }
}
