//! Failovers, and the end of pools of a group.

use std::time::{Duration, Instant};

use podpool::{Event, Kind, Pool, Target};

use crate::{
    LIMIT, common::until, identity, is_ejection, probe_users, ready, received, run, start, tenant, tenant_with,
};

fn users(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|i| format!("tenant_{i}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_pool_sees_a_failover() {
    let cluster = start(users(8)).await;
    let first = tenant(&cluster, "tenant_0").build().expect("the pool is built");
    let others: Vec<_> = (1..8)
        .map(|i| tenant(&cluster, &format!("tenant_{i}")).share_with(&first).build().expect("the pool is built"))
        .collect();
    let pools: Vec<_> = std::iter::once(&first).chain(&others).collect();
    ready(&pools, Target::ReadWrite).await;
    let mut events: Vec<_> = pools.iter().map(|pool| pool.events()).collect();
    cluster.kill(0).await.expect("the primary is killed");
    cluster.promote(1).await.expect("a standby is promoted");
    let promoted = Instant::now();
    ready(&pools, Target::ReadWrite).await;
    println!("{} pools write {:.0?} after the promotion", pools.len(), promoted.elapsed());
    for (pool, events) in pools.iter().zip(&mut events) {
        let client = pool.get_for(Target::ReadWrite).await.expect("the new primary serves");
        client.batch_execute("CREATE TEMP TABLE t ()").await.expect("the new primary accepts writes");
        let events = received(events).await;
        let count = |is: &dyn Fn(&Event) -> bool| events.iter().filter(|event| is(event)).count();
        assert_eq!(count(&is_ejection), 1, "{}: {events:?}", pool.name());
        assert_eq!(count(&|event| matches!(event, Event::PrimaryFound { .. })), 1, "{}: {events:?}", pool.name());
    }
    cluster.shutdown().await.expect("the cluster stops");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_others_go_on_after_the_first_pool_is_dropped_and_the_second_closed() {
    let cluster = start(users(4)).await;
    run(&cluster, "CREATE DATABASE first_only OWNER tenant_0").await;
    cluster.wait_replicated().await.expect("the standbys have the database");
    // Without `min_idle`, probes need connections of their own.
    let parameters = "&min_idle=0&idle_timeout=1s";
    let build = |i: usize| tenant_with(&cluster, &format!("tenant_{i}"), cluster.database(), parameters);
    let first = tenant_with(&cluster, "tenant_0", "first_only", parameters).build().expect("the pool is built");
    let [second, third, fourth] = [1, 2, 3].map(|i| build(i).share_with(&first).build().expect("the pool is built"));
    ready(&[&first, &second, &third, &fourth], Target::Any).await;
    let is_idle = |pool: &Pool| pool.status().endpoints.iter().all(|pod| pod.open == 0);
    until(LIMIT, "idle connections are closed", || [&first, &second, &third, &fourth].into_iter().all(is_idle)).await;
    wait_for_probes_of(&cluster, "tenant_0", 3).await;

    let mut events = third.events();
    drop(first);
    wait_for_probes_of(&cluster, "tenant_1", 3).await;
    // No session of the dropped pool is left, on any Pod.
    run(&cluster, "DROP DATABASE first_only").await;
    assert_eq!(identity(&third).await.0, "tenant_2");

    // A closing pool waits for its own connections only.
    let client = second.get().await.expect("a connection");
    let closing = tokio::spawn({
        let second = second.clone();
        async move { second.close().await }
    });
    until(LIMIT, "the pool is closing", || second.status().closed).await;
    assert_eq!(second.get().await.expect_err("the pool is closing").kind(), Kind::Shutdown);
    client.query_one("SELECT 1", &[]).await.expect("the checked-out connection works");
    assert_eq!(identity(&third).await.0, "tenant_2");
    assert!(!closing.is_finished());
    drop(client);
    let aborted = tokio::time::timeout(LIMIT, closing).await.expect("the pool closes").expect("the task ends");
    assert_eq!((aborted, second.close().await), (0, 0));
    wait_for_probes_of(&cluster, "tenant_2", 3).await;
    assert!(received(&mut events).await.iter().all(|event| !is_ejection(event)), "no Pod is ejected");

    cluster.kill(0).await.expect("the primary is killed");
    cluster.promote(1).await.expect("a standby is promoted");
    let promoted = Instant::now();
    ready(&[&third, &fourth], Target::ReadWrite).await;
    println!("the remaining pools write {:.0?} after the promotion", promoted.elapsed());
    drop(third);
    // A pool can join a group whose first pools are gone.
    let fifth = build(2).share_with(&fourth).build().expect("the pool is built");
    ready(&[&fourth, &fifth], Target::ReadWrite).await;
    fourth.close().await;
    assert_eq!(identity(&fifth).await.0, "tenant_2");
    fifth.close().await;
    let error = build(2).share_with(&fifth).build().expect_err("the group has ended");
    assert_eq!(error.kind(), Kind::Shutdown, "{error}");
    let queries = cluster.dns().queries();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(cluster.dns().queries(), queries, "the closed group sends no DNS queries");
    cluster.shutdown().await.expect("the cluster stops");
}

/// Waits until all probe connections are this user's.
async fn wait_for_probes_of(cluster: &podpool::testkit::Cluster, user: &str, pods: usize) {
    let began = Instant::now();
    loop {
        let users = probe_users(cluster, 0..pods).await;
        if users.len() == pods && users.iter().all(|probe| probe == user) {
            return println!("probes use {user} after {:.0?}", began.elapsed());
        }
        assert!(began.elapsed() < LIMIT, "expected probes of {user}, got {users:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
