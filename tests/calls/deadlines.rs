//! Tests the deadline of a call: the statement in flight is cancelled on the server, the connection is reused, and the
//! reported outcome is right.

use std::time::{Duration, Instant};

use podpool::{
    Applied, Checkout, Client, Kind, Pool, State, Target, Transaction, TransactionOptions, testkit::Cluster,
    tokio_postgres,
};

use crate::{
    at_rest,
    common::{in_state, until},
};

const DEADLINE: Duration = Duration::from_millis(100);
/// Number of calls whose duration is measured.
const CALLS: usize = 15;

async fn start(parameters: &str) -> (Cluster, Pool, tokio_postgres::Client) {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let superuser = cluster.client(0).await.expect("the superuser connects");
    let table = "CREATE TABLE written (id int); GRANT ALL ON written TO PUBLIC";
    superuser.batch_execute(table).await.expect("the table is created");
    let pool = Pool::connect(&format!("{}{parameters}", cluster.url())).await.expect("the pool is created");
    until(Duration::from_secs(20), "the Pod serves", || in_state(&pool, State::Healthy) == 1).await;
    until(Duration::from_secs(20), "a connection is idle", || pool.status().endpoints[0].idle > 0).await;
    (cluster, pool, superuser)
}

/// Returns the number of active statements that contain `pg_sleep`.
async fn sleeping(superuser: &tokio_postgres::Client) -> i64 {
    let sql = "SELECT count(*) FROM pg_stat_activity
               WHERE query LIKE '%pg_sleep%' AND state = 'active' AND pid <> pg_backend_pid()";
    superuser.query_one(sql, &[]).await.expect("the query succeeds").get(0)
}

