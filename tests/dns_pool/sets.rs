//! Tests that the pool follows the set of Pods in DNS, and that an unchanged set causes no events.

use podpool::Pool;

use crate::{
    common::until,
    site::{EventLog, FOLLOW, Site, members, refreshed, warm},
};

/// Returns the address and port of each of these Pods.
fn addresses(site: &Site, ordinals: &[usize]) -> Vec<String> {
    ordinals.iter().map(|ordinal| site.cluster.pod(*ordinal).address().to_string()).collect()
}

/// Publishes these Pods and waits until the pool has exactly these Pods, each with an idle connection.
async fn publish_and_follow(site: &Site, pool: &Pool, ordinals: &[usize]) {
    site.publish(ordinals);
    let expected = addresses(site, ordinals);
    until(FOLLOW, "the pool follows the published set", || members(pool) == expected).await;
    until(FOLLOW, "every Pod is warm", || warm(pool) == ordinals.len()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn remaining_pods_keep_their_connections_when_dns_changes() {
    let site = Site::start(5).await;
    site.publish(&[0, 1, 2]);
    let pool = site.pool(3, "").await;
    let events = EventLog::of(&pool);
    let mut before = Vec::new();
    for ordinal in 0..3 {
        before.push(site.sessions(ordinal).await);
        assert!(!before[ordinal].is_empty(), "Pod {ordinal} has no sessions");
    }

    publish_and_follow(&site, &pool, &[0, 1, 2, 3, 4]).await;
    assert_eq!((events.count("endpoint_added"), events.count("endpoint_drained")), (2, 0));
    for (ordinal, sessions) in before.iter().enumerate() {
        assert_eq!(site.sessions(ordinal).await, *sessions, "sessions of Pod {ordinal} after the set grew");
    }

    events.take();
    publish_and_follow(&site, &pool, &[0, 1]).await;
    until(FOLLOW, "the Pods are drained", || events.count("endpoint_drained") == 3).await;
    assert_eq!(events.count("endpoint_added"), 0);
    for (ordinal, sessions) in before.iter().enumerate().take(2) {
        assert_eq!(site.sessions(ordinal).await, *sessions, "sessions of Pod {ordinal} after the set shrank");
    }
    until(FOLLOW, "the drained Pods are removed", || events.count("endpoint_removed") == 3).await;

    // Replaces all Pods under load.
    site.publish(&[2, 3, 4]);
    let expected = addresses(&site, &[2, 3, 4]);
    let mut checkouts = 0;
    until(FOLLOW, "the new Pods are added", || members(&pool).len() > 2).await;
    let added = std::time::Instant::now();
    while members(&pool) != expected {
        assert!(added.elapsed() < FOLLOW, "the former Pods are not removed");
        let client = pool.get().await.expect("checkout succeeds");
        client.query_one("SELECT 1", &[]).await.expect("the query succeeds");
        checkouts += 1;
    }
    println!("{checkouts} checkouts while every Pod was replaced");
    until(FOLLOW, "every Pod is warm", || warm(&pool) == 3).await;
    site.end(pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reordered_or_duplicate_records_cause_no_events() {
    let site = Site::start(3).await;
    let pool = site.pool(3, "").await;
    let before = [site.sessions(0).await, site.sessions(1).await, site.sessions(2).await];
    let events = EventLog::of(&pool);
    for order in [&[2, 1, 0][..], &[1, 2, 0], &[0, 0, 2, 1, 2]] {
        site.publish(order);
        refreshed(&pool, 2).await;
        assert_eq!(members(&pool), addresses(&site, &[0, 1, 2]));
    }
    assert_eq!(events.take(), [""; 0], "events");
    for (ordinal, sessions) in before.iter().enumerate() {
        assert_eq!(site.sessions(ordinal).await, *sessions, "sessions of Pod {ordinal}");
    }
    site.end(pool).await;
}
