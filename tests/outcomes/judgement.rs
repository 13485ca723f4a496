use std::time::Duration;

use podpool::{Applied, Client, Kind, Pool, State, Target, classify, testkit::Cluster, tokio_postgres::NoTls};

use crate::{
    common::{in_state, until},
    forms::{Mood, TABLE},
};

async fn start() -> (Cluster, Pool) {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let superuser = cluster.client(0).await.expect("the superuser connects");
    superuser.batch_execute(TABLE).await.expect("the table is created");
    let procedure = "CREATE PROCEDURE commit_and_fail() LANGUAGE plpgsql AS \
                     $$ BEGIN INSERT INTO written VALUES (9, 9); COMMIT; PERFORM 1 / 0; END $$";
    superuser.batch_execute(procedure).await.expect("the procedure is created");
    let pool = Pool::connect(&format!("{}&pool_size=4", cluster.url())).await.expect("the pool is created");
    until(Duration::from_secs(20), "the Pod serves", || in_state(&pool, State::Healthy) == 1).await;
    (cluster, pool)
}

async fn rows(client: &Client) -> i64 {
    client.query_one("SELECT count(*) FROM written", &[]).await.expect("the query succeeds").get(0)
}

const INSERT: &str = "INSERT INTO written VALUES (1, 0)";
const FAIL: &str = "INSERT INTO written VALUES (NULL, 0)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn classify_work_covers_everything_since_the_checkout() {
    let (cluster, pool) = start().await;
    for (before, failing, expected) in [
        ("", FAIL, Applied::No),
        ("BEGIN; INSERT INTO written VALUES (1, 0)", FAIL, Applied::No),
        ("BEGIN; INSERT INTO written VALUES (1, 0); ROLLBACK", FAIL, Applied::No),
        (INSERT, FAIL, Applied::Unknown),
        ("SELECT 1", FAIL, Applied::Unknown),
        ("BEGIN; INSERT INTO written VALUES (1, 0); COMMIT AND CHAIN", FAIL, Applied::Unknown),
        ("", "BEGIN; INSERT INTO written VALUES (1, 0); COMMIT; SELECT 1/0", Applied::Unknown),
        ("", "DO $$ BEGIN RAISE EXCEPTION 'lost' USING ERRCODE = '08006'; END $$", Applied::Unknown),
        ("", "SELECT pg_terminate_backend(pg_backend_pid())", Applied::Unknown),
    ] {
        let client = pool.get().await.expect("checkout succeeds");
        for statement in before.split(';').filter(|statement| !statement.is_empty()) {
            client.batch_execute(statement).await.expect("the statement succeeds");
        }
        let error = client.batch_execute(failing).await.expect_err("the statement fails");
        assert_eq!(client.classify_work(&error).await.applied, expected, "{before} / {failing}: {error:?}");
        // The next checkout starts with no work done.
        drop(client);
        let client = pool.get().await.expect("checkout succeeds");
        let error = client.batch_execute(FAIL).await.expect_err("the statement fails");
        assert_eq!(client.classify_work(&error).await.applied, Applied::No, "after {before} / {failing}");
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn classify_work_waits_for_the_other_statements_of_a_join() {
    let (cluster, pool) = start().await;
    let slow = "INSERT INTO written SELECT 1, 0 FROM pg_sleep(0.2)";
    // Fails when the lock is released, which is after the slow statement was sent.
    let held = "INSERT INTO written SELECT NULL, 0 FROM pg_advisory_xact_lock(1)";
    let superuser = cluster.client(0).await.expect("the superuser connects");
    superuser.batch_execute("SELECT pg_advisory_lock(1)").await.expect("the lock is taken");
    let client = pool.get().await.expect("checkout succeeds");
    let error = tokio::try_join!(
        client.batch_execute(held),
        client.batch_execute(slow),
        superuser.batch_execute("SELECT pg_advisory_unlock(1)"),
    )
    .expect_err("one fails");
    assert_eq!(error.code().map(|code| code.code()), Some("23502"), "{error:?}");
    assert_eq!(client.classify_work(&error).await.applied, Applied::Unknown);
    assert_eq!(rows(&client).await, 1, "the other statement was applied");
    let client = pool.get().await.expect("checkout succeeds");
    let error = tokio::try_join!(client.batch_execute(FAIL), client.batch_execute(FAIL)).expect_err("both fail");
    assert_eq!(client.classify_work(&error).await.applied, Applied::No);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn type_look_ups_and_preparations_are_not_the_work() {
    let (cluster, pool) = start().await;
    // Both checkouts use the same connection. The driver looks up the type on the first one, and caches it.
    let client = pool.get().await.expect("checkout succeeds");
    for _ in 0..2 {
        client.clear_type_cache();
        let failed = client.execute("INSERT INTO written VALUES (NULL, 0, $1)", &[&Mood]).await;
        let error = failed.expect_err("the statement fails");
        assert_eq!(error.code().map(|code| code.code()), Some("23502"));
        assert_eq!(client.classify_work(&error).await.applied, Applied::No);
    }
    let error = client.prepare("SELECT nothing").await.expect_err("the statement fails");
    assert_eq!(client.classify_work(&error).await.applied, Applied::No);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_is_declared_to_commit_inside_is_unknown() {
    let (cluster, pool) = start().await;
    let client = pool.get().await.expect("checkout succeeds");
    client.declare_commits_inside();
    let error = client.batch_execute("CALL commit_and_fail()").await.expect_err("the procedure fails");
    assert_eq!(classify(&error).applied, Applied::No, "covers the statement, not a commit inside");
    assert_eq!(client.classify_work(&error).await.applied, Applied::Unknown);
    assert_eq!(rows(&client).await, 1);
    let work = |client: Client| async move {
        client.declare_commits_inside();
        client.batch_execute("CALL commit_and_fail()").await
    };
    let error = pool.retry_unapplied(Target::Primary, work).await.expect_err("the procedure fails");
    assert_eq!(error.applied(), Applied::Unknown);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_that_has_written_is_not_repeated_after_a_refused_write() {
    let (cluster, pool) = start().await;
    let work = |client: Client| async move {
        client.batch_execute(INSERT).await?;
        client.batch_execute("SET default_transaction_read_only = on").await?;
        client.batch_execute(INSERT).await
    };
    let error = pool.retry_unapplied(Target::Primary, work).await.expect_err("the second write is refused");
    assert_eq!((error.kind(), error.applied()), (Kind::Query, Applied::Unknown), "{error}");
    let superuser = cluster.client(0).await.expect("the superuser connects");
    let row = superuser.query_one("SELECT count(*) FROM written", &[]).await.expect("the query succeeds");
    assert_eq!(row.get::<_, i64>(0), 1);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_another_connection_proves_nothing() {
    let (cluster, pool) = start().await;
    let work = |client: Client| async move {
        client.batch_execute(INSERT).await?;
        podpool::tokio_postgres::connect("host=127.0.0.1 port=1 user=none", NoTls).await.map(drop)
    };
    let error = pool.retry_unapplied(Target::Primary, work).await.expect_err("the connection is refused");
    assert_eq!((error.kind(), error.applied()), (Kind::Query, Applied::Unknown), "{error}");
    let client = pool.get().await.expect("checkout succeeds");
    assert_eq!(rows(&client).await, 1);
    let refused = podpool::tokio_postgres::connect("host=127.0.0.1 port=1 user=none", NoTls).await;
    let refused = refused.err().expect("the connection is refused");
    assert_eq!(classify(&refused).applied, Applied::No, "a dial applies nothing");
    drop(client);
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// One request of the work fails while a second one is only partly written, because the server does not read. The
/// second request is applied later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partly_written_request_may_still_be_applied() {
    let (cluster, pool) = start().await;
    let client = pool.get().await.expect("checkout succeeds");
    client.batch_execute("CREATE TABLE large (value text)").await.expect("the table is created");
    drop(client);
    let large = "x".repeat(32 << 20);
    for _ in 0..3 {
        let client = pool.get().await.expect("checkout succeeds");
        let insert = client.prepare("INSERT INTO large VALUES ($1)").await.expect("the statement is prepared");
        let failing = client.batch_execute("DO $$ BEGIN PERFORM pg_sleep(0.3); PERFORM 1 / 0; END $$");
        let error = tokio::try_join!(failing, async { client.execute(&insert, &[&large]).await.map(drop) });
        let error = error.expect_err("the first statement fails");
        assert_eq!(client.classify_work(&error).await.applied, Applied::Unknown);
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Work that drops its connection returns it to the pool before the work ends.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn work_can_check_out_another_connection_after_it_has_dropped_its_own() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let pool = Pool::connect(&format!("{}&pool_size=1", cluster.url())).await.expect("the pool is created");
    let work = |client: Client| async {
        client.batch_execute("SELECT 1").await?;
        drop(client);
        let client = pool.get().await.map_err(Box::new)?;
        client.batch_execute("SELECT 1").await?;
        Ok::<_, podpool::BoxError>(())
    };
    // When the response reaches the caller, the task of the connection may still be running. That is rare.
    for _ in 0..500 {
        pool.retry_unapplied(Target::Any, work).await.expect("both statements succeed");
        pool.retry(Target::Any, work).await.expect("both statements succeed");
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}
