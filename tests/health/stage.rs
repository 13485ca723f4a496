//! What every test here begins with.

use std::{
    fs::File,
    net::IpAddr,
    time::{Duration, Instant},
};

use podpool::{Pool, State, testkit::Cluster};
use rustix::fs::{FlockOperation, flock};

use crate::common::{in_state, paced::Paced, until};

/// One test at a time, whatever process it runs in: each of them measures.
pub async fn alone() -> File {
    let lock = std::env::temp_dir().join("podpool-health-tests.lock");
    let waiting = tokio::task::spawn_blocking(move || {
        let file = File::options().create(true).append(true).open(&lock).expect("a file to lock");
        flock(&file, FlockOperation::LockExclusive).expect("the lock");
        file
    });
    waiting.await.expect("the lock")
}

/// A pool whose Pods all serve.
pub async fn pool(cluster: &Cluster) -> Pool {
    pool_of(&cluster.url(), cluster.len()).await
}

/// A pool of this URL, once so many Pods serve.
pub async fn pool_of(url: &str, pods: usize) -> Pool {
    let pool = Pool::connect(url).await.expect("a pool");
    until(Duration::from_secs(10), "every Pod serves", || in_state(&pool, State::Healthy) == pods).await;
    pool
}

/// Waits until each of these has answered a request that was made from now on, and half a second more of load.
pub async fn warm(load: &Paced, addresses: &[IpAddr]) {
    let since = Instant::now();
    let all = || addresses.iter().all(|&address| load.answered_since(address, since));
    until(Duration::from_secs(20), "every Pod answers", all).await;
    let count = load.count();
    until(Duration::from_secs(20), "the load goes on", || load.count() >= count + 250).await;
}

/// The Pods' addresses, by ordinal.
pub fn addresses(cluster: &Cluster) -> Vec<IpAddr> {
    cluster.pods().iter().map(|pod| pod.address().ip()).collect()
}

/// What the pool says of the Pod at this address.
pub fn state_of(pool: &Pool, address: IpAddr) -> Option<State> {
    pool.status().endpoints.iter().find(|pod| pod.endpoint.address().ip() == address).map(|pod| pod.state)
}

/// A line of the table that `make failover-table` collects.
pub fn row(fault: &str, caller_sees: &str, how_long: &str) {
    println!("\nTABLE | {fault} | {caller_sees} | {how_long} |");
}
