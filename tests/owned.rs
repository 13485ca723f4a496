//! Tests connections that belong to the application: `Pool::connect_owned` and `Client::raw_mut`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use podpool::{Config, Kind, OwnedConnection, Phase, Pool, State, Target, testkit::Cluster, tokio_postgres::Client};
use tokio::time::timeout;

mod common;
use common::{in_state, until};

const SOON: Duration = Duration::from_secs(20);

/// Long timeouts, because a slow machine must not fail the tests.
const TIMEOUTS: &str = "connect_timeout=20s&acquire_timeout=60s";

async fn cluster(pods: usize) -> Cluster {
    Cluster::start(pods).await.expect("the cluster starts")
}

fn pool_to_one(cluster: &Cluster, parameters: &str) -> Pool {
    let config: Config = format!("{}?{parameters}", cluster.pod_url(0)).parse().expect("the URL parses");
    Pool::builder(config).build().expect("the pool is created")
}

async fn owned(pool: &Pool, target: Target) -> OwnedConnection {
    pool.connect_owned(target).await.expect("the connection is opened")
}

async fn pid(client: &Client) -> i32 {
    client.query_typed("SELECT pg_backend_pid()", &[]).await.expect("the query succeeds")[0].get(0)
}

/// Returns the open and the owned connections of all Pods.
fn counts(pool: &Pool) -> (usize, usize) {
    let endpoints = pool.status().endpoints;
    (endpoints.iter().map(|pod| pod.open).sum(), endpoints.iter().map(|pod| pod.owned).sum())
}

/// Waits until no connection is in use or owned, and checks that every closed connection is counted.
async fn settled(pool: &Pool) {
    until(SOON, "no connection in use", || pool.status().endpoints.iter().all(|pod| pod.in_use + pod.owned == 0)).await;
    until(SOON, "opened minus closed connections are open", || {
        let counters = pool.status().counters;
        counters.opened - counters.closed == counts(pool).0 as u64
    })
    .await;
}

