//! What a borrower leaves behind never reaches the next one.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use podpool::{Client, Config, Pool, testkit::Cluster, tokio_postgres::SimpleQueryMessage};

use crate::common::until;

/// One Pod, one connection: what one borrower leaves, the next one gets.
async fn one_connection(cluster: &Cluster) -> Pool {
    let config: Config = format!("{}&pool_size=1", cluster.url()).parse().expect("a URL");
    let pool = Pool::builder(config).build().expect("a pool");
    drop(pool.get().await.expect("a connection"));
    pool
}

/// Begun and dropped; on a busy machine the answer may even have come.
fn poll_once(future: impl Future) {
    let mut cx = Context::from_waker(Waker::noop());
    let _ = pin!(future).as_mut().poll(&mut cx);
}

/// The server's word that nothing is open, and how long its first statement took.
async fn is_clean(client: &Client) -> (bool, Duration) {
    let began = Instant::now();
    // In a transaction of its own a statement begins when its transaction does.
    let sql = "SELECT pg_current_xact_id_if_assigned() IS NULL AND now() = statement_timestamp()";
    let answer = client.simple_query(sql).await.expect("an answer");
    let clean = answer.iter().any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("t")));
    (clean, began.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_open_or_running_is_handed_on() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let pool = one_connection(&cluster).await;
    for round in 0..120 {
        let mut client = pool.get().await.expect("a connection");
        match round % 8 {
            0 => client.batch_execute("BEGIN; SELECT pg_current_xact_id()").await.expect("a transaction"),
            1 => drop(client.batch_execute("BEGIN; SELECT 1/0").await),
            2 => poll_once(client.batch_execute("BEGIN; SELECT pg_current_xact_id()")),
            3 => poll_once(client.query_one("SELECT pg_sleep(0.01)", &[])),
            4 => {
                let transaction = client.transaction().await.expect("a transaction");
                transaction.execute("SELECT pg_current_xact_id()", &[]).await.expect("an answer");
            }
            5 => drop(client.query_one("SELECT 1/0", &[]).await),
            6 => {
                let query = client.query_one("SELECT pg_sleep(30)", &[]);
                drop(tokio::time::timeout(Duration::from_millis(5), query).await);
            }
            _ => drop(client.query_one("SELECT 1", &[]).await),
        }
        drop(client);
        let client = pool.get().await.expect("a connection");
        let (clean, took) = is_clean(&client).await;
        assert!(clean, "round {round}: the next borrower is in somebody's transaction");
        assert!(took < Duration::from_millis(500), "round {round}: the first statement took {took:?}");
    }
    let counters = pool.status().counters;
    println!("120 rounds: {counters:?}");
    assert!(counters.recycled >= 60, "{counters:?}");
    // Settling gives back; it does not throw away.
    assert!(counters.opened < 20, "{counters:?}");
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "current_thread")]
async fn a_clean_connection_comes_back_at_once() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let pool = one_connection(&cluster).await;
    for _ in 0..1_000 {
        let client = pool.get().await.expect("a connection");
        let statement = client.prepare_cached("SELECT 1").await.expect("a statement");
        client.query_one(&statement, &[]).await.expect("an answer");
        drop(statement);
        drop(client);
        assert_eq!(pool.status().endpoints[0].idle, 1);
    }
    let counters = pool.status().counters;
    assert_eq!((counters.opened, counters.recycled), (1, 0), "{counters:?}");
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_token_cancels() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let pool = Pool::connect(&cluster.url()).await.expect("a pool");
    let client = pool.get().await.expect("a connection");
    let token = client.cancel_token();
    let began = Instant::now();
    let query = tokio::spawn(async move { client.query_one("SELECT pg_sleep(30)", &[]).await.map(drop) });
    let watch = cluster.client(0).await.expect("a superuser's connection");
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'";
        if watch.query_one(sql, &[]).await.expect("an answer").get::<_, i64>(0) == 1 {
            break;
        }
        assert!(Instant::now() < deadline, "the statement does not run");
    }
    token.cancel().await.expect("the server takes the request");
    let error = query.await.expect("no panic").expect_err("cancelled");
    assert_eq!(error.code(), Some(&tokio_postgres::error::SqlState::QUERY_CANCELED));
    assert!(began.elapsed() < Duration::from_secs(10));
    until(Duration::from_secs(5), "the connection is back", || pool.status().endpoints[0].in_use == 0).await;
    cluster.shutdown().await.expect("an orderly end");
}

/// What nobody waits for any more does not run on at the server: whether the client is dropped, or the pool before it, or
/// the pool is closed and does not wait any longer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_that_nobody_waits_for_is_cancelled_on_the_server() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let watch = cluster.client(0).await.expect("a superuser's connection");
    let running = async |count: i64, what: &str| {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let sql =
                "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(6%' AND state = 'active'";
            if watch.query_one(sql, &[]).await.expect("an answer").get::<_, i64>(0) == count {
                break;
            }
            assert!(Instant::now() < deadline, "{what}: not {count} running");
        }
    };
    let mut ended = [const { Vec::new() }; 3];
    for round in 0..20 {
        for (way, ended) in ended.iter_mut().enumerate() {
            let what = format!("round {round}, way {way}");
            let config: Config = format!("{}&pool_size=2&close_timeout=0", cluster.url()).parse().expect("a URL");
            let pool = Pool::builder(config).build().expect("a pool");
            let client = pool.get().await.expect("a connection");
            let query = tokio::spawn(async move { client.query_one("SELECT pg_sleep(600)", &[]).await.map(drop) });
            running(1, &what).await;
            let began = Instant::now();
            match way {
                0 => query.abort(),
                1 => {
                    drop(pool);
                    query.abort();
                }
                _ => assert_eq!(pool.close().await, 1),
            }
            running(0, &what).await;
            ended.push(began.elapsed());
        }
    }
    for (way, ended) in ["client dropped", "pool dropped, then client", "pool closed"].iter().zip(&mut ended) {
        ended.sort();
        println!("{way}: the statement ended after {:?} (p95 of 20), {:?} at most", ended[18], ended[19]);
        assert!(ended[18] < Duration::from_secs(1), "{way}: {ended:?}");
    }
    cluster.shutdown().await.expect("an orderly end");
}
