//! What the tests share.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

pub mod load;
pub mod paced;
pub mod programs;

use std::time::{Duration, Instant};

use podpool::{Client, Pool, State};

/// Waits for a condition, and fails with what was waited for when it does not come.
pub async fn until(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "not within {limit:?}: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The address that the server itself says it was reached at.
pub async fn server_addr(client: &Client) -> String {
    let statement = client.prepare_cached("SELECT host(inet_server_addr())").await.expect("a statement");
    client.query_one(&statement, &[]).await.expect("an answer").get(0)
}

/// The Pods that are in this state.
pub fn in_state(pool: &Pool, state: State) -> usize {
    pool.status().endpoints.iter().filter(|pod| pod.state == state).count()
}

/// Shows the pool's log lines of a failed test.
pub fn logged() {
    let filter = tracing_subscriber::EnvFilter::new("podpool=debug");
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}
