//! What the fuzz targets were fed and have found, fed to them once more.

use std::{fs, path::Path};

use podpool::fuzzing;

fn replay(target: &str, feed: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut fed = 0;
    for entry in fs::read_dir(&corpus).unwrap_or_else(|error| panic!("{}: {error}", corpus.display())) {
        let path = entry.expect("an entry").path();
        let bytes = fs::read(&path).expect("a file");
        if std::panic::catch_unwind(|| feed(&bytes)).is_err() {
            panic!("{} of the corpus does not hold", path.display());
        }
        fed += 1;
    }
    assert!(fed > 0, "{} is empty", corpus.display());
    println!("{target}: {fed} inputs");
}

#[test]
fn every_input_of_the_corpora_holds() {
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
