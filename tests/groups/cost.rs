//! The cost of a group: lookups and probe connections.

use std::time::{Duration, Instant};

use podpool::{Pool, Target, testkit::Cluster};

use crate::{LIMIT, common::until, identity, probe_users, ready, run, start, tenant_with};

/// Number of pools.
const POOLS: usize = 50;
/// Number of databases.
const DATABASES: usize = 5;
/// Time for which the lookups and sessions are counted.
const WATCHED: Duration = Duration::from_secs(10);
/// Without `min_idle`, no pooled connection is open that a probe could use.
const PARAMETERS: &str = "&min_idle=0&idle_timeout=1s&refresh_max=1s";

/// Returns the maximum number of probe connections to all Pods, and the number of lookups, while `WATCHED` passes.
async fn watch(cluster: &Cluster) -> (usize, u64) {
    let (began, queries) = (Instant::now(), cluster.dns().queries());
    let mut most = 0;
    while began.elapsed() < WATCHED {
        most = most.max(probe_users(cluster, 0..3).await.len());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // A lookup queries the addresses of both families.
    (most, (cluster.dns().queries() - queries).a)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_pools_on_three_pods_have_one_resolver_and_at_most_three_probe_connections() {
    let cluster = start((0..POOLS).map(|i| format!("tenant_{i}"))).await;
    for database in 0..DATABASES {
        run(&cluster, &format!("CREATE DATABASE shop_{database}")).await;
    }
    cluster.wait_replicated().await.expect("the standbys have the databases");
    let builder =
        |i: usize| tenant_with(&cluster, &format!("tenant_{i}"), &format!("shop_{}", i % DATABASES), PARAMETERS);
    let first = builder(0).build().expect("the pool is built");
    let rest = (1..POOLS).map(|i| builder(i).share_with(&first).build().expect("the pool is built"));
    let pools: Vec<_> = std::iter::once(first.clone()).chain(rest).collect();
    ready(&pools.iter().collect::<Vec<_>>(), Target::Any).await;
    for (i, pool) in pools.iter().enumerate() {
        assert_eq!(identity(pool).await, (format!("tenant_{i}"), format!("shop_{}", i % DATABASES)));
        assert_eq!(pool.status().endpoints.len(), 3, "{}", pool.name());
    }
    let is_idle = |pool: &Pool| pool.status().endpoints.iter().all(|pod| pod.open == 0);
    until(LIMIT, "idle connections are closed", || pools.iter().all(is_idle)).await;
    let (probes, lookups) = watch(&cluster).await;
    println!("{POOLS} pools on 3 Pods: at most {probes} probe connections, {lookups} lookups in {WATCHED:?}");
    assert!((1..=3).contains(&probes), "{probes} probe connections");
    assert!(lookups > 0, "the name is looked up");

    // While all pools are used, too.
    let callers: Vec<_> = (pools.iter().cloned())
        .map(|pool| {
            tokio::spawn(async move {
                let began = Instant::now();
                while began.elapsed() < WATCHED {
                    identity(&pool).await;
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            })
        })
        .collect();
    let (probes, _) = watch(&cluster).await;
    for caller in callers {
        caller.await.expect("every call succeeds");
    }
    println!("while all are used: at most {probes} probe connections");
    assert!(probes <= 3, "{probes} probe connections");

    drop((pools, first));
    // Each pool that shares nothing has its own, so the counts above can fail. The first of them alone makes as many
    // lookups as the group.
    let mut alone = vec![builder(0).build().expect("the pool is built")];
    ready(&alone.iter().collect::<Vec<_>>(), Target::Any).await;
    let (_, one) = watch(&cluster).await;
    alone.extend((1..4).map(|i| builder(i).build().expect("the pool is built")));
    ready(&alone.iter().collect::<Vec<_>>(), Target::Any).await;
    until(LIMIT, "idle connections are closed", || alone.iter().all(is_idle)).await;
    let (probes, four) = watch(&cluster).await;
    println!("1 pool: {one} lookups; 4 pools that share nothing: {probes} probe connections, {four} lookups");
    assert!(lookups <= one + 3, "{lookups} lookups of the group, {one} of one pool");
    assert!(probes > 6 && four > 2 * one, "{probes} probe connections, {four} lookups");
    drop(alone);
    cluster.shutdown().await.expect("the cluster stops");
}
