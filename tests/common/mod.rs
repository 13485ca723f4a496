//! Helpers shared by the integration tests.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a subset")]

pub mod client_process;
pub mod distance;
pub mod ejections;
pub mod load;
pub mod one_pod;
pub mod paced;
pub mod pooler;
pub mod programs;
pub mod relay;
pub mod trials;

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use podpool::{Client, Pool, State};

/// Polls `condition` every 5 ms until it returns true. Panics with `description` after `limit`.
pub async fn until(limit: Duration, description: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < deadline, "condition not met within {limit:?}: {description}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Executes a statement that sleeps, cancels it until it ends, and returns the SQLSTATE of its error. The first request
/// may arrive before the statement.
pub async fn cancelled(client: &Client) -> Option<String> {
    let token = client.cancel_token();
    let mut sleeping = pin!(client.batch_execute("SELECT pg_sleep(60)"));
    loop {
        match tokio::time::timeout(Duration::from_millis(50), sleeping.as_mut()).await {
            Ok(ended) => return ended.err().and_then(|error| Some(error.code()?.code().to_owned())),
            Err(_) => token.cancel().await.expect("the cancel request reaches the server"),
        }
    }
}

/// Checks a connection out of a new pool whose first attempts may fail. Returns the last error after `limit`.
pub async fn first_checkout(pool: &Pool, limit: Duration) -> Result<Client, podpool::Error> {
    let deadline = Instant::now() + limit;
    loop {
        match pool.get().await {
            Err(_) if Instant::now() < deadline => tokio::time::sleep(Duration::from_millis(20)).await,
            result => return result,
        }
    }
}

/// Returns the server's own address for this connection, as reported by `inet_server_addr()`.
pub async fn server_addr(client: &Client) -> String {
    let statement = client.prepare_cached("SELECT host(inet_server_addr())").await.expect("the statement is prepared");
    client.query_one(&statement, &[]).await.expect("the query succeeds").get(0)
}

/// Returns the number of Pods in this state.
pub fn in_state(pool: &Pool, state: State) -> usize {
    pool.status().endpoints.iter().filter(|pod| pod.state == state).count()
}

/// Installs a log subscriber that writes to the captured test output, so that a failed test prints the pool's log.
pub fn init_logging() {
    let filter = tracing_subscriber::EnvFilter::new("podpool=debug");
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_test_writer().try_init();
}
