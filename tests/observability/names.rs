//! Tests that the name of a pool is unique, and that it is on log lines, metrics, the status and errors.

use std::collections::BTreeSet;

use metrics_util::debugging::DebuggingRecorder;
use podpool::{Config, Kind, MAX_POOL_NAME, Pool, metrics::POOL_LABELS};

fn config(parameters: &str) -> Config {
    let url = format!("postgres://app:secret@127.0.0.1:1/shop?acquire_timeout=10ms{parameters}");
    url.parse().expect("the URL parses")
}

fn build(parameters: &str) -> Pool {
    Pool::builder(config(parameters)).build().expect("the pool is built")
}

/// Returns the names of all pools for which `export` exports metrics.
fn exported(export: impl FnOnce()) -> BTreeSet<String> {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    metrics::with_local_recorder(&recorder, export);
    let series = snapshotter.snapshot().into_vec().into_iter();
    let labels = series.flat_map(|(key, ..)| key.key().labels().cloned().collect::<Vec<_>>());
    labels.filter(|label| label.key() == POOL_LABELS[0]).map(|label| label.value().to_owned()).collect()
}

#[tokio::test]
async fn each_pool_has_its_own_name_on_metrics_status_and_errors() {
    let (first, second) = (build(""), build("&pool_size=2"));
    let set = Pool::builder(config("")).name("tenant 7").build().expect("the pool is built");
    for (pool, name) in [(&first, "app@127.0.0.1:1/shop"), (&second, "app@127.0.0.1:1/shop#2"), (&set, "tenant 7")] {
        assert_eq!((pool.name(), &*pool.status().name), (name, name));
        assert_eq!(exported(|| pool.export_metrics()), BTreeSet::from([name.to_owned()]));
        let error = pool.get().await.expect_err("no server listens on the port");
        assert_eq!(error.pool(), Some(name));
        let text = format!("{pool:?} {error:?}");
        assert!(text.contains(name) && !text.contains("secret"), "{text}");
    }
    // A closed pool keeps its name until its last handle is dropped.
    first.close().await;
    assert_eq!(build("").name(), "app@127.0.0.1:1/shop#3");
    drop(first);
    assert_eq!(build("").name(), "app@127.0.0.1:1/shop");
}

#[tokio::test]
async fn a_bad_name_is_refused() {
    for (name, received) in [("", "``"), ("a\tb", "`a\\tb`"), (&*"x".repeat(MAX_POOL_NAME + 1), "(129 bytes)`")] {
        let error = Pool::builder(config("")).name(name).build().expect_err("the name is bad");
        let text = error.to_string();
        assert_eq!(error.kind(), Kind::Config);
        assert!(text.starts_with("parameter `name`: expected a text of 1 to 128 bytes"), "{text}");
        assert!(text.ends_with(received), "{text}");
    }
}
