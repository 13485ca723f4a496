//! Tests connections that belong to the application: `Pool::connect_owned` and `Client::raw_mut`.

use std::time::{Duration, Instant};

use podpool::{Checkout, Kind, OwnedConnection, Phase, Pool, State, Target, testkit::Cluster, tokio_postgres::Client};
use tokio::time::timeout;

mod common;
use common::{
    in_state,
    one_pod::{Calls, SOON, TIMEOUTS, builder, settled},
    until,
};

async fn cluster(pods: usize) -> Cluster {
    Cluster::start(pods).await.expect("the cluster starts")
}

fn pool_to_one(cluster: &Cluster, parameters: &str) -> Pool {
    builder(cluster, parameters).build().expect("the pool is created")
}

async fn owned(pool: &Pool, checkout: impl Into<Checkout>) -> OwnedConnection {
    pool.connect_owned(checkout).await.expect("the connection is opened")
}

async fn pid(client: &Client) -> i32 {
    client.query_typed("SELECT pg_backend_pid()", &[]).await.expect("the query succeeds")[0].get(0)
}

/// Returns the open and the owned connections of all Pods.
fn counts(pool: &Pool) -> (usize, usize) {
    let endpoints = pool.status().endpoints;
    (endpoints.iter().map(|pod| pod.open).sum(), endpoints.iter().map(|pod| pod.owned).sum())
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
    let runs = async {
        while admin.query_one(sleeping, &[]).await.expect("the query succeeds").get::<_, i64>(0) == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, runs).await.expect("the statement runs");
    cancel_token.cancel().await.expect("the server accepts the request");
    let (result, client) = timeout(SOON, statement).await.expect("the statement ends").expect("no panic");
    let error = result.expect_err("the statement was cancelled");
    assert_eq!(error.code().map(|code| code.code()), Some("57014"));
    assert!(pid(&client).await > 0, "the connection is still usable");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hook_sets_up_an_owned_connection_and_a_cancelled_call_leaves_counts_exact() {
    let cluster = cluster(1).await;
    let calls = Calls::default();
    let pool = builder(&cluster, &format!("pool_size=2&{TIMEOUTS}"))
        .after_connect({
            let calls = calls.clone();
            move |client| {
                let call = calls.next();
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
    assert_eq!((calls.count(), counts(&pool)), (1, (1, 0)));
    let cancelled = tokio::spawn({
        let pool = pool.clone();
        async move { pool.connect_owned(Target::Any).await.map(drop) }
    });
    until(SOON, "the hook runs", || calls.count() == 2).await;
    cancelled.abort();
    assert!(cancelled.await.is_err_and(|error| error.is_cancelled()), "the call is cancelled during the hook");
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
    let calls = Calls::default();
    let pool = builder(&cluster, "pool_size=2&connect_timeout=20s&acquire_timeout=1s")
        .after_connect(move |_| {
            let is_first = calls.next() == 0;
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
        if is_at(&connection, &cluster, 1) {
            connections.push(connection);
        }
    }
    let any = loop {
        let connection = owned(&pool, Target::Any).await;
        if is_at(&connection, &cluster, 1) {
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

/// Returns true if the connection leads to this Pod of the cluster.
fn is_at(connection: &OwnedConnection, cluster: &Cluster, pod: usize) -> bool {
    connection.endpoint.address().tcp() == Some(cluster.pod(pod).address())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_of_the_call_limits_the_wait_for_handshakes_and_the_dial() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, &format!("handshakes=1&probe_interval=60s&probe_timeout=60s&{TIMEOUTS}"));
    pool.wait_ready(Target::Any, SOON).await.expect("the Pod becomes ready");
    cluster.pause(0).await.expect("SIGSTOP is sent");
    let (limit, slack) = (Duration::from_millis(300), Duration::from_millis(500));
    let quick = Checkout::new(Target::Any).deadline(limit);
    for _ in 0..2 {
        let began = Instant::now();
        let error = pool.connect_owned(quick).await.expect_err("the server does not respond");
        println!("{:?}: {error}", began.elapsed());
        assert!((limit..limit + slack).contains(&began.elapsed()), "{:?}", began.elapsed());
        assert_eq!((error.kind(), error.attempts().len()), (Kind::Connect, 1), "{error}");
        assert_eq!(error.attempts()[0].phase(), Phase::Startup, "{error}");
    }
    // The deadline has aborted the handshakes. This one continues.
    let dialling = tokio::spawn({
        let pool = pool.clone();
        async move { pool.connect_owned(Target::Any).await }
    });
    let error = loop {
        let began = Instant::now();
        let error = pool.connect_owned(quick).await.expect_err("the server does not respond");
        println!("{:?}: {error}", began.elapsed());
        assert!((limit..limit + slack).contains(&began.elapsed()), "{:?}", began.elapsed());
        // The task may not have begun its handshake yet.
        if error.kind() != Kind::Connect {
            break error;
        }
    };
    assert_eq!((error.kind(), error.attempts().len()), (Kind::PoolTimeout, 1), "{error}");
    assert_eq!(error.attempts()[0].phase(), Phase::Wait, "{error}");
    cluster.resume(0).await.expect("SIGCONT is sent");
    let connection = dialling.await.expect("no panic").expect("the connection is opened");
    assert!(pid(&connection.client).await > 0);
    assert_eq!(pool.status().counters.open_failed, 0, "an aborted dial is no failure of the Pod");
    drop(connection);
    settled(&pool).await;
}

/// Pauses or resumes the replay of Pod 1, and writes on Pod 0.
async fn set_replay(cluster: &Cluster, call: &str) {
    let standby = cluster.client(1).await.expect("the superuser connects");
    standby.batch_execute(&format!("SELECT {call}()")).await.expect("replay is paused or resumed");
    let primary = cluster.client(0).await.expect("the superuser connects");
    let write = "CREATE TABLE IF NOT EXISTS t (x int); INSERT INTO t VALUES (1)";
    primary.batch_execute(write).await.expect("the write succeeds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_primary_replaces_lagging_standbys_if_it_may() {
    let cluster = cluster(2).await;
    let url = format!("{}&max_lag=500ms&probe_interval=200ms&lag_fallback=primary&{TIMEOUTS}", cluster.url());
    let pool = Pool::connect(&url).await.expect("the pool is created");
    until(SOON, "all Pods serve", || in_state(&pool, State::Healthy) == 2).await;
    let standby = owned(&pool, Target::Standby).await;
    assert!(is_at(&standby, &cluster, 1));
    set_replay(&cluster, "pg_wal_replay_pause").await;
    closes(&standby.client, SOON).await;
    let replacement = owned(&pool, Target::Standby).await;
    assert!(is_at(&replacement, &cluster, 0), "the primary replaces the standby");
    let recovery = "SELECT pg_is_in_recovery()";
    let row = &replacement.client.query_typed(recovery, &[]).await.expect("the connection stays open")[0];
    assert!(!row.get::<_, bool>(0));
    set_replay(&cluster, "pg_wal_replay_resume").await;
    closes(&replacement.client, SOON).await;
    let standby = owned(&pool, Target::Standby).await;
    assert!(is_at(&standby, &cluster, 1), "the standby has caught up");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lag_limit_of_the_call_chooses_the_pod() {
    let cluster = cluster(2).await;
    let pool = Pool::connect(&format!("{}&{TIMEOUTS}", cluster.url())).await.expect("the pool is created");
    until(SOON, "all Pods serve", || in_state(&pool, State::Healthy) == 2).await;
    for target in [Target::Any, Target::PreferStandby] {
        for _ in 0..4 {
            let connection = owned(&pool, Checkout::new(target).max_lag(Duration::ZERO)).await;
            assert!(is_at(&connection, &cluster, 0), "only the primary is current");
        }
    }
    let current = Checkout::new(Target::Standby).max_lag(Duration::from_secs(10));
    assert!(is_at(&owned(&pool, current).await, &cluster, 1));
    set_replay(&cluster, "pg_wal_replay_pause").await;
    let began = Instant::now();
    let limit = Duration::from_secs(3);
    let late = Checkout::new(Target::Standby).max_lag(Duration::from_secs(1)).deadline(limit);
    let error = loop {
        match pool.connect_owned(late).await {
            Ok(connection) => assert!(is_at(&connection, &cluster, 1) && began.elapsed() < SOON),
            Err(error) => break error,
        }
    };
    println!("{error}");
    assert_eq!(error.kind(), Kind::NoEndpoints, "{error}");
    let waiting = tokio::spawn({
        let pool = pool.clone();
        async move { pool.connect_owned(late.deadline(SOON)).await }
    });
    set_replay(&cluster, "pg_wal_replay_resume").await;
    let connection = waiting.await.expect("no panic").expect("the standby catches up");
    assert!(is_at(&connection, &cluster, 1));
}