/// Asserts that the server has ended every statement that contains `pg_sleep` within one second after `since`.
async fn assert_ended(superuser: &tokio_postgres::Client, since: Instant) {
    while sleeping(superuser).await > 0 {
        assert!(since.elapsed() < Duration::from_secs(1), "the statement still runs");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn rows(superuser: &tokio_postgres::Client) -> i64 {
    superuser.query_one("SELECT count(*) FROM written", &[]).await.expect("the query succeeds").get(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_cancels_the_statement_and_keeps_the_connection() {
    let (cluster, pool, superuser) = start("&pool_size=1&probe_timeout=10s&probe_interval=60s").await;
    let checkout = Checkout::new(Target::Primary).deadline(DEADLINE);
    let (mut durations, mut unapplied) = (Vec::new(), 0);
    for call in 0..CALLS {
        let began = Instant::now();
        let work = |client: Client| async move { client.execute("SELECT pg_sleep(10)", &[]).await };
        let result = match call % 2 {
            0 => pool.retry(checkout, work).await,
            _ => pool.retry_unapplied(checkout, work).await,
        };
        let took = began.elapsed();
        durations.push(took);
        let error = result.expect_err("the statement takes longer");
        assert_eq!(error.kind(), Kind::Timeout, "{error:?}");
        // The outcome is unknown if the server has not responded to the cancel request within 40 ms.
        let settled = took < DEADLINE + Duration::from_millis(40);
        assert!(error.applied() == Applied::No || !settled, "{error:?}");
        unapplied += usize::from(error.applied() == Applied::No);
        assert_ended(&superuser, began + DEADLINE).await;
        until(Duration::from_secs(5), "the connection is idle", || at_rest(&pool)).await;
    }
    durations.sort_unstable();
    println!(
        "deadline {DEADLINE:?}: returned after {:?} to {:?}, median {:?}; {unapplied} of {CALLS} known as not applied",
        durations[0],
        durations[CALLS - 1],
        durations[CALLS / 2]
    );
    assert!(durations[0] >= DEADLINE && durations[CALLS / 2] <= DEADLINE * 3 / 2, "{durations:?}");
    assert!(unapplied > CALLS / 2, "the outcome was known only {unapplied} times");
    assert_eq!(pool.status().counters.opened, 1, "the connection was reused");
    let sum: i32 = pool
        .retry(checkout.deadline(Duration::from_secs(20)), |client| async move {
            client.query_one("SELECT 1 + 1", &[]).await.map(|row| row.get(0))
        })
        .await
        .expect("short work ends before the deadline");
    assert_eq!(sum, 2);
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_reports_whether_the_work_may_have_been_applied() {
    let (cluster, pool, superuser) = start("&pool_size=2").await;
    let checkout = Checkout::new(Target::Primary).deadline(DEADLINE);

    let work = |client: Client| async move {
        client.execute("INSERT INTO written VALUES (1)", &[]).await?;
        client.execute("SELECT pg_sleep(10)", &[]).await
    };
    let error = pool.retry_unapplied(checkout, work).await.expect_err("the statement takes longer");
    assert_eq!((error.kind(), error.applied()), (Kind::Timeout, Applied::Unknown), "a row is committed: {error:?}");
    assert_eq!(rows(&superuser).await, 1);

    let work = |transaction: Transaction| async move {
        transaction.execute("INSERT INTO written VALUES (2)", &[]).await?;
        transaction.execute("SELECT pg_sleep(10)", &[]).await
    };
    let began = Instant::now();
    let options = TransactionOptions::from(checkout);
    let error = pool.transaction(options, work).await.expect_err("the statement takes longer");
    assert_eq!((error.kind(), error.applied()), (Kind::Timeout, Applied::No), "rolled back: {error:?}");
    assert_ended(&superuser, began + DEADLINE).await;

    // The work sleeps on the client, with a transaction open.
    let work = |transaction: Transaction| async move {
        transaction.execute("INSERT INTO written VALUES (3)", &[]).await?;
        std::future::pending::<Result<u64, tokio_postgres::Error>>().await
    };
    let error = pool.transaction(options, work).await.expect_err("the work takes longer");
    assert_eq!((error.kind(), error.applied()), (Kind::Timeout, Applied::No), "rolled back: {error:?}");
    until(Duration::from_secs(5), "every connection is idle", || at_rest(&pool)).await;
    assert_eq!(rows(&superuser).await, 1);

    let (keep, mut kept) = tokio::sync::mpsc::unbounded_channel();
    let work = |client: Client| {
        keep.send(tokio::spawn(async move { client.execute("SELECT pg_sleep(10)", &[]).await })).expect("is open");
        std::future::pending::<Result<u64, tokio_postgres::Error>>()
    };
    let began = Instant::now();
    let error = pool.retry(checkout, work).await.expect_err("the work takes longer");
    assert_eq!((error.kind(), error.applied()), (Kind::Timeout, Applied::Unknown), "the client is kept: {error:?}");
    let cancelled = kept.recv().await.expect("the task was spawned").await.expect("the task does not panic");
    let cancelled = cancelled.expect_err("the statement is cancelled");
    assert_eq!(cancelled.code().map(|code| code.code()), Some("57014"), "{cancelled}");
    assert!(began.elapsed() < Duration::from_secs(5), "the statement was not cancelled");
    until(Duration::from_secs(5), "every connection is idle", || at_rest(&pool)).await;
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_limits_the_wait_for_a_connection() {
    let (cluster, pool, _superuser) = start("&pool_size=1&acquire_timeout=30s").await;
    let held = pool.get().await.expect("checkout succeeds");
    let checkout = Checkout::new(Target::Any).deadline(DEADLINE);
    for call in 0..3 {
        let began = Instant::now();
        let work = |client: Client| async move { client.execute("SELECT 1", &[]).await };
        let result = match call {
            0 => pool.get_for(checkout).await.map(drop),
            1 => pool.get_within(Target::Any, DEADLINE).await.map(drop),
            _ => pool.retry(checkout, work).await.map(drop),
        };
        let error = result.expect_err("the only connection is in use");
        assert_eq!((error.kind(), error.applied()), (Kind::PoolTimeout, Applied::No), "{error:?}");
        assert!(began.elapsed() >= DEADLINE && began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    }
    // A deadline can also be longer than `acquire_timeout`, and the longest one does not overflow.
    drop(held);
    drop(pool.get_within(Target::Any, Duration::MAX).await.expect("a connection is idle"));
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}
