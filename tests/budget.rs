//! Tests the connection budget: subsets of Pods, the connection limits of the pool and the servers, servers that have
//! reached their connection limit, and the share of traffic that a new Pod gets.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    time::{Duration, Instant},
};

use podpool::{
    Client, Config, Event, Kind, Pool, State, Target,
    testkit::{Cluster, Shutdown},
    tokio_postgres,
};

mod common;
use common::{in_state, load::Load, server_addr, until};

const LONG: Duration = Duration::from_secs(20);

fn build(url: &str, parameters: &str) -> Pool {
    let config: Config = format!("{url}{parameters}").parse().expect("the URL parses");
    Pool::builder(config).build().expect("the pool is created")
}

/// Returns the addresses of the Pods that the pool uses.
fn addresses(pool: &Pool) -> BTreeSet<IpAddr> {
    pool.status().endpoints.iter().map(|pod| pod.endpoint.address().tcp().unwrap().ip()).collect()
}

async fn superusers(cluster: &Cluster) -> Vec<tokio_postgres::Client> {
    let mut clients = Vec::new();
    for ordinal in 0..cluster.len() {
        clients.push(cluster.client(ordinal).await.expect("the superuser connects"));
    }
    clients
}

/// Counts the application's sessions on a server in `pg_stat_activity`.
async fn sessions(superuser: &tokio_postgres::Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'user'";
    superuser.query_one(sql, &[]).await.expect("the query returns a row").get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_uses_only_its_subset_and_replaces_failed_pods() {
    let cluster = Cluster::start(4).await.expect("the cluster starts");
    let pool = build(&cluster.url(), "&subset_size=2&client_id=web-7");
    let has_subset = |pool: &Pool| {
        let status = pool.status();
        status.endpoints.len() == 2
            && status.unused.len() == 2
            && status.endpoints.iter().all(|pod| pod.state == State::Healthy && pod.idle > 0)
    };
    until(LONG, "two healthy Pods", || has_subset(&pool)).await;
    let mine = addresses(&pool);
    let load = Load::start(&pool, Target::Any, 8);
    until(LONG, "2,000 requests", || load.answered() > 2_000).await;

    // Pods outside the client's subset have no sessions from this client.
    let unused: Vec<_> = pool.status().unused.iter().map(|endpoint| endpoint.address().tcp().unwrap().ip()).collect();
    let pods: Vec<IpAddr> = cluster.pods().iter().map(|pod| pod.address().ip()).collect();
    for (superuser, address) in superusers(&cluster).await.iter().zip(&pods) {
        let count = sessions(superuser).await;
        assert_eq!(count == 0, unused.contains(address), "{address}: {count} sessions; unused: {unused:?}");
    }
    // A second client with the same `client_id` selects the same Pods.
    let twin = build(&cluster.url(), "&subset_size=2&client_id=web-7");
    until(LONG, "two healthy Pods of the twin", || has_subset(&twin)).await;
    assert_eq!(addresses(&twin), mine);
    drop(twin);

    // A Pod from outside the subset replaces a failed Pod until the failed Pod returns.
    let dead =
        pods.iter().position(|pod| mine.contains(pod) && *pod != pods[0]).expect("the subset contains a standby");
    cluster.kill(dead).await.expect("SIGKILL is sent");
    until(LONG, "a replacement", || uses_two_without(&pool, pods[dead])).await;
    let replaced = addresses(&pool);
    assert_eq!(replaced.difference(&mine).count(), 1, "{mine:?} -> {replaced:?}");
    cluster.start_pod(dead).await.expect("the Pod starts");
    until(LONG, "the original subset", || has_subset(&pool) && addresses(&pool) == mine).await;
    let report = load.stop().await;
    println!("{} responses; Pods {mine:?}, then {replaced:?}", report.answers.len());
    assert_eq!(report.failures, Vec::<String>::new());

    // After all Pods have failed and returned, the client uses its original subset again.
    for ordinal in 0..4 {
        cluster.kill(ordinal).await.expect("SIGKILL is sent");
    }
    until(LONG, "no healthy Pod", || in_state(&pool, State::Healthy) == 0).await;
    for ordinal in 0..4 {
        cluster.start_pod(ordinal).await.expect("the Pod starts");
    }
    until(LONG, "the original subset again", || has_subset(&pool) && addresses(&pool) == mine).await;
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Returns true if the pool uses exactly two Pods, both healthy and neither at `address`.
fn uses_two_without(pool: &Pool, address: IpAddr) -> bool {
    let status = pool.status();
    let other = |pod: &podpool::EndpointStatus| {
        pod.state == State::Healthy && pod.endpoint.address().tcp().unwrap().ip() != address
    };
    status.endpoints.len() == 2 && status.endpoints.iter().all(other)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn follows_the_primary_and_finds_standbys_outside_the_subset() {
    let cluster = Cluster::start(4).await.expect("the cluster starts");
    let pods: Vec<IpAddr> = cluster.pods().iter().map(|pod| pod.address().ip()).collect();
    // Each client's subset is a single Pod. Whichever Pod that is, every client must find the primary and a standby.
    let mut clients = Vec::new();
    for id in 0..6 {
        let pool = build(&cluster.url(), &format!("&subset_size=1&client_id=web-{id}&acquire_timeout=15s"));
        until(LONG, "a healthy Pod", || in_state(&pool, State::Healthy) == 1).await;
        assert_eq!(pool.status().endpoints.len(), 1, "only the subset before the first checkout");
        clients.push((addresses(&pool), pool));
    }
    let subsets: BTreeSet<_> = clients.iter().map(|(subset, _)| subset).collect();
    assert!(subsets.len() > 1, "all clients have the same subset: {subsets:?}");
    for (primary, next) in [(0, Some(2)), (2, None)] {
        for (subset, pool) in &clients {
            let began = Instant::now();
            let client = pool.primary().await.expect("the primary is found");
            assert_eq!(client.endpoint().address().tcp().unwrap().ip(), pods[primary]);
            let found = began.elapsed();
            drop(client);
            let client = pool.get_for(Target::Standby).await.expect("a standby is found");
            assert_ne!(client.endpoint().address().tcp().unwrap().ip(), pods[primary]);
            drop(client);
            println!("primary {}: found after {found:.1?} by the client of {subset:?}", pods[primary]);
            // The client uses the Pod of its subset, and at most one other Pod for the role that the subset lacks.
            let converged = || addresses(pool).is_superset(subset) && pool.status().endpoints.len() <= 2;
            until(LONG, "at most one additional Pod", converged).await;
        }
        if let Some(next) = next {
            cluster.stop(primary, Shutdown::Fast).await.expect("the primary stops");
            cluster.promote(next).await.expect("the standby is promoted");
            cluster.reattach(primary).await.expect("the former primary becomes a standby");
        }
    }
    drop(clients);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkouts_succeed_on_other_pods_when_a_server_is_full() {
    // Each server accepts 12 connections, 3 of which are reserved for superusers. The other 9 are enough for 4 clients,
    // because each client opens one connection for its first probe and one for queries.
    let cluster =
        Cluster::builder().pods(3).setting("max_connections", "12").start().await.expect("the cluster starts");
    let superusers = superusers(&cluster).await;
    let mut clients = Vec::new();
    for id in 0..11 {
        let parameters = format!("&subset_size=1&pool_size=1&client_id=web-{id}&acquire_timeout=20s");
        clients.push(build(&cluster.url(), &parameters));
    }
    // All clients check out connections repeatedly and at the same time.
    let mut tasks = Vec::new();
    for pool in &clients {
        let pool = pool.clone();
        tasks.push(tokio::spawn(async move {
            for _ in 0..20 {
                let client = pool.get().await.expect("checkout succeeds");
                server_addr(&client).await;
            }
        }));
    }
    for task in tasks {
        task.await.expect("the task does not panic");
    }
    let (mut refused, mut all) = (0, 0);
    for pool in &clients {
        refused += pool.status().counters.open_failed;
    }
    for superuser in &superusers {
        let count = sessions(superuser).await;
        println!("{count} sessions");
        assert!(count <= 9, "{count}");
        all += count;
    }
    println!("11 clients: {all} of 27 possible sessions, {refused} refused connections");
    assert!(all >= 11, "{all}");
    drop(clients);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backs_off_from_a_full_server_and_keeps_its_open_connections() {
    let cluster = Cluster::builder().pods(1).setting("max_connections", "8").start().await.expect("the cluster starts");
    let pool = build(&cluster.url(), "&acquire_timeout=2s");
    // Of the server's 8 connections, 3 are reserved for superusers. The connection of the first probe is closed once an
    // idle connection can replace it, which leaves 5 for checkouts.
    let superuser = cluster.client(0).await.expect("the superuser connects");
    let deadline = Instant::now() + LONG;
    while pool.status().endpoints.first().is_none_or(|pod| pod.idle == 0) || sessions(&superuser).await != 1 {
        assert!(Instant::now() < deadline, "the connection of the first probe was not closed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(superuser);
    let mut held: Vec<Client> = Vec::new();
    while held.len() < 5 {
        assert!(Instant::now() < deadline, "only {} connections were opened", held.len());
        // Fails until the superuser's session has ended.
        held.extend(pool.get().await);
    }
    assert_eq!(pool.status().endpoints[0].server_connections, Some(5));
    let failed = pool.status().counters.open_failed;
    let error = pool.get().await.expect_err("the server is full");
    assert_eq!(error.kind(), Kind::PoolTimeout, "{error}");
    assert!(format!("{error:?}").contains("E53300"), "{error:?}");
    let failed = pool.status().counters.open_failed - failed;
    println!("{failed} dials within 2 s: {error}");
    // Between failed dials, the pool backs off for 50, 100, 200, 400, 800 and 1000 ms.
    assert!((1..=8).contains(&failed), "{failed}");
    let status = pool.status();
    assert_eq!((status.endpoints[0].state, status.endpoints[0].open), (State::Healthy, 5));
    for client in &held {
        server_addr(client).await;
    }
    held.pop();
    server_addr(&pool.get().await.expect("the returned connection is available")).await;
    drop((held, pool));
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_connections_is_split_across_pods_and_includes_probes() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    let pool = build(&cluster.url(), "&max_connections=8&acquire_timeout=20s");
    until(LONG, "two healthy Pods", || in_state(&pool, State::Healthy) == 2).await;
    let load = Load::start(&pool, Target::Any, 16);
    for pods in [2, 3, 4] {
        cluster.scale(pods).await.expect("the cluster scales");
        until(LONG, "all Pods are healthy", || in_state(&pool, State::Healthy) == pods).await;
        // The limit is 8 connections, one of which is reserved for the probes of each Pod. The other connections are
        // split evenly across the Pods, and all of them are open.
        let each = (8 - pods) / pods;
        let split_evenly = || {
            let open: Vec<_> = pool.status().endpoints.iter().map(|pod| pod.open).collect();
            open.iter().all(|&open| open == each || open == each + 1) && open.iter().sum::<usize>() == 8 - pods
        };
        until(LONG, "connections split evenly across the Pods", split_evenly).await;
        let superusers = superusers(&cluster).await;
        let count = load.answered();
        until(LONG, "more requests", || load.answered() > count + 500).await;
        let mut counts = Vec::new();
        for superuser in &superusers {
            counts.push(sessions(superuser).await);
        }
        println!("{pods} Pods, at most 8 connections: {counts:?}");
        // A Pod has no probe connection while its probes use idle connections.
        let all = counts.iter().sum::<i64>();
        assert!((8 - pods as i64..=8).contains(&all), "{counts:?}");
    }
    let report = load.stop().await;
    assert_eq!(report.failures, Vec::<String>::new());
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_pod_is_warmed_up_and_gets_its_share_immediately() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    let pool = build(&cluster.url(), "&min_idle=3");
    until(LONG, "two healthy Pods", || in_state(&pool, State::Healthy) == 2).await;
    let old = addresses(&pool);
    // The pool opens connections to a new Pod even without traffic.
    cluster.scale(3).await.expect("the cluster scales");
    let new = *addresses_of(&cluster).difference(&old).next().expect("the cluster has a new Pod");
    let of = |address: IpAddr| {
        pool.status().endpoints.into_iter().find(|pod| pod.endpoint.address().tcp().unwrap().ip() == address)
    };
    until(LONG, "the new Pod is warm", || of(new).is_some_and(|pod| pod.state == State::Healthy && pod.idle == 3))
        .await;
    assert_eq!(of(new).expect("the pool uses the Pod").checkouts, 0);

    // A fourth Pod is added under load.
    let load = Load::start(&pool, Target::Any, 12);
    until(LONG, "2,000 requests", || load.answered() > 2_000).await;
    let before = pool.status().counters.closed;
    cluster.scale(4).await.expect("the cluster scales");
    let newest =
        *addresses_of(&cluster).difference(&old).find(|address| **address != new).expect("the cluster has a new Pod");
    until(LONG, "the newest Pod is healthy", || of(newest).is_some_and(|pod| pod.state == State::Healthy)).await;
    let (began, count) = (Instant::now(), load.answered());
    until(LONG, "more requests", || load.answered() > count + 8_000).await;
    let ended = Instant::now();
    let closed = pool.status().counters.closed - before;
    let report = load.stop().await;
    let shares = report.shares(began, ended);
    let total: usize = shares.values().sum();
    let share = shares[&newest.to_string()] as f64 * 4.0 / total as f64;
    println!(
        "first {:.1?}: {total} responses, {share:.2} of an equal share from the new Pod, {closed} connections closed",
        ended - began
    );
    // The new Pod's share is not exactly equal: on a busy machine, a Pod that responds faster gets more traffic.
    assert!((0.7..1.3).contains(&share), "{shares:?}");
    assert_eq!(closed, 0, "existing connections were closed");
    assert_eq!(report.failures, Vec::<String>::new());
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

fn addresses_of(cluster: &Cluster) -> BTreeSet<IpAddr> {
    cluster.pods().iter().map(|pod| pod.address().ip()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_an_oversubscribed_server_at_startup() {
    let cluster =
        Cluster::builder().pods(2).setting("max_connections", "40").start().await.expect("the cluster starts");
    let superuser = cluster.client(0).await.expect("the superuser connects");
    // Each server accepts 37 connections. Four clients stay within that limit. Twenty clients with two connections each
    // exceed the primary's limit, unless they use subsets. One client with 51 connections exceeds every server's limit.
    for (parameters, expected) in [
        ("&clients=4", None),
        ("&clients=20&pool_size=1&min_idle=0&subset_size=1", None),
        ("&clients=20&pool_size=1", Some("20 clients, all of which use the primary, open up to 40 connections to it")),
        (
            "&pool_size=50",
            Some("one client opens up to 51 connections to it, including a probe, but the server accepts only 37"),
        ),
    ] {
        let config: Config = format!("{}{parameters}", cluster.url()).parse().expect("the URL parses");
        let pods = config.limits().subset_size.unwrap_or(2);
        let pool = Pool::builder(config).build().expect("the pool is created");
        let mut events = pool.events();
        until(LONG, "healthy Pods", || in_state(&pool, State::Healthy) == pods).await;
        assert!(pool.status().endpoints.iter().all(|pod| pod.server_connections == Some(37)), "{:?}", pool.status());
        drop(pool);
        let mut causes = Vec::new();
        while let Some(Ok(event)) = events.next().await {
            if let Event::ServerOversubscribed { cause, .. } = event {
                causes.push(cause);
            }
        }
        println!("{parameters}: {causes:?}");
        match expected {
            None => assert!(causes.is_empty(), "{causes:?}"),
            Some(text) => assert!(causes.iter().any(|cause| cause.contains(text)), "{causes:?}"),
        }
    }
    // The pool also respects a connection limit on the database user.
    superuser.batch_execute("ALTER ROLE \"user\" CONNECTION LIMIT 7").await.expect("the limit is set");
    let pool = build(&cluster.pod_url(0), "?pool_size=2");
    until(LONG, "a healthy Pod", || in_state(&pool, State::Healthy) == 1).await;
    assert_eq!(pool.status().endpoints[0].server_connections, Some(7));
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}
