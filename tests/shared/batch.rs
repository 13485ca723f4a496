//! Runs several statements in one round trip.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use podpool::{
    Applied, Checkout, Kind, Pool, Target,
    tokio_postgres::{Row, error::SqlState, types::ToSql},
};
use tokio::{task::JoinSet, time::sleep};

use super::{
    cluster,
    common::{distance::Distance, one_pod::SOON, until},
    cutting_proxy::CuttingProxy,
    outcomes::{LIMIT, Reported, TABLE, assert_consistent},
    pool_to_one, superuser,
};

/// A statement and its parameters.
type Statement<'a> = (&'a str, &'a [&'a (dyn ToSql + Sync)]);

const INSERT: &str = "INSERT INTO written VALUES ($1)";
const COUNT: &str = "SELECT count(*), pg_backend_pid() FROM written";

fn column<T>(rows: &[Row], column: usize) -> T
where
    T: for<'a> podpool::tokio_postgres::types::FromSql<'a>,
{
    assert_eq!(rows.len(), 1);
    rows[0].get(column)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_statements_of_a_batch_run_in_their_order_on_one_connection() {
    let cluster = cluster(1).await;
    superuser(&cluster).await.batch_execute(TABLE).await.expect("the table is created");
    let pool = pool_to_one(&cluster, "&shared_slow=60s").await;
    let ids: Vec<i64> = (0..50).collect();
    let params: Vec<[&(dyn ToSql + Sync); 1]> = ids.iter().map(|id| [id as &(dyn ToSql + Sync)]).collect();
    let mut statements: Vec<Statement<'_>> = Vec::new();
    for params in &params {
        statements.extend::<[Statement<'_>; 3]>([(INSERT, params), ("SELECT 1 / 0", &[]), (COUNT, &[])]);
    }
    // 150 statements, more than `shared_depth`.
    let results = pool.shared(Target::Any).batch(&statements).await.expect("the statements are accepted");
    assert_eq!(results.len(), statements.len());
    let mut sessions = Vec::new();
    for (index, result) in results.into_iter().enumerate() {
        match (index % 3, result) {
            (0, Ok(inserted)) => assert_eq!((inserted.affected, inserted.rows.len()), (1, 0)),
            (1, Err(error)) => {
                assert_eq!((error.kind(), error.applied()), (Kind::Query, Applied::No), "{error:?}");
                assert_eq!(error.sqlstate(), Some(&SqlState::DIVISION_BY_ZERO), "{error:?}");
                assert_eq!(error.pool(), Some(pool.name()));
            }
            (2, Ok(counted)) => {
                assert_eq!(column::<i64>(&counted.rows, 0), index as i64 / 3 + 1, "of statement {index}");
                sessions.push(column::<i32>(&counted.rows, 1));
            }
            (_, result) => panic!("statement {index}: {result:?}"),
        }
    }
    assert!(sessions.iter().all(|session| *session == sessions[0]), "{sessions:?}");
    let none = pool.shared(Target::Any).batch(&[]).await.expect("an empty batch succeeds");
    assert!(none.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_with_a_statement_that_is_refused_sends_nothing() {
    let cluster = cluster(1).await;
    superuser(&cluster).await.batch_execute(TABLE).await.expect("the table is created");
    let pool = pool_to_one(&cluster, "").await;
    let shared = pool.shared(Target::Any);
    let error = shared.batch(&[(INSERT, &[&1i64]), ("SET search_path = ''", &[])]).await.expect_err("it is refused");
    assert_eq!((error.kind(), error.applied()), (Kind::NotShareable, Applied::No));
    assert!(error.to_string().contains("statement 2 of the batch"), "{error}");
    let results = shared.batch(&[(COUNT, &[]), (COUNT, &[&1i64]), (COUNT, &[])]).await.expect("they are accepted");
    let rows = |index: usize| &results[index].as_ref().expect("the statement succeeds").rows;
    assert_eq!((column::<i64>(rows(0), 0), column::<i64>(rows(2), 0)), (0, 0));
    let wrong = results[1].as_ref().expect_err("it has no parameter");
    assert_eq!((wrong.kind(), wrong.applied()), (Kind::Query, Applied::No), "{wrong:?}");
}

/// 32 statements, one after the other, would take more than six seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_takes_one_round_trip() {
    const DELAY: Duration = Duration::from_millis(200);
    let cluster = cluster(1).await;
    let pod = cluster.pod(0).address();
    let distant = Distance::start(pod, DELAY);
    let url = cluster.pod_url(0).replace(&pod.to_string(), &distant.address().to_string());
    let pool = Pool::connect(&format!("{url}?min_idle=0&sslmode=disable&connect_timeout=20s")).await;
    let pool = pool.expect("the pool is created");
    let statements: [Statement<'_>; 32] = [("SELECT 7::int4", &[]); 32];
    let mut took = Vec::new();
    for _ in 0..2 {
        let began = Instant::now();
        let results = pool.shared(Target::Any).batch(&statements).await.expect("the statements are accepted");
        took.push(began.elapsed());
        for result in results {
            assert_eq!(column::<i32>(&result.expect("the statement succeeds").rows, 0), 7);
        }
    }
    // The first batch opens the connection and prepares the statement.
    println!("{took:?}");
    assert!(took[1] >= DELAY && took[1] < 2 * DELAY, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_and_the_end_of_a_caller_end_a_batch() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, "&shared_slow=60s").await;
    let statements: [Statement<'_>; 3] = [("SELECT 7::int4", &[]), ("SELECT pg_sleep(30)", &[]), ("SELECT 8", &[])];
    let checkout = Checkout::new(Target::Any).deadline(Duration::from_millis(500));
    let results = pool.shared(checkout).batch(&statements).await.expect("the statements are accepted");
    assert!(results[0].is_ok(), "{:?}", results[0]);
    for result in &results[1..] {
        let error = result.as_ref().expect_err("the deadline passes");
        assert_eq!((error.kind(), error.applied()), (Kind::Timeout, Applied::Unknown), "{error:?}");
    }
    let dropped = tokio::time::timeout(Duration::from_millis(300), pool.shared(Target::Any).batch(&statements)).await;
    assert!(dropped.is_err(), "the statements take longer");
    until(SOON, "every place is free", || pool.status().endpoints[0].shared_in_flight == 0).await;
    let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)' AND state = 'active'";
    let admin = superuser(&cluster).await;
    let began = Instant::now();
    while admin.query_one(sleeps, &[]).await.expect("the query succeeds").get::<_, i64>(0) > 0 {
        assert!(began.elapsed() < SOON, "a statement still runs");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_of_a_batch_is_sent_after_its_deadline() {
    let cluster = cluster(1).await;
    superuser(&cluster).await.batch_execute(TABLE).await.expect("the table is created");
    let pool = pool_to_one(&cluster, "&shared_depth=4&shared_slow=60s").await;
    let insert: Statement<'_> = (INSERT, &[&1i64]);
    let mut statements: Vec<Statement<'_>> = vec![("SELECT pg_sleep(1)", &[])];
    statements.extend([insert; 11]);
    let checkout = Checkout::new(Target::Any).deadline(Duration::from_millis(300));
    let results = pool.shared(checkout).batch(&statements).await.expect("the statements are accepted");
    let errors: Vec<_> = results.iter().map(|result| result.as_ref().expect_err("the deadline passes")).collect();
    assert!(errors.iter().all(|error| error.kind() == Kind::Timeout), "{errors:?}");
    let applied: Vec<_> = errors.iter().map(|error| error.applied()).collect();
    assert_eq!((&applied[..4], &applied[4..]), (&[Applied::Unknown; 4][..], &[Applied::No; 8][..]));
    until(SOON, "every place is free", || pool.status().endpoints[0].shared_in_flight == 0).await;
    let count = pool.shared(Target::Any).query_one(COUNT, &[]).await.expect("the query succeeds").get::<_, i64>(0);
    assert!(count <= 3, "{count} statements of the first part were executed");
}

/// The preparation of one statement waits for a lock, and those of the others wait behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_that_are_prepared_late_keep_their_order() {
    let cluster = cluster(1).await;
    let admin = superuser(&cluster).await;
    let table = "CREATE TABLE locked (at timestamptz DEFAULT clock_timestamp()); GRANT ALL ON locked TO PUBLIC";
    admin.batch_execute(table).await.expect("the table is created");
    let pool = pool_to_one(&cluster, "").await;
    admin.batch_execute("BEGIN; LOCK TABLE locked IN ACCESS EXCLUSIVE MODE").await.expect("the table is locked");
    let batch = tokio::spawn(async move {
        let insert: Statement<'_> = ("INSERT INTO locked DEFAULT VALUES RETURNING at::text", &[]);
        let read: Statement<'_> = ("SELECT clock_timestamp()::text", &[]);
        let other: Statement<'_> = ("SELECT clock_timestamp()::text AS other", &[]);
        let results = pool.shared(Target::Any).batch(&[insert, read, insert, other, read, insert]).await;
        let results = results.expect("the statements are accepted").into_iter();
        results.map(|result| column::<String>(&result.expect("it succeeds").rows, 0)).collect::<Vec<_>>()
    });
    sleep(Duration::from_millis(300)).await; // much longer than 5 ms, after which the preparation is slow
    admin.batch_execute("COMMIT").await.expect("the lock is released");
    let times = batch.await.expect("the caller does not panic");
    assert!(times.is_sorted(), "{times:?}");
}

/// Connections end after every possible number of messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reported_outcomes_are_true_for_each_statement_of_a_batch() {
    const WRITERS: i64 = 6;
    const BATCH: i64 = 5;
    const BATCHES: usize = 4_000;
    let cluster = cluster(1).await;
    superuser(&cluster).await.batch_execute(TABLE).await.expect("the table is created");
    let pod = cluster.pod(0).address();
    let proxy = CuttingProxy::start(pod).await;
    let url = cluster.pod_url(0).replace(&pod.to_string(), &proxy.address().to_string());
    let pool = Pool::connect(&format!("{url}?pool_size=6&min_idle=0&sslmode=disable")).await.expect("it is created");
    let (reported, batches) = (Arc::<Mutex<BTreeMap<i64, Reported>>>::default(), Arc::<AtomicUsize>::default());
    let mut writers = JoinSet::new();
    let began = Instant::now();
    for writer in 0..WRITERS {
        let (pool, reported, batches) = (pool.clone(), reported.clone(), batches.clone());
        writers.spawn(async move {
            for round in 0.. {
                if batches.fetch_add(1, Ordering::Relaxed) >= BATCHES {
                    return;
                }
                assert!(began.elapsed() < LIMIT, "too few batches");
                let ids: Vec<i64> = (0..BATCH).map(|n| (round * WRITERS + writer) * BATCH + n).collect();
                let params: Vec<[&(dyn ToSql + Sync); 1]> = ids.iter().map(|id| [id as &(dyn ToSql + Sync)]).collect();
                let fails = "INSERT INTO written VALUES ($1 / 0)";
                let statements = params.iter().enumerate();
                let statements = statements.map(|(n, params)| (if n == 2 { fails } else { INSERT }, params as &[_]));
                let statements: Vec<Statement<'_>> = statements.collect();
                let results = pool.shared(Target::Primary).batch(&statements).await.expect("they are accepted");
                let mut all = reported.lock().unwrap();
                for (n, (id, result)) in ids.into_iter().zip(results).enumerate() {
                    let outcome = match result {
                        Ok(response) if n != 2 && response.affected == 1 => Reported::Acknowledged,
                        Ok(response) => panic!("statement {n}: {response:?}"),
                        Err(error) if error.applied() == Applied::No => Reported::NotApplied(format!("{error:?}")),
                        Err(_) => Reported::Unknown,
                    };
                    all.insert(id, outcome);
                }
            }
        });
    }
    while let Some(done) = writers.join_next().await {
        done.expect("the writer does not panic");
    }
    println!("{BATCHES} batches in {:?}, {} cuts", began.elapsed(), proxy.cuts.load(Ordering::Relaxed));
    assert!(proxy.cuts.load(Ordering::Relaxed) > 0, "connections were cut");
    pool.close().await;
    let reported = std::mem::take(&mut *reported.lock().unwrap());
    assert_eq!(reported.len(), BATCHES * BATCH as usize);
    assert_consistent(&cluster, 0, &reported).await;
    cluster.shutdown().await.expect("the cluster shuts down");
}
