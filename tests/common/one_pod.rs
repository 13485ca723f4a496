//! Pools to a single Pod, and the calls of their hooks.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use podpool::{Builder, Config, Pool, Status, testkit::Cluster};

use super::until;

/// Time limit for a condition that normally holds after a fraction of it.
pub const SOON: Duration = Duration::from_secs(20);

/// Long timeouts, because a slow machine must not fail the tests.
pub const TIMEOUTS: &str = "connect_timeout=20s&acquire_timeout=60s";

/// Returns a builder of a pool to the first Pod, with these parameters.
pub fn builder(cluster: &Cluster, parameters: &str) -> Builder {
    let config: Config = format!("{}?{parameters}", cluster.pod_url(0)).parse().expect("the URL parses");
    Pool::builder(config)
}

/// Waits until no connection is in use or owned, and checks that every closed connection is counted.
pub async fn settled(pool: &Pool) {
    until(SOON, "no connection in use", || pool.status().endpoints.iter().all(|pod| pod.in_use + pod.owned == 0)).await;
    let open = |status: &Status| status.endpoints.iter().map(|pod| pod.open as u64).sum::<u64>();
    until(SOON, "opened minus closed connections are open", || {
        let status = pool.status();
        status.counters.opened - status.counters.closed == open(&status)
    })
    .await;
    let status = pool.status();
    assert!(status.endpoints.iter().all(|pod| pod.idle <= pod.open), "{status:?}");
}

/// A counter of the calls of a hook.
#[derive(Clone, Default)]
pub struct Calls(Arc<AtomicU64>);

impl Calls {
    /// Counts a call. Returns the number of calls before it.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }

    pub fn count(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}
