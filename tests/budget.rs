//! Many clients, many Pods, few slots: whom a client uses, how many connections it opens, and what becomes of a Pod that
//! is full. And a Pod that is added takes its share.

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
    let config: Config = format!("{url}{parameters}").parse().expect("a URL");
    Pool::builder(config).build().expect("a pool")
}

fn addresses(pool: &Pool) -> BTreeSet<IpAddr> {
    pool.status().endpoints.iter().map(|pod| pod.endpoint.address().ip()).collect()
}

async fn superusers(cluster: &Cluster) -> Vec<tokio_postgres::Client> {
    let mut clients = Vec::new();
    for ordinal in 0..cluster.len() {
        clients.push(cluster.client(ordinal).await.expect("a superuser"));
    }
    clients
}

/// Sessions of the application on a server, by the server's own count.
async fn sessions(superuser: &tokio_postgres::Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'user'";
    superuser.query_one(sql, &[]).await.expect("an answer").get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_connects_and_probes_its_subset_alone_and_replaces_who_fails() {
    let cluster = Cluster::start(4).await.expect("a cluster");
    let pool = build(&cluster.url(), "&subset_size=2&client_id=web-7");
    let settled = |pool: &Pool| {
        let status = pool.status();
        status.endpoints.len() == 2
            && status.unused.len() == 2
            && status.endpoints.iter().all(|pod| pod.state == State::Healthy && pod.idle > 0)
    };
    until(LONG, "two Pods serve", || settled(&pool)).await;
    let mine = addresses(&pool);
    let load = Load::start(&pool, Target::Any, 8);
    until(LONG, "a load", || load.answered() > 2_000).await;

    // By the servers' word: the others have not seen this client.
    let spare: Vec<_> = pool.status().unused.iter().map(|endpoint| endpoint.address().ip()).collect();
    let pods: Vec<IpAddr> = cluster.pods().iter().map(|pod| pod.address().ip()).collect();
    for (superuser, address) in superusers(&cluster).await.iter().zip(&pods) {
        let count = sessions(superuser).await;
        assert_eq!(count == 0, spare.contains(address), "{address}: {count} sessions; spare are {spare:?}");
    }
    // The same id, the same Pods; and it does not matter what the others are called.
    let twin = build(&cluster.url(), "&subset_size=2&client_id=web-7");
    until(LONG, "its twin", || settled(&twin)).await;
    assert_eq!(addresses(&twin), mine);
    drop(twin);

    // One of its Pods dies: one takes its place, and goes again when it is back.
    let dead = pods.iter().position(|pod| mine.contains(pod) && *pod != pods[0]).expect("one that is a standby");
    cluster.kill(dead).await.expect("SIGKILL");
    until(LONG, "a Pod in its place", || settled_without(&pool, pods[dead])).await;
    let replaced = addresses(&pool);
    assert_eq!(replaced.difference(&mine).count(), 1, "{mine:?} -> {replaced:?}");
    cluster.start_pod(dead).await.expect("its start");
    until(LONG, "it is back", || settled(&pool) && addresses(&pool) == mine).await;
    let report = load.stop().await;
    println!("{} answers; {mine:?}, then {replaced:?}", report.answers.len());
    assert_eq!(report.failures, Vec::<String>::new());

    // All die, and come back: so does the client to its own.
    for ordinal in 0..4 {
        cluster.kill(ordinal).await.expect("SIGKILL");
    }
    until(LONG, "nobody serves", || in_state(&pool, State::Healthy) == 0).await;
    for ordinal in 0..4 {
        cluster.start_pod(ordinal).await.expect("its start");
    }
    until(LONG, "they are back", || settled(&pool) && addresses(&pool) == mine).await;
    drop(pool);
    cluster.shutdown().await.expect("an orderly end");
}

fn settled_without(pool: &Pool, address: IpAddr) -> bool {
    let status = pool.status();
    let serve = |pod: &podpool::EndpointStatus| pod.state == State::Healthy && pod.endpoint.address().ip() != address;
    status.endpoints.len() == 2 && status.endpoints.iter().all(serve)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_outside_of_the_subset_is_found_and_followed() {
    let cluster = Cluster::start(4).await.expect("a cluster");
    let pods: Vec<IpAddr> = cluster.pods().iter().map(|pod| pod.address().ip()).collect();
    // Wherever its one Pod is, each client finds the primary, and a standby.
    let mut clients = Vec::new();
    for id in 0..6 {
        let pool = build(&cluster.url(), &format!("&subset_size=1&client_id=web-{id}&acquire_timeout=15s"));
        until(LONG, "its Pod serves", || in_state(&pool, State::Healthy) == 1).await;
        assert_eq!(pool.status().endpoints.len(), 1, "until it is asked for more");
        clients.push((addresses(&pool), pool));
    }
    let subsets: BTreeSet<_> = clients.iter().map(|(subset, _)| subset).collect();
    assert!(subsets.len() > 1, "they differ: {subsets:?}");
    for (primary, next) in [(0, Some(2)), (2, None)] {
        for (subset, pool) in &clients {
            let began = Instant::now();
            let client = pool.primary().await.expect("the primary");
            assert_eq!(client.endpoint().address().ip(), pods[primary]);
            let found = began.elapsed();
            drop(client);
            let client = pool.get_for(Target::Standby).await.expect("a standby");
            assert_ne!(client.endpoint().address().ip(), pods[primary]);
            drop(client);
            println!("primary {}: found after {found:.1?} by the client of {subset:?}", pods[primary]);
            // No more than the subset and what is missing there.
            let at_rest = || addresses(pool).is_superset(subset) && pool.status().endpoints.len() <= 2;
            until(LONG, "at rest", at_rest).await;
        }
        if let Some(next) = next {
            cluster.stop(primary, Shutdown::Fast).await.expect("its end");
            cluster.promote(next).await.expect("a promotion");
            cluster.reattach(primary).await.expect("the former primary as a standby");
        }
    }
    drop(clients);
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_spill_over_to_pods_that_have_room_and_nothing_fails() {
    // 12 less 3 that are reserved: 9 slots a Pod, 4 clients of a probe and a connection each.
    let cluster = Cluster::builder().pods(3).setting("max_connections", "12").start().await.expect("a cluster");
    let superusers = superusers(&cluster).await;
    let mut clients = Vec::new();
    for id in 0..11 {
        let parameters = format!("&subset_size=1&pool_size=1&client_id=web-{id}&acquire_timeout=20s");
        clients.push(build(&cluster.url(), &parameters));
    }
    // All at once, and again and again.
    let mut tasks = Vec::new();
    for pool in &clients {
        let pool = pool.clone();
        tasks.push(tokio::spawn(async move {
            for _ in 0..20 {
                let client = pool.get().await.expect("a connection");
                server_addr(&client).await;
            }
        }));
    }
    for task in tasks {
        task.await.expect("no client fails");
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
    println!("11 clients, {all} sessions on 27 slots; {refused} connections of the pools were refused");
    assert!(all >= 22, "{all}");
    drop(clients);
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_pod_is_backed_off_from_and_keeps_what_is_open() {
    let cluster = Cluster::builder().pods(1).setting("max_connections", "8").start().await.expect("a cluster");
    let pool = build(&cluster.url(), "&acquire_timeout=2s");
    // 8 less 3 that are reserved, and one for the probe.
    let mut held: Vec<Client> = Vec::new();
    for _ in 0..4 {
        held.push(pool.get().await.expect("a connection"));
    }
    assert_eq!(pool.status().endpoints[0].slots, Some(5));
    let failed = pool.status().counters.open_failed;
    let error = pool.get().await.expect_err("no slot");
    assert_eq!(error.kind(), Kind::PoolTimeout, "{error}");
    assert!(format!("{error:?}").contains("E53300"), "{error:?}");
    let failed = pool.status().counters.open_failed - failed;
    println!("{failed} dials within 2 s: {error}");
    // 50 ms, 100, 200, 400, 800, 1000.
    assert!((1..=8).contains(&failed), "{failed}");
    let status = pool.status();
    assert_eq!((status.endpoints[0].state, status.endpoints[0].open), (State::Healthy, 4));
    for client in &held {
        server_addr(client).await;
    }
    held.pop();
    server_addr(&pool.get().await.expect("what came back")).await;
    drop((held, pool));
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn max_connections_bounds_the_pool_and_its_probes_and_a_new_pod_gets_its_part() {
    let cluster = Cluster::start(2).await.expect("a cluster");
    let pool = build(&cluster.url(), "&max_connections=8&acquire_timeout=20s");
    until(LONG, "two Pods serve", || in_state(&pool, State::Healthy) == 2).await;
    let load = Load::start(&pool, Target::Any, 16);
    for pods in [2, 3, 4] {
        cluster.scale(pods).await.expect("scaled");
        until(LONG, "all serve", || in_state(&pool, State::Healthy) == pods).await;
        // What the probes leave is divided evenly, and used.
        let each = (8 - pods) / pods;
        let divided = || {
            let open: Vec<_> = pool.status().endpoints.iter().map(|pod| pod.open).collect();
            open.iter().all(|&open| open == each || open == each + 1) && open.iter().sum::<usize>() == 8 - pods
        };
        until(LONG, "it is divided", divided).await;
        let superusers = superusers(&cluster).await;
        let count = load.answered();
        until(LONG, "the load goes on", || load.answered() > count + 500).await;
        let mut counts = Vec::new();
        for superuser in &superusers {
            counts.push(sessions(superuser).await);
        }
        println!("{pods} Pods, at most 8 connections: {counts:?}");
        assert_eq!(counts.iter().sum::<i64>(), 8, "{counts:?}");
    }
    let report = load.stop().await;
    assert_eq!(report.failures, Vec::<String>::new());
    drop(pool);
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_pod_is_warmed_and_takes_its_share_at_once() {
    let cluster = Cluster::start(2).await.expect("a cluster");
    let pool = build(&cluster.url(), "&min_idle=3");
    until(LONG, "two Pods serve", || in_state(&pool, State::Healthy) == 2).await;
    let old = addresses(&pool);
    // Warmed, without any traffic.
    cluster.scale(3).await.expect("scaled");
    let new = *addresses_of(&cluster).difference(&old).next().expect("a new Pod");
    let of = |address: IpAddr| pool.status().endpoints.into_iter().find(|pod| pod.endpoint.address().ip() == address);
    until(LONG, "it is warm", || of(new).is_some_and(|pod| pod.state == State::Healthy && pod.idle == 3)).await;
    assert_eq!(of(new).expect("a Pod").picks, 0);

    // And under a load, which goes on: a fourth one.
    let load = Load::start(&pool, Target::Any, 12);
    until(LONG, "a load", || load.answered() > 2_000).await;
    let opened = pool.status().counters.closed;
    cluster.scale(4).await.expect("scaled");
    let newest = *addresses_of(&cluster).difference(&old).find(|address| **address != new).expect("a new Pod");
    until(LONG, "it serves", || of(newest).is_some_and(|pod| pod.state == State::Healthy)).await;
    let (began, count) = (Instant::now(), load.answered());
    until(LONG, "the load goes on", || load.answered() > count + 8_000).await;
    let ended = Instant::now();
    let closed = pool.status().counters.closed - opened;
    let report = load.stop().await;
    let shares = report.shares(began, ended);
    let total: usize = shares.values().sum();
    let share = shares[&newest.to_string()] as f64 * 4.0 / total as f64;
    println!(
        "from the moment it serves, of {total} answers in {:.1?}: {share:.2} of an equal share; {closed} connections closed",
        ended - began
    );
    // Not equal to the last hundredth: a Pod that answers faster than the others on a busy machine is given more.
    assert!((0.7..1.3).contains(&share), "{shares:?}");
    assert_eq!(closed, 0, "no old connection had to go for it");
    assert_eq!(report.failures, Vec::<String>::new());
    drop(pool);
    cluster.shutdown().await.expect("an orderly end");
}

fn addresses_of(cluster: &Cluster) -> BTreeSet<IpAddr> {
    cluster.pods().iter().map(|pod| pod.address().ip()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn arithmetic_that_cannot_fit_is_told_at_the_start() {
    let cluster = Cluster::builder().pods(2).setting("max_connections", "40").start().await.expect("a cluster");
    let superuser = cluster.client(0).await.expect("a superuser");
    // 37 slots. What a hundred clients of two connections each ask for does not fit the primary, were it theirs; a
    // subset of reads fits; one client of fifty connections fits nowhere.
    for (parameters, expected) in [
        ("&clients=4", None),
        ("&clients=20&pool_size=1&min_idle=0&subset_size=1", None),
        ("&clients=20&pool_size=1", Some("20 clients, all of which use the primary, open up to 40 connections to it")),
        ("&pool_size=50", Some("one client opens up to 51 connections, its probe's counted, and it has 37")),
    ] {
        let config: Config = format!("{}{parameters}", cluster.url()).parse().expect("a URL");
        let pods = config.limits().subset_size.unwrap_or(2);
        let pool = Pool::builder(config).build().expect("a pool");
        let mut events = pool.events();
        until(LONG, "they serve", || in_state(&pool, State::Healthy) == pods).await;
        assert!(pool.status().endpoints.iter().all(|pod| pod.slots == Some(37)), "{:?}", pool.status());
        drop(pool);
        let mut told = Vec::new();
        while let Some(Ok(event)) = events.next().await {
            if let Event::BudgetExceeded { cause, .. } = event {
                told.push(cause);
            }
        }
        println!("{parameters}: {told:?}");
        match expected {
            None => assert!(told.is_empty(), "{told:?}"),
            Some(text) => assert!(told.iter().any(|cause| cause.contains(text)), "{told:?}"),
        }
    }
    // A limit of the role's own counts as well.
    superuser.batch_execute("ALTER ROLE \"user\" CONNECTION LIMIT 7").await.expect("a limit");
    let pool = build(&cluster.pod_url(0), "?pool_size=2");
    until(LONG, "it serves", || in_state(&pool, State::Healthy) == 1).await;
    assert_eq!(pool.status().endpoints[0].slots, Some(7));
    drop(pool);
    cluster.shutdown().await.expect("an orderly end");
}
