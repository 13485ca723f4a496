//! Tests that a pool follows a StatefulSet that scales from one replica to three, and spreads its checkouts evenly.

use std::{collections::HashMap, time::Duration};

use podpool::{Pool, State, testkit::Cluster};

mod common;
use common::{server_addr, until};

/// Checks out connections one after another. Returns the number of checkouts from each Pod.
async fn shares(pool: &Pool, checkouts: usize) -> HashMap<String, usize> {
    let mut shares = HashMap::new();
    for _ in 0..checkouts {
        let client = pool.get().await.expect("checkout succeeds");
        let address = server_addr(&client).await;
        assert_eq!(address, client.endpoint().address().tcp().unwrap().ip().to_string());
        *shares.entry(address).or_default() += 1;
    }
    shares
}

fn healthy(pool: &Pool) -> usize {
    pool.status().endpoints.iter().filter(|pod| pod.state == State::Healthy && pod.idle > 0).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkouts_spread_evenly_after_scaling_from_one_pod_to_three() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let pool = Pool::connect(&cluster.url()).await.expect("the pool is created");
    assert_eq!(pool.status().endpoints.len(), 1);
    let alone = shares(&pool, 300).await;
    assert_eq!(alone.values().copied().collect::<Vec<_>>(), [300], "{alone:?}");

    cluster.scale(3).await.expect("the cluster scales");
    until(Duration::from_secs(15), "three healthy Pods", || healthy(&pool) == 3).await;
    let three = shares(&pool, 3_000).await;
    println!("shares of 3,000 checkouts over three Pods: {three:?}");
    assert_eq!(three.len(), 3);
    for share in three.values() {
        assert!((750..=1250).contains(share), "{three:?}");
    }
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}