async fn closes(client: &Client, within: Duration) -> Duration {
    let began = Instant::now();
    until(within, "the connection is closed", || client.is_closed()).await;
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owned_connection_counts_until_its_client_is_dropped() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, &format!("pool_size=2&max_connections=3&{TIMEOUTS}"));
    pool.wait_ready(Target::Any, SOON).await.expect("the Pod becomes ready");
    let first = owned(&pool, Target::Primary).await;
    assert_eq!(first.endpoint.address().tcp(), Some(cluster.pod(0).address()));
    // The second one replaces the idle pooled connection.
    let second = owned(&pool, Target::Primary).await;
    assert_ne!(pid(&first.client).await, pid(&second.client).await);
    assert_eq!(counts(&pool), (2, 2));
    let waiting = timeout(Duration::from_millis(300), pool.get()).await;
    assert!(waiting.is_err(), "no further connection is allowed");
    let OwnedConnection { client, cancel_token, .. } = first;
    drop(cancel_token);
    drop(client);
    let pooled = timeout(SOON, pool.get()).await.expect("the permit is released").expect("checkout succeeds");
    // A caller of `connect_owned` waits for the pooled connection like one of `get`.
    let third = tokio::spawn({
        let pool = pool.clone();
        async move { pool.connect_owned(Target::Any).await }
    });
    until(SOON, "the caller waits", || pool.status().endpoints[0].waiting == 1).await;
    drop(pooled);
    let third = third.await.expect("the task does not panic").expect("the connection is opened");
    assert_eq!(counts(&pool), (2, 2));
    drop((second, third));
    settled(&pool).await;
    drop(pool.get().await.expect("checkout succeeds"));
    settled(&pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cancel_token_of_the_pool_cancels_a_statement() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, TIMEOUTS);
    let OwnedConnection { client, cancel_token, .. } = owned(&pool, Target::Any).await;
    let statement = tokio::spawn(async move { (client.batch_execute("SELECT pg_sleep(60)").await, client) });
    let admin = cluster.client(0).await.expect("the superuser connects");
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'";
    while admin.query_one(sleeping, &[]).await.expect("the query succeeds").get::<_, i64>(0) == 0 {
        tokio::task::yield_now().await;
    }
    cancel_token.cancel().await.expect("the server accepts the request");
    let (result, client) = timeout(SOON, statement).await.expect("the statement ends").expect("no panic");
    let error = result.expect_err("the statement was cancelled");
    assert_eq!(error.code().map(|code| code.code()), Some("57014"));
    assert!(pid(&client).await > 0, "the connection is still usable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hook_sets_up_an_owned_connection_and_a_cancelled_call_leaves_counts_exact() {
    let cluster = cluster(1).await;
    let calls = Arc::new(AtomicU64::new(0));
    let config: Config = format!("{}?pool_size=2&{TIMEOUTS}", cluster.pod_url(0)).parse().expect("the URL parses");
    let pool = Pool::builder(config)
        .after_connect({
            let calls = calls.clone();
            move |client| {
                let call = calls.fetch_add(1, Ordering::SeqCst);
                Box::pin(async move {
                    match call {
                        1 => client.batch_execute("SELECT pg_sleep(60)").await?,
                        2 => client.batch_execute("SELECT 1/0").await?,
                        _ => client.batch_execute("SET TimeZone = 'Asia/Tokyo'").await?,
                    }
                    client.prepare_cached("SELECT 1").await?;
                    Ok(())
                })
            }
        })
        .hook_timeout(Duration::from_secs(60))
        .build()
        .expect("the pool is created");
    drop(pool.get().await.expect("checkout succeeds"));
    settled(&pool).await;
    assert_eq!((calls.load(Ordering::SeqCst), counts(&pool)), (1, (1, 0)));
    let cancelled = timeout(Duration::from_millis(500), pool.connect_owned(Target::Any)).await;
    assert!(cancelled.is_err() && calls.load(Ordering::SeqCst) == 2, "the call is cancelled during the hook");
    settled(&pool).await;
    assert_eq!(counts(&pool), (1, 0));
    // The hook fails once more. The call waits for the backoff and dials again.
    let connection = owned(&pool, Target::Any).await;
    let rows = connection.client.query_typed("SHOW TimeZone", &[]).await.expect("the query succeeds");
    assert_eq!(rows[0].get::<_, String>(0), "Asia/Tokyo");
    let counters = pool.status().counters;
    assert_eq!((counters.opened, counters.open_failed, counters.closed), (2, 1, 0), "{counters:?}");
    drop(connection);
    settled(&pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_name_the_pod_and_the_phase() {
    let cluster = cluster(1).await;
    let config: Config = format!("{}?pool_size=2&connect_timeout=20s&acquire_timeout=1s", cluster.pod_url(0))
        .parse()
        .expect("the URL parses");
    let calls = Arc::new(AtomicU64::new(0));
    let pool = Pool::builder(config)
        .after_connect(move |_| {
            let is_first = calls.fetch_add(1, Ordering::SeqCst) == 0;
            Box::pin(async move { if is_first { Ok(()) } else { Err("no setup".into()) } })
        })
        .build()
        .expect("the pool is created");
    pool.wait_ready(Target::Any, SOON).await.expect("the Pod becomes ready");
    let error = pool.connect_owned(Target::Any).await.expect_err("the hook fails");
    println!("{error}");
    assert_eq!(error.kind(), Kind::Connect, "{error}");
    let attempts = error.attempts();
    assert!((1..=9).contains(&attempts.len()), "{error}");
    assert!(attempts.iter().all(|attempt| attempt.phase() == Phase::AfterConnect), "{error}");
    assert!(attempts.iter().all(|attempt| attempt.address().tcp() == Some(cluster.pod(0).address())), "{error}");
    assert_eq!(attempts[0].cause().map(ToString::to_string).as_deref(), Some("no setup"));
    settled(&pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ejected_pod_keeps_no_owned_connection_even_if_its_server_is_frozen() {
    let cluster = cluster(2).await;
    let pool = Pool::connect(&format!("{}&{TIMEOUTS}", cluster.url())).await.expect("the pool is created");
    until(SOON, "all Pods serve", || in_state(&pool, State::Healthy) == 2).await;
    let OwnedConnection { client, endpoint, .. } = owned(&pool, Target::Primary).await;
    assert_eq!(endpoint.address().tcp(), Some(cluster.pod(0).address()));
    cluster.pause(0).await.expect("SIGSTOP is sent");
    until(SOON, "the primary is ejected", || in_state(&pool, State::Ejected) == 1).await;
    println!("closed {:?} after the ejection", closes(&client, Duration::from_secs(2)).await);
    cluster.promote(1).await.expect("the standby is promoted");
    let promoted = Instant::now();
    let next = owned(&pool, Target::Primary).await;
    next.client.batch_execute("CREATE TABLE t (x int)").await.expect("the new primary accepts a write");
    println!("wrote {:?} after the promotion", promoted.elapsed());
    assert_eq!(next.endpoint.address().tcp(), Some(cluster.pod(1).address()));
    drop((client, next));
    settled(&pool).await;
    cluster.resume(0).await.expect("SIGCONT is sent");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_no_longer_serves_the_target_closes_owned_connections_between_transactions() {
    let cluster = cluster(3).await;
    let pool = Pool::connect(&format!("{}&{TIMEOUTS}", cluster.url())).await.expect("the pool is created");
    until(SOON, "all Pods serve", || in_state(&pool, State::Healthy) == 3).await;
    let mut connections = Vec::new();
    // Until three connections lead to the Pod that will be promoted.
    while connections.len() < 3 {
        let connection = owned(&pool, Target::Standby).await;
        if connection.endpoint.address().tcp() == Some(cluster.pod(1).address()) {
            connections.push(connection);
        }
    }
    let any = loop {
        let connection = owned(&pool, Target::Any).await;
        if connection.endpoint.address().tcp() == Some(cluster.pod(1).address()) {
            break connection;
        }
    };
    let [idle, mut busy, sleeping] = connections.try_into().expect("three connections");
    let transaction = busy.client.transaction().await.expect("BEGIN succeeds");
    let statement =
        tokio::spawn(async move { (sleeping.client.batch_execute("SELECT pg_sleep(3)").await, sleeping.client) });
    cluster.kill(0).await.expect("the primary is killed");
    cluster.promote(1).await.expect("the standby is promoted");
    drop(pool.primary().await.expect("the pool finds the new primary"));
    println!("idle: closed {:?} after the promotion is known", closes(&idle.client, SOON).await);
    transaction.batch_execute("SELECT 1").await.expect("an open transaction can end");
    transaction.commit().await.expect("COMMIT succeeds");
    closes(&busy.client, SOON).await;
    let (result, client) = statement.await.expect("no panic");
    result.expect("a statement in flight can end");
    closes(&client, SOON).await;
    assert!(pid(&any.client).await > 0, "the target `any` accepts every role");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_the_pool_closes_owned_connections() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, &format!("close_timeout=1s&{TIMEOUTS}"));
    let (idle, mut busy) = (owned(&pool, Target::Any).await, owned(&pool, Target::Any).await);
    let transaction = busy.client.transaction().await.expect("BEGIN succeeds");
    let closing = tokio::spawn({
        let pool = pool.clone();
        async move { pool.close().await }
    });
    closes(&idle.client, SOON).await;
    assert!(!transaction.client().is_closed(), "an open transaction has until `close_timeout`");
    assert_eq!(closing.await.expect("no panic"), 1, "one connection was closed while it was in use");
    closes(transaction.client(), SOON).await;
    drop(transaction);
    let error = pool.connect_owned(Target::Any).await.expect_err("the pool is closed");
    assert_eq!(error.kind(), Kind::Shutdown, "{error}");

    let pool = pool_to_one(&cluster, TIMEOUTS);
    let idle = owned(&pool, Target::Any).await;
    drop(pool);
    closes(&idle.client, SOON).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_client_was_exposed_is_closed_when_it_is_returned() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, &format!("pool_size=2&{TIMEOUTS}"));
    let mut clients = [pool.get().await.expect("checkout succeeds"), pool.get().await.expect("checkout succeeds")];
    let pids = [pid(&clients[0]).await, pid(&clients[1]).await];
    let [first, second] = &mut clients;
    std::mem::swap(first.raw_mut(), second.raw_mut());
    assert_eq!([pid(&clients[1]).await, pid(&clients[0]).await], pids, "the clients are swapped");
    drop(clients);
    settled(&pool).await;
    let admin = cluster.client(0).await.expect("the superuser connects");
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1)";
    let ended = async {
        while admin.query_one(sessions, &[&&pids[..]]).await.expect("the query succeeds").get::<_, i64>(0) > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, ended).await.expect("both sessions end");
    // The client outlives its guard.
    let (mut kept, mut given) = (owned(&pool, Target::Any).await, pool.get().await.expect("checkout succeeds"));
    std::mem::swap(&mut kept.client, given.raw_mut());
    drop(given);
    closes(&kept.client, SOON).await;
    drop(kept);
    settled(&pool).await;
    let counters = pool.status().counters;
    println!("{counters:?}");
    for _ in 0..3 {
        assert!(pid(&pool.get().await.expect("checkout succeeds")).await > 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failed_work_on_an_exposed_client_is_never_unapplied() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, TIMEOUTS);
    let mut client = pool.primary().await.expect("checkout succeeds");
    let error = client.raw_mut().batch_execute("SELECT 1/0").await.expect_err("the statement fails");
    assert_eq!(client.classify_work(&error).await.applied, podpool::Applied::Unknown);
}
