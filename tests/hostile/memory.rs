//! Tests that a server that floods the client with data does not exhaust the memory of the process.

use std::time::{Duration, Instant};

use podpool::{Config, Pool, Target};

use crate::{
    common::until,
    server::{Behavior, Server},
};

/// Maximum growth of the resident memory in bytes. A flooding server sends several times as much per second.
const GROWTH: usize = 48 << 20;

/// Returns the resident memory of this process in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("/proc/self/statm is readable");
    statm.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("the number of pages parses") * 4096
}

/// Connects four pools to a flooding server, uses each connection that opens, and asserts that memory stays bounded.
async fn flood(behavior: Behavior) {
    let server = Server::start(behavior).await;
    let url = server.url("sslmode=disable&connect_timeout=3s&pool_size=4");
    let config: Config = url.parse().expect("the URL parses");
    let (before, mut peak) = (resident(), 0);
    let pools: Vec<_> = (0..4).map(|_| Pool::builder(config.clone()).build().expect("the pool is created")).collect();
    for pool in &pools {
        let calls = async {
            loop {
                if let Ok(client) = pool.get_for(Target::Any).await {
                    drop(client.check_connection().await);
                }
                // Yields explicitly, so that the timeout takes effect even if every call fails immediately.
                tokio::task::yield_now().await;
            }
        };
        drop(tokio::time::timeout(Duration::from_millis(50), calls).await);
    }
    let began = Instant::now();
    until(Duration::from_secs(10), "the flood has lasted for 2.5 s", || {
        peak = peak.max(resident());
        began.elapsed() > Duration::from_millis(2500)
    })
    .await;
    let growth = peak.saturating_sub(before);
    let failures: Vec<_> = pools[0].status().endpoints.into_iter().filter_map(|pod| pod.last_failure).collect();
    println!("{behavior:?}: resident memory grew by up to {} KiB; last failure: {failures:?}", growth / 1024);
    assert!(growth < GROWTH, "{behavior:?}: resident memory grew by {growth} bytes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flooding_servers_do_not_exhaust_memory() {
    for behavior in [
        Behavior::Garbage,
        Behavior::GarbageBodies,
        Behavior::HugeMessage,
        Behavior::EndlessNotices,
        Behavior::EndlessParameters,
        Behavior::EndlessParametersAfterStartup,
        Behavior::EndlessRows,
        Behavior::HugeRow,
    ] {
        flood(behavior).await;
    }
}
