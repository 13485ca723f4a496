//! Helpers shared by the tests in this binary: locking, pools, addresses, and table rows.

use std::{
    fs::File,
    net::IpAddr,
    time::{Duration, Instant},
};

use podpool::{Pool, State, testkit::Cluster};
use rustix::fs::{FlockOperation, flock};

use crate::common::{in_state, paced::Paced, until};

/// Waits until no other test of this binary is running in any process, because concurrent tests would distort each
/// other's measurements. The returned file holds the lock.
pub async fn run_alone() -> File {
    let lock = std::env::temp_dir().join("podpool-health-tests.lock");
    let waiting = tokio::task::spawn_blocking(move || {
        let file = File::options().create(true).append(true).open(&lock).expect("the lock file opens");
        flock(&file, FlockOperation::LockExclusive).expect("the lock is acquired");
        file
    });
    waiting.await.expect("the lock is acquired")
}

/// Creates a pool for the cluster and waits until all Pods are healthy.
pub async fn pool(cluster: &Cluster) -> Pool {
    pool_of(&cluster.url(), cluster.len()).await
}

/// Creates a pool for this URL and waits until `pods` Pods are healthy.
pub async fn pool_of(url: &str, pods: usize) -> Pool {
    let pool = Pool::connect(url).await.expect("the pool is created");
    until(Duration::from_secs(10), "every Pod serves", || in_state(&pool, State::Healthy) == pods).await;
    pool
}

/// Waits until each of these Pods has answered a request that started after this call, and then for 250 more requests.
pub async fn warm(load: &Paced, addresses: &[IpAddr]) {
    let since = Instant::now();
    let all = || addresses.iter().all(|&address| load.answered_since(address, since));
    until(Duration::from_secs(20), "every Pod answers requests", all).await;
    let count = load.count();
    until(Duration::from_secs(20), "250 more requests complete", || load.count() >= count + 250).await;
}

/// Returns the addresses of the Pods, indexed by ordinal.
pub fn addresses(cluster: &Cluster) -> Vec<IpAddr> {
    cluster.pods().iter().map(|pod| pod.address().ip()).collect()
}

/// Returns the state that the pool has assigned to the Pod at this address.
pub fn state_of(pool: &Pool, address: IpAddr) -> Option<State> {
    pool.status()
        .endpoints
        .iter()
        .find(|pod| pod.endpoint.address().tcp().unwrap().ip() == address)
        .map(|pod| pod.state)
}

/// Prints a row of the table that `make failover-table` generates.
pub fn row(fault: &str, caller_sees: &str, duration: &str) {
    println!("\nTABLE | {fault} | {caller_sees} | {duration} |");
}
