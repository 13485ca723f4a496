use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use podpool::{Kind, Pool, State, Target};
use tokio::{task::JoinSet, time::sleep};

use super::{
    cluster,
    common::{
        distance::Distance,
        in_state,
        one_pod::{Calls, SOON, TIMEOUTS, builder, settled},
        until,
    },
    one, pid, pool_to_one, running, sessions, superuser,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_pod_gets_one_shared_connection() {
    let cluster = cluster(3).await;
    cluster.wait_replicated().await.expect("the standbys follow");
    let url = format!("{}&min_idle=0&shared_slow=60s&{TIMEOUTS}", cluster.url());
    let pool = Pool::builder(url.parse().expect("the URL parses")).build().expect("the pool is created");
    let mut pids = BTreeSet::new();
    until(SOON, "all Pods are healthy", || in_state(&pool, State::Healthy) == 3).await;
    let began = std::time::Instant::now();
    while pids.len() < 3 {
        assert!(began.elapsed() < SOON, "{pids:?}");
        let address: String = one(&pool, "SELECT host(inet_server_addr())", &[]).await;
        pids.insert(address);
    }
    let standby = pool.shared(Target::Standby).query_one("SELECT pg_is_in_recovery()", &[]).await;
    assert!(standby.expect("the query succeeds").get::<_, bool>(0));
    let insert = "WITH t AS (SELECT 1) SELECT pg_current_wal_lsn()::text FROM t";
    assert!(pool.shared(Target::Primary).query_one(insert, &[]).await.is_ok());
    assert!(pool.status().endpoints.iter().all(|pod| (pod.shared, pod.in_use) == (1, 0)));
}

/// Runs statements of 200 callers for two seconds. Returns their number, and the largest number of shared connections.
async fn load(pool: &Pool) -> (usize, usize) {
    let mut callers = JoinSet::new();
    let began = Instant::now();
    for _ in 0..200 {
        let pool = pool.clone();
        callers.spawn(async move {
            let mut statements = 0;
            while began.elapsed() < Duration::from_secs(2) {
                assert_eq!(one::<i32>(&pool, "SELECT 7", &[]).await, 7);
                statements += 1;
            }
            statements
        });
    }
    let mut most = 0;
    while began.elapsed() < Duration::from_secs(2) {
        most = most.max(pool.status().endpoints[0].shared);
        sleep(Duration::from_millis(10)).await;
    }
    (callers.join_all().await.iter().sum(), most)
}

/// With a long round trip, the number of statements in flight limits the rate, so further connections are opened. With
/// a local server they would not help.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn further_connections_are_opened_only_if_the_round_trip_limits_the_rate() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, "&shared_depth=16").await;
    let (statements, most) = load(&pool).await;
    println!("without a delay: {statements} statements, {most} connections");
    assert_eq!(most, 1);
    let pod = cluster.pod(0).address();
    let distant = Distance::start(pod, Duration::from_millis(20));
    let url = cluster.pod_url(0).replace(&pod.to_string(), &distant.address().to_string());
    let parameters = format!("min_idle=0&sslmode=disable&shared_depth=16&{TIMEOUTS}");
    let pool = Pool::connect(&format!("{url}?{parameters}")).await.expect("the pool is created");
    one::<i32>(&pool, "SELECT 7", &[]).await;
    let (statements, most) = load(&pool).await;
    println!("with 20 ms: {statements} statements, {most} connections");
    // Half of `pool_size`.
    assert_eq!(most, 4);
    assert!(statements > 2 * 16 * 100, "one connection executes 1,600 statements in two seconds");
    until(SOON, "the further connections are closed", || pool.status().endpoints[0].shared == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_session_has_changed_is_replaced() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, "").await;
    let before = pid(&pool).await;
    let original: String = one(&pool, "SHOW TimeZone", &[]).await;
    assert_eq!(one::<String>(&pool, "SELECT set_config('TimeZone', 'Asia/Tokyo', true)", &[]).await, "Asia/Tokyo");
    assert_eq!(pid(&pool).await, before, "a change of the transaction only");
    one::<String>(&pool, "SELECT set_config('TimeZone', 'Asia/Tokyo', false)", &[]).await;
    assert_eq!(one::<String>(&pool, "SHOW TimeZone", &[]).await, original);
    let after = pid(&pool).await;
    assert_ne!(after, before);
    one::<String>(&pool, "SELECT pg_advisory_lock(7)::text", &[]).await;
    assert_ne!(pid(&pool).await, after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_that_was_lost_is_replaced() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, "").await;
    for _ in 0..5 {
        let before = pid(&pool).await;
        let terminated =
            superuser(&cluster).await.query_one("SELECT pg_terminate_backend($1, 10000)", &[&before]).await;
        assert!(terminated.expect("the query succeeds").get::<_, bool>(0));
        assert_ne!(pid(&pool).await, before);
    }
    settled(&pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_are_replaced_at_the_end_of_their_lifetime_without_an_error() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, "&max_lifetime=1s").await;
    let mut pids = BTreeSet::new();
    let began = std::time::Instant::now();
    while pids.len() < 3 {
        assert!(began.elapsed() < SOON, "{pids:?}");
        pids.insert(pid(&pool).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hook_sets_up_each_shared_connection_once() {
    let cluster = cluster(1).await;
    let calls = Calls::default();
    let pool = builder(&cluster, &format!("min_idle=0&{TIMEOUTS}"))
        .after_connect({
            let calls = calls.clone();
            move |client| {
                let call = calls.next();
                Box::pin(async move {
                    let statement = if call == 0 { "BEGIN" } else { "SET TimeZone = 'Asia/Tokyo'" };
                    Ok(client.batch_execute(statement).await?)
                })
            }
        })
        .build()
        .expect("the pool is created");
    // The connection on which the hook leaves a transaction open is not used.
    for _ in 0..3 {
        assert_eq!(one::<String>(&pool, "SHOW TimeZone", &[]).await, "Asia/Tokyo");
    }
    assert!(calls.count() >= 2);
    assert_eq!(pool.status().endpoints[0].shared, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closing_the_pool_waits_for_statements_in_flight() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, "").await;
    let text = "SELECT pg_sleep(1)::text || 'slept'";
    let slow = tokio::spawn({
        let pool = pool.clone();
        async move { one::<String>(&pool, text, &[]).await }
    });
    running(&cluster, text, 1).await;
    assert_eq!(pool.close().await, 0, "no connection was closed forcibly");
    assert_eq!(slow.await.expect("the caller does not panic"), "slept");
    let error = pool.shared(Target::Any).query("SELECT 1", &[]).await.expect_err("the pool is closed");
    assert_eq!(error.kind(), Kind::Shutdown, "{error}");
    let closed = Instant::now();
    while !sessions(&cluster).await.is_empty() {
        assert!(closed.elapsed() < SOON, "a session is still open");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_pool_closes_its_shared_connections() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, "").await;
    assert!(pid(&pool).await > 0);
    drop(pool);
    let began = std::time::Instant::now();
    while !sessions(&cluster).await.is_empty() {
        assert!(began.elapsed() < SOON);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_of_get_and_of_shared_use_one_limit() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, "&pool_size=2").await;
    let held = pool.get().await.expect("checkout succeeds");
    assert!(pid(&pool).await > 0);
    let status = pool.status();
    assert_eq!((status.endpoints[0].open, status.endpoints[0].in_use, status.endpoints[0].shared), (2, 1, 1));
    drop(held);
    settled(&pool).await;
}
