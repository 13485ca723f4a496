//! Probes use idle pooled connections, so that probing costs the servers no sessions and the callers no time.

use std::time::{Duration, Instant};

use podpool::{
    Pool, State, Target,
    testkit::Cluster,
    tokio_postgres::{self, Client},
};
use tokio::time::sleep;

mod common;
use common::{in_state, init_logging, until};

const LONG: Duration = Duration::from_secs(20);

async fn healthy(cluster: &Cluster, parameters: &str) -> Pool {
    let url = format!("{}&application_name=web{parameters}", cluster.url());
    let pool = Pool::builder(url.parse().expect("the URL parses")).build().expect("the pool is created");
    until(LONG, "all Pods are healthy", || in_state(&pool, State::Healthy) == cluster.len()).await;
    pool
}

/// Counts the sessions with this `application_name`.
async fn sessions(superuser: &Client, name: &str) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
    superuser.query_one(sql, &[&name]).await.expect("the query returns a row").get(0)
}

async fn superusers(cluster: &Cluster) -> Vec<tokio_postgres::Client> {
    let mut clients = Vec::new();
    for ordinal in 0..cluster.len() {
        clients.push(cluster.client(ordinal).await.expect("the superuser connects"));
    }
    clients
}

/// Waits until no connection exists that only probes use.
async fn until_no_probe_session(superuser: &Client) {
    let deadline = Instant::now() + LONG;
    while sessions(superuser, "web/probe").await > 0 {
        assert!(Instant::now() < deadline, "the connection that only probes use was not closed");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_open_no_session_while_pooled_connections_are_idle() {
    init_logging();
    let cluster = Cluster::start(3).await.expect("the cluster starts");
    let pool = healthy(&cluster, "&probe_interval=100ms&min_idle=1").await;
    let superusers = superusers(&cluster).await;
    for superuser in &superusers {
        until_no_probe_session(superuser).await;
    }
    until(LONG, "one idle connection per Pod", || pool.status().endpoints.iter().all(|pod| pod.idle == 1)).await;
    let before = pool.status().counters;
    // The probes are seen in `pg_stat_activity`, because they are the last statements of the pooled sessions.
    let last = "SELECT max(query_start) FROM pg_stat_activity \
                WHERE application_name = 'web' AND query LIKE '%pg_is_in_recovery%'";
    let mut probes = 0;
    let mut starts = vec![None; superusers.len()];
    let end = Instant::now() + Duration::from_secs(3);
    while Instant::now() < end {
        for (superuser, start) in superusers.iter().zip(&mut starts) {
            let found = (sessions(superuser, "web").await, sessions(superuser, "web/probe").await);
            assert_eq!(found, (1, 0), "pooled sessions, probe sessions");
            let row = superuser.query_one(last, &[]).await.expect("the query returns a row");
            let started: Option<std::time::SystemTime> = row.get(0);
            probes += usize::from(started > *start);
            *start = started;
        }
        let status = pool.status();
        assert!(status.endpoints.iter().all(|pod| (pod.open, pod.idle, pod.in_use) == (1, 1, 0)), "{status:?}");
        sleep(Duration::from_millis(20)).await;
    }
    let after = pool.status().counters;
    println!("{probes} probes seen in 3 s on 3 Pods, no probe session; {} connections opened", after.opened);
    assert!(probes > 30, "{probes} probes");
    assert_eq!((after.opened, after.closed), (before.opened, before.closed), "connections were opened or closed");
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_delays_no_checkout() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    for idle in [1, 2] {
        // Every probe of the Pod is due when the previous one has ended.
        let pool = healthy(&cluster, &format!("&probe_interval=10ms&pool_size=4&min_idle={idle}")).await;
        until(LONG, "the connections are idle", || pool.status().endpoints[0].idle >= idle).await;
        until_no_probe_session(&cluster.client(0).await.expect("the superuser connects")).await;
        let before = pool.status().counters;
        let (mut slowest, mut checkouts) = (Duration::ZERO, 0);
        let end = Instant::now() + Duration::from_secs(3);
        while Instant::now() < end {
            let began = Instant::now();
            let client = pool.get_for(Target::Any).await.expect("checkout succeeds");
            slowest = slowest.max(began.elapsed());
            checkouts += 1;
            client.simple_query("SELECT 1").await.expect("the query succeeds");
            drop(client);
            sleep(Duration::from_micros(300)).await;
        }
        let after = pool.status().counters;
        let (waits, opened) = (after.waits - before.waits, after.opened - before.opened);
        println!("min_idle={idle}: {checkouts} checkouts, slowest {slowest:?}, {waits} waits, {opened} opened");
        // With one idle connection, a caller may wait for the rest of a probe.
        assert!(slowest < Duration::from_millis(200), "{slowest:?}");
        // In rare cases, a caller waits because the driver of a returned connection has not yet finished.
        assert!(idle == 1 || waits * 50 <= checkouts, "{waits} of {checkouts} callers waited");
        drop(pool);
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_probe_session_exists_only_while_no_pooled_connection_is_idle() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let pool = healthy(&cluster, "&probe_interval=200ms&pool_size=1").await;
    let superuser = cluster.client(0).await.expect("the superuser connects");
    until_no_probe_session(&superuser).await;

    // While statements are answered, the probes wait until the connection is idle for a moment, or for one more probe
    // interval.
    let held = pool.get().await.expect("checkout succeeds");
    let deadline = Instant::now() + LONG;
    while sessions(&superuser, "web/probe").await == 0 {
        assert!(Instant::now() < deadline, "no probe while all connections are in use");
        held.simple_query("SELECT 1").await.expect("the query succeeds");
    }
    drop(held);
    until_no_probe_session(&superuser).await;
    assert_eq!(sessions(&superuser, "web").await, 1);
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_settings_of_callers_do_not_fail_probes() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let pool = healthy(&cluster, "&probe_interval=50ms&pool_size=1&reset=none").await;
    let superuser = cluster.client(0).await.expect("the superuser connects");
    until_no_probe_session(&superuser).await;
    let client = pool.get().await.expect("checkout succeeds");
    client.batch_execute("SET lock_timeout = '1h'; SET statement_timeout = '1ms'").await.expect("the setting is valid");
    drop(client);
    let mut events = pool.events();
    sleep(Duration::from_secs(2)).await;
    let client = pool.get().await.expect("checkout succeeds");
    let row = client.query_one("SHOW statement_timeout", &[]).await.expect("the query succeeds");
    assert_eq!(row.get::<_, String>(0), "1ms", "the connection was kept");
    drop(client);
    assert_eq!(in_state(&pool, State::Healthy), 1);
    pool.close().await;
    while let Some(event) = events.next().await {
        let event = event.expect("no event is missed");
        assert!(!matches!(event, podpool::Event::StateChanged { to: "ejected", .. }), "{event}");
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}
