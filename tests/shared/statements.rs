use std::error::Error as _;

use podpool::{Applied, Kind, Target, tokio_postgres};
use tokio::task::JoinSet;

use super::{cluster, one, pid, pool_to_one, sessions, superuser};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_get_their_own_rows_over_one_connection() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, "&shared_slow=60s").await;
    let mut callers = JoinSet::new();
    for caller in 0..256i64 {
        let pool = pool.clone();
        callers.spawn(async move {
            let mut pids = Vec::new();
            for round in 0..20i64 {
                let shared = pool.shared(Target::Any);
                let number = caller * 1_000 + round;
                let rows = shared
                    .query(
                        "SELECT $1::int8 + n, pg_backend_pid() FROM generate_series(1, $2::int4) AS n",
                        &[&number, &((round % 3) as i32)],
                    )
                    .await
                    .expect("the statement succeeds");
                let numbers: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
                assert_eq!(numbers, (1..=round % 3).map(|n| number + n).collect::<Vec<_>>());
                pids.extend(rows.iter().map(|row| row.get::<_, i32>(1)));
            }
            pids
        });
    }
    let mut pids = Vec::new();
    while let Some(done) = callers.join_next().await {
        pids.extend(done.expect("the caller does not panic"));
    }
    pids.dedup();
    assert_eq!(pids.len(), 1, "one connection has served all");
    let status = pool.status();
    assert_eq!((status.endpoints[0].owned, status.endpoints[0].shared), (0, 1), "{status:?}");
    assert_eq!(status.endpoints[0].shared_in_flight, 0);
    assert!(sessions(&cluster).await.contains(&pids[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_statements_are_not_sent() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, "").await;
    let before = pid(&pool).await;
    for text in [
        "BEGIN",
        "SET work_mem = '1MB'",
        "LISTEN a",
        "COPY t TO STDOUT",
        "CALL p()",
        "DO $$ BEGIN END $$",
        "CREATE TABLE written (id int)",
        "SELECT 1 INTO written",
        "SELECT 1; SELECT 2",
        "EXPLAIN ANALYZE SELECT 1",
        "",
    ] {
        let error = pool.shared(Target::Any).query(text, &[]).await.expect_err("the statement is refused");
        assert_eq!((error.kind(), error.applied()), (Kind::NotShareable, Applied::No), "{text}");
        assert!(error.to_string().contains("`get`"), "{error}");
    }
    let admin = superuser(&cluster).await;
    let tables = "SELECT count(*) FROM pg_class WHERE relname = 'written'";
    assert_eq!(admin.query_one(tables, &[]).await.expect("the query succeeds").get::<_, i64>(0), 0);
    assert_eq!(pid(&pool).await, before, "the connection is still in use");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_reach_only_their_caller() {
    let cluster = cluster(1).await;
    superuser(&cluster)
        .await
        .batch_execute("CREATE TABLE t (id int PRIMARY KEY); GRANT ALL ON t TO PUBLIC")
        .await
        .unwrap();
    let pool = pool_to_one(&cluster, "").await;
    let before = pid(&pool).await;
    let shared = pool.shared(Target::Any);
    let (insert, divide) = ("INSERT INTO t VALUES ($1)", "SELECT 1 / $1::int4");
    assert_eq!(shared.execute(insert, &[&1i32]).await.expect("the row is inserted"), 1);
    let (duplicate, zero, fine, syntax, other) = tokio::join!(
        shared.execute(insert, &[&1i32]),
        shared.query_one(divide, &[&0i32]),
        shared.query_one(divide, &[&1i32]),
        shared.query("SELECT FROM WHERE", &[]),
        shared.execute(insert, &[&2i32]),
    );
    assert_eq!(fine.expect("the query succeeds").get::<_, i32>(0), 1);
    assert_eq!(other.expect("the row is inserted"), 1);
    for (error, code) in [(duplicate.map(drop), "23505"), (zero.map(drop), "22012"), (syntax.map(drop), "42601")]
        .map(|(r, c)| (r.unwrap_err(), c))
    {
        let source = error.source().expect("there is a source").downcast_ref::<tokio_postgres::Error>();
        assert_eq!(source.and_then(|error| error.code()).map(|code| code.code()), Some(code), "{error}");
        assert_eq!((error.kind(), error.applied()), (Kind::Query, Applied::No), "{error}");
        assert!(error.endpoint().is_some() && error.pool().is_some(), "{error:?}");
    }
    let wrong = shared.query_one(divide, &[&"text"]).await.expect_err("the type is wrong");
    assert_eq!((wrong.kind(), wrong.applied()), (Kind::Query, Applied::No));
    assert!(format!("{wrong:#}").contains("parameter $1"), "{wrong:#}");
    let missing = shared.query_one(divide, &[]).await.expect_err("a parameter is missing");
    assert!(format!("{missing:#}").contains("has 1 parameters, but 0"), "{missing:#}");
    assert!(shared.query_opt("SELECT 1 WHERE false", &[]).await.expect("the query succeeds").is_none());
    assert!(shared.query_opt("SELECT 1", &[]).await.expect("the query succeeds").is_some());
    for result in [
        shared.query_opt("VALUES (1), (2)", &[]).await.map(drop),
        shared.query_one("VALUES (1), (2)", &[]).await.map(drop),
        shared.query_one("SELECT 1 WHERE false", &[]).await.map(drop),
    ] {
        let error = result.expect_err("the number of rows is wrong");
        assert_eq!((error.kind(), error.applied()), (Kind::Query, Applied::Unknown), "{error}");
    }
    assert_eq!(shared.execute("TABLE t", &[]).await.expect("the query succeeds"), 2);
    assert_eq!(shared.query_one("SHOW server_version", &[]).await.expect("the query succeeds").len(), 1);
    assert_eq!(pid(&pool).await, before, "no error has closed the connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_is_prepared_once_for_all_callers() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, "&shared_slow=60s&statement_cache_size=8").await;
    let text = "SELECT $1::int4 + 41";
    let mut callers = JoinSet::new();
    for _ in 0..32 {
        let pool = pool.clone();
        callers.spawn(async move { one::<i32>(&pool, text, &[&1i32]).await });
    }
    while let Some(done) = callers.join_next().await {
        assert_eq!(done.expect("the caller does not panic"), 42);
    }
    let prepared = "SELECT count(*) FROM pg_prepared_statements WHERE statement = $1";
    assert_eq!(one::<i64>(&pool, prepared, &[&text]).await, 1);
    for n in 0..40 {
        assert_eq!(one::<i32>(&pool, &format!("SELECT {n}"), &[]).await, n);
    }
    assert!(one::<i64>(&pool, "SELECT count(*) FROM pg_prepared_statements", &[]).await <= 10);
    // A statement whose plan has become stale runs again.
    let admin = superuser(&cluster).await;
    admin.batch_execute("CREATE TABLE p (a int); INSERT INTO p VALUES (1); GRANT ALL ON p TO PUBLIC").await.unwrap();
    let shared = pool.shared(Target::Any);
    assert_eq!(shared.query_one("SELECT * FROM p", &[]).await.expect("the query succeeds").len(), 1);
    admin.batch_execute("ALTER TABLE p ADD b int").await.unwrap();
    assert_eq!(shared.query_one("SELECT * FROM p", &[]).await.expect("the query succeeds").len(), 2);
}
