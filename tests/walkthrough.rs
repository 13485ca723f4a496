//! The documents' own walk-through: one replica, three replicas, a Pod that moves, and nobody restarts the program.

use std::{collections::HashMap, time::Duration};

use podpool::{Pool, State, testkit::Cluster};

mod common;
use common::{server_addr, until};

async fn shares(pool: &Pool, checkouts: usize) -> HashMap<String, usize> {
    let mut shares = HashMap::new();
    for _ in 0..checkouts {
        let client = pool.get().await.expect("a connection");
        let served = server_addr(&client).await;
        assert_eq!(served, client.endpoint().address().ip().to_string());
        *shares.entry(served).or_default() += 1;
    }
    shares
}

fn healthy(pool: &Pool) -> usize {
    pool.status().endpoints.iter().filter(|pod| pod.state == State::Healthy && pod.idle > 0).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_replica_then_three_each_with_a_fair_share() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let pool = Pool::connect(&cluster.url()).await.expect("a pool");
    assert_eq!(pool.status().endpoints.len(), 1);
    let alone = shares(&pool, 300).await;
    assert_eq!(alone.values().copied().collect::<Vec<_>>(), [300], "{alone:?}");

    cluster.scale(3).await.expect("three Pods");
    until(Duration::from_secs(15), "three Pods serve", || healthy(&pool) == 3).await;
    let three = shares(&pool, 3_000).await;
    println!("shares of 3,000 checkouts over three Pods: {three:?}");
    assert_eq!(three.len(), 3);
    for share in three.values() {
        assert!((750..=1250).contains(share), "{three:?}");
    }
    drop(pool);
    cluster.shutdown().await.expect("an orderly end");
}
