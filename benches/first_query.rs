//! Measures the time from the creation of a pool to the response to its first statement, on a real server with SCRAM
//! authentication. `make first-query` runs this in debug builds, with and without optimized cryptography.

use std::time::{Duration, Instant};

use podpool::{Pool, testkit::Cluster};

/// Number of measurements.
const ROUNDS: usize = 21;

/// Creates a pool and executes a statement. Returns the time until the response.
async fn first_query(url: &str) -> Duration {
    let began = Instant::now();
    let pool = Pool::connect(url).await.expect("the pool is created");
    let client = pool.get().await.expect("checkout succeeds");
    client.query_one("SELECT 1", &[]).await.expect("the statement succeeds");
    let took = began.elapsed();
    drop(client);
    pool.close().await;
    took
}

#[tokio::main]
async fn main() {
    let rounds = if std::env::args().any(|argument| argument == "--test") { 1 } else { ROUNDS };
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    // Long timeouts, so that other work on this machine delays a measurement but does not end the program.
    let url = format!("{}&connect_timeout=60s&acquire_timeout=60s", cluster.url());
    let mut times = Vec::new();
    for _ in 0..rounds {
        times.push(first_query(&url).await);
    }
    times.sort();
    println!("first query: shortest {:.0?}, median {:.0?}", times[0], times[rounds / 2]);
    cluster.shutdown().await.expect("the cluster shuts down");
}
