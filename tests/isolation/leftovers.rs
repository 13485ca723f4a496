//! Tests that open transactions, running statements and dropped futures do not affect the next caller, and that
//! abandoned statements are cancelled on the server.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use podpool::{Client, Config, Pool, testkit::Cluster, tokio_postgres::SimpleQueryMessage};

use crate::common::until;

/// Returns a pool with a single connection, so that every caller gets the same one.
async fn one_connection(cluster: &Cluster) -> Pool {
    let config: Config = format!("{}&pool_size=1", cluster.url()).parse().expect("the URL parses");
    let pool = Pool::builder(config).build().expect("the pool is created");
    drop(pool.get().await.expect("checkout succeeds"));
    pool
}

/// Polls a future once and drops it. On a busy machine the response may arrive before the drop.
fn poll_once(future: impl Future) {
    let mut cx = Context::from_waker(Waker::noop());
    let _ = pin!(future).as_mut().poll(&mut cx);
}

/// Returns two values: true if the session is not in a transaction, and the duration of the statement that checks this.
async fn is_clean(client: &Client) -> (bool, Duration) {
    let began = Instant::now();
    // `now()` is the start time of the transaction. Outside a transaction block, that is the start of the statement.
    let sql = "SELECT pg_current_xact_id_if_assigned() IS NULL AND now() = statement_timestamp()";
    let messages = client.simple_query(sql).await.expect("the query succeeds");
    let clean =
        messages.iter().any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("t")));
    (clean, began.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_and_statements_do_not_leak_to_the_next_caller() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let pool = one_connection(&cluster).await;
    for round in 0..120 {
        let mut client = pool.get().await.expect("checkout succeeds");
        match round % 8 {
            0 => client.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.expect("the transaction begins"),
            1 => drop(client.batch_execute("BEGIN; SELECT 1/0").await),
            2 => poll_once(client.batch_execute("BEGIN; SELECT pg_current_xact_id()")),
            3 => poll_once(client.query_one("SELECT pg_sleep(0.01)", &[])),
            4 => {
                let transaction = client.transaction().await.expect("the transaction begins");
                transaction.execute("SELECT pg_current_xact_id()", &[]).await.expect("the query succeeds");
            }
            5 => drop(client.query_one("SELECT 1/0", &[]).await),
            6 => {
                let query = client.query_one("SELECT pg_sleep(30)", &[]);
                drop(tokio::time::timeout(Duration::from_millis(5), query).await);
            }
            _ => drop(client.query_one("SELECT 1", &[]).await),
        }
        drop(client);
        let client = pool.get().await.expect("checkout succeeds");
        let (clean, took) = is_clean(&client).await;
        assert!(clean, "round {round}: the next caller is in a transaction of an earlier caller");
        assert!(took < Duration::from_millis(500), "round {round}: the first statement took {took:?}");
    }
    let counters = pool.status().counters;
    println!("120 rounds: {counters:?}");
    assert!(counters.recycled >= 60, "too few connections were recycled: {counters:?}");
    assert!(counters.opened < 20, "connections were closed instead of recycled: {counters:?}");
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "current_thread")]
async fn a_clean_connection_is_idle_as_soon_as_it_is_returned() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let pool = one_connection(&cluster).await;
    for _ in 0..1_000 {
        let client = pool.get().await.expect("checkout succeeds");
        let statement = client.prepare_cached("SELECT 1").await.expect("the statement is prepared");
        client.query_one(&statement, &[]).await.expect("the query succeeds");
        drop(statement);
        drop(client);
        assert_eq!(pool.status().endpoints[0].idle, 1);
    }
    let counters = pool.status().counters;
    assert_eq!(
        (counters.opened, counters.recycled),
        (1, 0),
        "a clean connection was recycled or replaced: {counters:?}"
    );
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_token_cancels_the_running_statement() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let pool = Pool::connect(&cluster.url()).await.expect("the pool is created");
    let client = pool.get().await.expect("checkout succeeds");
    let token = client.cancel_token();
    let began = Instant::now();
    let query = tokio::spawn(async move { client.query_one("SELECT pg_sleep(30)", &[]).await.map(drop) });
    let watch = cluster.client(0).await.expect("the superuser connects");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'";
        if watch.query_one(sql, &[]).await.expect("the query succeeds").get::<_, i64>(0) == 1 {
            break;
        }
        assert!(Instant::now() < deadline, "the statement is not running on the server");
    }
    token.cancel().await.expect("the cancel request is sent");
    let error = query.await.expect("the task does not panic").expect_err("the statement is cancelled");
    assert_eq!(error.code(), Some(&tokio_postgres::error::SqlState::QUERY_CANCELED));
    assert!(began.elapsed() < Duration::from_secs(10), "the statement ended only after {:?}", began.elapsed());
    until(Duration::from_secs(5), "the connection is returned", || pool.status().endpoints[0].in_use == 0).await;
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Abandons a statement in three ways: by dropping the client, by dropping the pool and then the client, and by closing
/// the pool with a close timeout of zero.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_statement_is_cancelled_on_the_server() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let watch = cluster.client(0).await.expect("the superuser connects");
    let running = async |count: i64, case: &str| {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let sql =
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(6%' AND state = 'active'";
            if watch.query_one(sql, &[]).await.expect("the query succeeds").get::<_, i64>(0) == count {
                break;
            }
            assert!(Instant::now() < deadline, "{case}: the number of running statements is not {count}");
        }
    };
    let mut ended = [const { Vec::new() }; 3];
    for round in 0..20 {
        for (way, ended) in ended.iter_mut().enumerate() {
            let case = format!("round {round}, way {way}");
            let config: Config =
                format!("{}&pool_size=2&close_timeout=0", cluster.url()).parse().expect("the URL parses");
            let pool = Pool::builder(config).build().expect("the pool is created");
            let client = pool.get().await.expect("checkout succeeds");
            let query = tokio::spawn(async move { client.query_one("SELECT pg_sleep(600)", &[]).await.map(drop) });
            running(1, &case).await;
            let began = Instant::now();
            match way {
                0 => query.abort(),
                1 => {
                    drop(pool);
                    query.abort();
                }
                _ => assert_eq!(pool.close().await, 1),
            }
            running(0, &case).await;
            ended.push(began.elapsed());
        }
    }
    for (way, ended) in ["client dropped", "pool dropped, then client", "pool closed"].iter().zip(&mut ended) {
        ended.sort();
        println!("{way}: the statement ended after {:?} (p95 of 20), maximum {:?}", ended[18], ended[19]);
        assert!(ended[18] < Duration::from_secs(1), "{way}: the statement ended too late: {ended:?}");
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}
