//! Tests `Pool::transaction`: which failures are repeated, and that no transaction is applied twice or reported
//! wrongly.

use std::{
    error::Error as _,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use podpool::{
    Applied, BoxError, Checkout, Kind, Pool, State, Target, Transaction, TransactionOptions,
    testkit::Cluster,
    tokio_postgres::{self, IsolationLevel},
};
use tokio::task::JoinSet;

use crate::{
    at_rest,
    common::{in_state, until},
};

/// Creates the table `written` with a constraint that is checked at the `COMMIT`.
const TABLE: &str = "CREATE TABLE written (id int UNIQUE DEFERRABLE INITIALLY DEFERRED, CHECK (id > 0));
                     GRANT ALL ON written TO PUBLIC";

async fn start(parameters: &str) -> (Cluster, Pool, tokio_postgres::Client) {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let superuser = cluster.client(0).await.expect("the superuser connects");
    superuser.batch_execute(TABLE).await.expect("the table is created");
    let pool = Pool::connect(&format!("{}{parameters}", cluster.url())).await.expect("the pool is created");
    until(Duration::from_secs(20), "the Pod serves", || in_state(&pool, State::Healthy) == 1).await;
    (cluster, pool, superuser)
}

async fn ids(superuser: &tokio_postgres::Client) -> Vec<i32> {
    let rows = superuser.query("SELECT id FROM written ORDER BY id", &[]).await.expect("the query succeeds");
    rows.iter().map(|row| row.get(0)).collect()
}

/// Makes each commit wait for a standby that does not exist. A server applies its new settings at some time after
/// `pg_reload_conf` returns, so this commits until a commit waits.
async fn hold_commits(cluster: &Cluster, superuser: &tokio_postgres::Client) {
    for statement in ["ALTER SYSTEM SET synchronous_standby_names = 'missing'", "SELECT pg_reload_conf()"] {
        superuser.batch_execute(statement).await.expect("the setting is changed");
    }
    let other = cluster.client(0).await.expect("the superuser connects");
    let waited = AtomicBool::new(false);
    let commits = async {
        while !waited.load(Ordering::Relaxed) {
            // A commit waits only if its transaction has written to the log. An identifier alone is not written.
            other.batch_execute("SELECT pg_logical_emit_message(true, '', '')").await.expect("the commit succeeds");
        }
    };
    // After a cancel request, the server reports success: the transaction is committed here, but not on the standby.
    // The next commit can begin, and wait, before this sees that one has waited.
    let cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let cancels = async {
        loop {
            if superuser.execute(cancel, &[]).await.expect("the query succeeds") > 0 {
                waited.store(true, Ordering::Relaxed);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let both = async {
        tokio::select! {
            () = commits => {}
            () = cancels => {}
        }
    };
    tokio::time::timeout(Duration::from_secs(20), both).await.expect("a commit waits");
}

async fn release_commits(superuser: &tokio_postgres::Client) {
    for statement in ["ALTER SYSTEM RESET synchronous_standby_names", "SELECT pg_reload_conf()"] {
        superuser.batch_execute(statement).await.expect("the setting is changed");
    }
}

/// Ends the test: the pool has kept no connection in use.
async fn finish(cluster: Cluster, pool: Pool) {
    until(Duration::from_secs(10), "every connection is idle", || at_rest(&pool)).await;
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn serializable_increments_by_32_tasks_add_up_exactly() {
    const TASKS: i64 = 32;
    const INCREMENTS: i64 = 20;
    let (cluster, pool, superuser) = start("&acquire_timeout=60s").await;
    let tables = "CREATE TABLE counters (name int PRIMARY KEY, value int8 NOT NULL);
                  INSERT INTO counters SELECT n, 0 FROM generate_series(0, 3) AS n;
                  GRANT ALL ON counters TO PUBLIC";
    superuser.batch_execute(tables).await.expect("the table is created");
    let mut tasks = JoinSet::new();
    let runs = Arc::new(AtomicU32::new(0));
    for task in 0..TASKS {
        let (pool, runs) = (pool.clone(), runs.clone());
        tasks.spawn(async move {
            let options = TransactionOptions::default().isolation_level(IsolationLevel::Serializable);
            for increment in 0..INCREMENTS {
                let name = i32::try_from((task + increment) % 4).expect("the number is small");
                pool.transaction(options, |transaction| {
                    runs.fetch_add(1, Ordering::Relaxed);
                    increment_after_reading(transaction, name)
                })
                .await
                .unwrap_or_else(|error| panic!("task {task}, increment {increment}: {error:?}"));
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.expect("the task does not panic");
    }
    let sum = "SELECT sum(value)::int8, min(value) FROM counters";
    let row = superuser.query_one(sum, &[]).await.expect("the query succeeds");
    let runs = runs.load(Ordering::Relaxed);
    println!("{} increments in {runs} runs, {} repeated", TASKS * INCREMENTS, pool.status().counters.retries);
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (TASKS * INCREMENTS, TASKS * INCREMENTS / 4));
    assert!(i64::from(runs) > TASKS * INCREMENTS, "the transactions did not conflict");
    finish(cluster, pool).await;
}

/// Reads all counters and increments one of them.
async fn increment_after_reading(transaction: Transaction, name: i32) -> Result<(), tokio_postgres::Error> {
    let read = transaction.prepare_cached("SELECT name, value FROM counters").await?;
    let rows = transaction.query(&read, &[]).await?;
    let value = rows.iter().find(|row| row.get::<_, i32>(0) == name).expect("the counter exists").get::<_, i64>(1);
    let write = transaction.prepare_cached("UPDATE counters SET value = $2 WHERE name = $1").await?;
    transaction.execute(&write, &[&name, &(value + 1)]).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadlock_is_repeated() {
    let (cluster, pool, superuser) = start("&acquire_timeout=30s").await;
    superuser.batch_execute("INSERT INTO written VALUES (1), (2)").await.expect("the rows are inserted");
    let met = Arc::new(tokio::sync::Barrier::new(2));
    let lock_both = |first: i32, second: i32| {
        let (pool, met) = (pool.clone(), met.clone());
        async move {
            let mut runs = 0;
            let work = |transaction: Transaction| {
                runs += 1;
                let met = (runs == 1).then(|| met.clone());
                async move {
                    let lock = "SELECT FROM written WHERE id = $1 FOR UPDATE";
                    transaction.execute(lock, &[&first]).await?;
                    if let Some(met) = met {
                        met.wait().await;
                    }
                    transaction.execute(lock, &[&second]).await
                }
            };
            pool.transaction(Target::Primary, work).await.expect("the transaction succeeds");
            runs
        }
    };
    let (one, other) = tokio::join!(lock_both(1, 2), lock_both(2, 1));
    assert_eq!(one + other, 3, "PostgreSQL ends one of the two transactions");
    finish(cluster, pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_lost_before_the_commit_is_replaced() {
    let (cluster, pool, superuser) = start("").await;
    let mut runs = 0;
    let work = |transaction: Transaction| {
        runs += 1;
        let end = if runs == 1 { "SELECT pg_terminate_backend(pg_backend_pid())" } else { "SELECT 1" };
        async move {
            transaction.execute("INSERT INTO written VALUES (7)", &[]).await?;
            transaction.batch_execute(end).await
        }
    };
    pool.transaction(Target::Primary, work).await.expect("the second run succeeds");
    assert_eq!((runs, ids(&superuser).await), (2, vec![7]));
    finish(cluster, pool).await;
}

/// The server commits, but waits for a standby that does not exist. Ending the session then loses the response.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_response_to_the_commit_is_unknown_and_not_repeated() {
    let (cluster, pool, superuser) = start("").await;
    hold_commits(&cluster, &superuser).await;
    let runs = Arc::new(AtomicU32::new(0));
    let transaction = tokio::spawn({
        let (pool, runs) = (pool.clone(), runs.clone());
        async move {
            let work = |transaction: Transaction| {
                runs.fetch_add(1, Ordering::Relaxed);
                async move { transaction.execute("INSERT INTO written VALUES (7)", &[]).await }
            };
            pool.transaction(Target::Primary, work).await
        }
    });
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let began = Instant::now();
    while superuser.execute(end, &[]).await.expect("the query succeeds") == 0 {
        assert!(began.elapsed() < Duration::from_secs(20) && !transaction.is_finished(), "no commit waits");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let error = transaction.await.expect("the task does not panic").expect_err("the response is lost");
    assert_eq!((error.kind(), error.applied()), (Kind::Query, Applied::Unknown), "{error:?}");
    assert_eq!((runs.load(Ordering::Relaxed), ids(&superuser).await), (1, vec![7]));
    release_commits(&superuser).await;
    finish(cluster, pool).await;
}

/// A cancel request would make the server return without the standby, and the rows visible that it may still lose.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_waits_for_a_standby_is_not_cancelled() {
    let (cluster, pool, superuser) = start("").await;
    hold_commits(&cluster, &superuser).await;
    let checkout = Checkout::new(Target::Primary).deadline(Duration::from_secs(2));
    let work =
        |transaction: Transaction| async move { transaction.execute("INSERT INTO written VALUES (7)", &[]).await };
    let error = pool.transaction(checkout, work).await.expect_err("the standby does not exist");
    assert_eq!(error.applied(), Applied::Unknown, "{error:?}");
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";
    let watched = Instant::now();
    while watched.elapsed() < Duration::from_secs(2) {
        let count: i64 = superuser.query_one(waiting, &[]).await.expect("the query succeeds").get(0);
        assert_eq!(count, 1, "the commit no longer waits");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    release_commits(&superuser).await;
    let reset = Instant::now();
    while ids(&superuser).await != [7] {
        assert!(reset.elapsed() < Duration::from_secs(20), "the row is not committed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    finish(cluster, pool).await;
}

/// An application's own error.
#[derive(Debug, Eq, PartialEq)]
struct OutOfStock;

impl fmt::Display for OutOfStock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("out of stock")
    }
}

impl std::error::Error for OutOfStock {}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_failures_are_reported_once_and_roll_back() {
    let (cluster, pool, superuser) = start("&pool_size=1").await;
    let runs = AtomicU32::new(0);
    let run = async |statements: &'static [&'static str], fails: bool| {
        let work = |transaction: Transaction| {
            runs.fetch_add(1, Ordering::Relaxed);
            async move {
                for statement in statements {
                    transaction.batch_execute(statement).await.or_else(|error| match *statement {
                        "SELECT 1/0" => Ok(()),
                        _ => Err(error),
                    })?;
                }
                if fails { Err(BoxError::from(OutOfStock)) } else { Ok(()) }
            }
        };
        let error = pool.transaction(Target::Primary, work).await.expect_err("the transaction fails");
        assert_eq!(error.kind(), Kind::Query, "{statements:?}: {error:?}");
        assert_eq!(runs.swap(0, Ordering::Relaxed), 1, "{statements:?} was repeated");
        error
    };
    const INSERT: &str = "INSERT INTO written VALUES (1)";

    let error = run(&[INSERT], true).await;
    assert_eq!(error.applied(), Applied::No, "{error:?}");
    assert_eq!(error.downcast::<OutOfStock>().expect("the work's own error"), OutOfStock);

    let error = run(&[INSERT, "INSERT INTO written VALUES (-1)"], false).await;
    assert_eq!(error.applied(), Applied::No, "a check fails: {error:?}");

    let error = run(&[INSERT, INSERT], false).await;
    assert_eq!(error.applied(), Applied::No, "the COMMIT fails: {error:?}");

    let error = run(&[INSERT, "SELECT 1/0"], false).await;
    let source = error.source().expect("the error has a source").to_string();
    assert!(source.contains("22012") && error.applied() == Applied::No, "the failure is ignored: {source}");
    assert_eq!(ids(&superuser).await, Vec::<i32>::new());

    let error = run(&[INSERT, "COMMIT"], true).await;
    assert_eq!(error.applied(), Applied::Unknown, "the work commits: {error:?}");
    assert_eq!(ids(&superuser).await, [1]);
    assert_eq!(pool.status().counters.opened, 1, "the connection was reused");
    finish(cluster, pool).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_is_kept_or_cancelled_is_rolled_back() {
    let (cluster, pool, superuser) = start("&pool_size=2").await;
    let (keep, mut kept) = tokio::sync::mpsc::unbounded_channel();
    let work = |transaction: Transaction| {
        let keep = keep.clone();
        async move {
            transaction.execute("INSERT INTO written VALUES (1)", &[]).await?;
            keep.send(transaction).expect("the transaction is kept");
            Ok::<_, tokio_postgres::Error>(())
        }
    };
    let error = pool.transaction(Target::Primary, work).await.expect_err("the transaction was kept");
    assert_eq!((error.kind(), error.applied()), (Kind::Query, Applied::Unknown), "{error:?}");
    drop(kept.recv().await.expect("the transaction is kept"));

    let work = |transaction: Transaction| async move {
        transaction.execute("INSERT INTO written VALUES (2)", &[]).await?;
        transaction.execute("SELECT pg_sleep(60)", &[]).await
    };
    let cancelled = tokio::time::timeout(Duration::from_millis(300), pool.transaction(Target::Primary, work)).await;
    assert!(cancelled.is_err(), "the statement takes longer");
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)' AND state = 'active' \
                  AND pid <> pg_backend_pid()";
    let began = Instant::now();
    while superuser.query_one(sleeps, &[]).await.expect("the query succeeds").get::<_, i64>(0) > 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "the statement still runs");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(ids(&superuser).await, Vec::<i32>::new());
    finish(cluster, pool).await;
}
