//! Replays every input in fuzz/corpus/ through its fuzz target.

use std::{fs, path::Path};

use podpool::fuzzing;

fn replay(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display())) {
        let path = entry.expect("the entry is readable").path();
        let bytes = fs::read(&path).expect("the input is readable");
        if std::panic::catch_unwind(|| run(&bytes)).is_err() {
            panic!("fuzz target {target} panicked on {}", path.display());
        }
        inputs += 1;
    }
    assert!(inputs > 0, "{} is empty", corpus.display());
    println!("{target}: {inputs} inputs");
}

#[test]
fn fuzz_targets_do_not_panic_on_their_corpora() {
    replay("url", fuzzing::url);
    replay("keyword_value", fuzzing::keyword_value);
    replay("pgpass", fuzzing::pgpass);
    replay("resolv_conf", fuzzing::resolv_conf);
    replay("records", fuzzing::records);
    replay("answer", fuzzing::answer);
    replay("requests", fuzzing::requests);
    replay("replies", fuzzing::replies);
    replay("tap", fuzzing::tap);
    replay("dial", fuzzing::dial);
}
