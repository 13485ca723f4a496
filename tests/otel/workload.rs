//! A workload that gives every metric a value.

use std::time::{Duration, Instant};

use podpool::{Builder, Config, Pool, Target, testkit::Cluster};

use crate::{LIMIT, common::until};

/// Returns a builder of a pool with one connection per Pod, and these further parameters, each after `&`.
pub(crate) fn builder(cluster: &Cluster, parameters: &str) -> Builder {
    let url = format!("{}&pool_size=1&acquire_timeout=30s{parameters}", cluster.url());
    Pool::builder(url.parse::<Config>().expect("the URL parses"))
}

/// Waits until the pool knows everything about two Pods, makes a caller wait for a connection, and returns all
/// connections.
pub(crate) async fn exercise(pool: &Pool) {
    pool.wait_ready(Target::Primary, LIMIT).await.expect("the primary serves");
    pool.wait_ready(Target::Standby, LIMIT).await.expect("the standby serves");
    let is_known = || {
        let pods = pool.status().endpoints;
        let lag = pods.iter().any(|pod| pod.lag_bytes.is_some() && pod.lag.is_some());
        lag && pods.len() == 2 && pods.iter().all(|pod| pod.timeline.is_some() && pod.latency.is_some())
    };
    let deadline = Instant::now() + LIMIT;
    loop {
        assert!(Instant::now() < deadline, "something is unknown: {:?}", pool.status());
        for target in [Target::Primary, Target::Standby] {
            let client = pool.get_for(target).await.expect("a connection is available");
            client.simple_query("SELECT 1").await.expect("the query succeeds");
        }
        if is_known() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let held = pool.get_for(Target::Primary).await.expect("a connection is available");
    let soon = Duration::from_millis(50);
    pool.get_within(Target::Primary, soon).await.expect_err("the only connection is in use");
    drop(held);
    until(LIMIT, "all connections are returned", || pool.status().endpoints.iter().all(|pod| pod.in_use == 0)).await;
}
