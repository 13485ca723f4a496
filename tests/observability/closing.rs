//! Tests that a pool exports its final counters when it closes.

use metrics_util::debugging::DebuggingRecorder;
use podpool::{Config, Pool, Target, testkit::Cluster};

use crate::{LIMIT, common::until, totals::Totals};

// The recorder is thread-local, so the test uses the single-threaded runtime.
#[tokio::test]
async fn closing_a_pool_exports_its_final_counters() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let config =
        format!("{}&pool_size=2&close_timeout=500ms", cluster.url()).parse::<Config>().expect("the URL parses");
    // The connection in use is either returned while the pool closes, or forcibly closed at the timeout.
    for is_returned in [true, false] {
        let recorder = DebuggingRecorder::new();
        let mut totals = Totals::new(recorder.snapshotter());
        let _recorder = metrics::set_default_local_recorder(&recorder);
        let pool = Pool::builder(config.clone()).build().expect("the pool is built");
        pool.wait_ready(Target::Any, LIMIT).await.expect("the Pod becomes ready");
        let client = pool.get().await.expect("a connection is available");
        // Most of these checkouts happen after the last periodic export.
        for _ in 0..100 {
            drop(pool.get().await.expect("a connection is available"));
        }
        let closing = tokio::spawn({
            let pool = pool.clone();
            async move { pool.close().await }
        });
        until(LIMIT, "the pool begins to close", || pool.status().endpoints.is_empty()).await;
        assert_eq!(totals.of("podpool_endpoint_up"), 0.0, "the pool did not export its metrics when it began to close");
        let client = Some(client).filter(|_| !is_returned);
        let closed_forcibly = closing.await.expect("the pool closes");
        assert_eq!(closed_forcibly, usize::from(!is_returned));
        // One checkout by `wait_ready`, one that is held, and 100 others.
        assert_eq!(totals.of("podpool_checkouts_total"), 102.0);
        assert_eq!(totals.of("podpool_endpoint_checkouts_total"), 102.0);
        let (opened, closed) =
            (totals.of("podpool_connections_opened_total"), totals.of("podpool_connections_closed_total"));
        println!("{opened} connections opened, {closed} closed, {closed_forcibly} forcibly closed");
        assert!(opened >= 1.0);
        assert_eq!(opened - closed, closed_forcibly as f64, "every connection is closed except those in use");
        let events = totals.of("podpool_events_total");
        drop((client, pool));
        let all_closed = || totals.of("podpool_connections_closed_total") == opened;
        until(LIMIT, "the connection in use is counted as closed", all_closed).await;
        assert_eq!(totals.of("podpool_events_total"), events, "events occurred after the pool was closed");
    }
    cluster.shutdown().await.expect("the cluster stops");
}
