//! Tests `reset=auto`: the pool notices that a caller may have changed session state, and resets that session only.

use std::time::Duration;

use podpool::{Client, Config, Pool, testkit::Cluster};

mod common;
use common::until;

/// Starts servers whose user may execute every statement of the tests.
async fn start(pods: usize) -> Cluster {
    let cluster = Cluster::start(pods).await.expect("the cluster starts");
    let sql = format!("ALTER ROLE \"{}\" SUPERUSER; CREATE ROLE other; CREATE TABLE t (x int)", cluster.user());
    let admin = cluster.client(0).await.expect("the superuser connects");
    admin.batch_execute(&sql).await.expect("the roles are changed");
    for (name, parameter) in [("hidden", "my.own"), ("reported", "TimeZone")] {
        let sql = format!(
            "CREATE FUNCTION {name}(value text) RETURNS text LANGUAGE sql AS \
             $$SELECT set_config('{parameter}', value, false)$$"
        );
        admin.batch_execute(&sql).await.expect("the function is created");
    }
    let sql = "CREATE PROCEDURE change() LANGUAGE plpgsql AS \
               $$BEGIN PERFORM hidden('secret'); COMMIT; RAISE 'failed'; END$$";
    admin.batch_execute(sql).await.expect("the procedure is created");
    cluster.wait_replicated().await.expect("the standbys replay the functions");
    cluster
}

/// Returns a pool with one connection to one Pod.
async fn one_connection(cluster: &Cluster, ordinal: usize, reset: &str) -> Pool {
    let url = format!("{}?pool_size=1&application_name=shop{TIMEOUTS}&reset={reset}", cluster.pod_url(ordinal));
    let config: Config = url.parse().expect("the URL parses");
    let pool = Pool::builder(config).build().expect("the pool is created");
    drop(pool.get().await.expect("checkout succeeds"));
    idle(&pool).await;
    pool
}

/// Long timeouts, because a slow machine must not fail the tests.
const TIMEOUTS: &str = "&connect_timeout=20s&acquire_timeout=60s";

/// Waits until the connection has been returned and recycled.
async fn idle(pool: &Pool) {
    until(Duration::from_secs(5), "an idle connection", || {
        pool.status().endpoints.iter().any(|pod| pod.in_use == 0 && pod.idle > 0)
    })
    .await;
}

async fn check_out(pool: &Pool) -> Client {
    pool.get().await.expect("checkout succeeds")
}

/// Returns the first column of the first row.
async fn text(client: &Client, sql: &str) -> String {
    let rows = client.query_typed(sql, &[]).await.expect(sql);
    rows[0].get::<_, Option<String>>(0).unwrap_or_default()
}

/// Returns the session state as text. The statement contains no word for which the pool would reset the session.
async fn state(client: &Client) -> String {
    let sql = "SELECT concat_ws(' ', 'user=' || session_user, 'role=' || current_user, \
               (SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings WHERE name IN \
               ('application_name', 'DateStyle', 'default_transaction_read_only', 'IntervalStyle', 'search_path', \
               'TimeZone', 'work_mem')), 'my.own=' || nullif(current_setting('my.own', true), ''), \
               'tables=' || (SELECT count(*) FROM pg_class WHERE relnamespace = pg_my_temp_schema()), \
               'functions=' || (SELECT count(*) FROM pg_proc WHERE pronamespace = pg_my_temp_schema()), \
               'listening=' || (SELECT count(*) FROM pg_listening_channels()), \
               'locks=' || (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), \
               'cursors=' || (SELECT count(*) FROM pg_cursors WHERE is_holdable), \
               'prepared=' || (SELECT count(*) FROM pg_prepared_statements WHERE from_sql))";
    text(client, sql).await
}

/// Statements that change [`state`].
const CHANGES: &[&str] = &[
    "SET work_mem = '123MB'",
    "set session my.own = 'secret'",
    "/* SET LOCAL */ SET work_mem = '123MB'",
    "SET local.own = 1",
    "SET ROLE other",
    "SET SESSION AUTHORIZATION other",
    "SET search_path = pg_catalog",
    "SET TIME ZONE 'Asia/Tokyo'",
    "SET DateStyle = 'German'",
    "SET IntervalStyle = 'iso_8601'",
    "SET application_name = 'another'",
    "SET default_transaction_read_only = on",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "DO $$BEGIN EXECUTE 'SET ' || 'work_mem = ''123MB'''; END$$",
    "SELECT set_config('my.own', 'secret', false)",
    "SELECT reported('Asia/Tokyo')",
    "CREATE TEMP TABLE mine (id int)",
    "create local temporary table mine as select 1",
    "CREATE TEMPORARY VIEW mine AS SELECT 1",
    "CREATE TEMP SEQUENCE mine",
    "CREATE TABLE pg_temp.mine (id int)",
    "CREATE FUNCTION pg_temp.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "SELECT 1 AS id INTO TEMP mine",
    "LISTEN mine",
    "PREPARE \"my \"\"statement\" AS SELECT 1",
    "DECLARE mine CURSOR WITH HOLD FOR SELECT 1",
    "SELECT pg_advisory_lock(1)",
    "SELECT pg_try_advisory_lock_shared(1, 2)",
];

/// Changes that a reset does not undo, or that do not show in [`state`].
const INVISIBLE: &[&str] = &["SET local.own = 1", "LOAD 'auto_explain'"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn next_caller_sees_no_change() {
    let cluster = start(2).await;
    let pool = one_connection(&cluster, 0, "auto").await;
    let client = check_out(&pool).await;
    let (before, pid) = (state(&client).await, text(&client, "SELECT pg_backend_pid()::text").await);
    drop(client);
    let mut resets = 0;
    for sql in CHANGES.iter().chain(&["LOAD 'auto_explain'"]) {
        for protocol in ["simple", "prepared", "typed"] {
            let client = check_out(&pool).await;
            match protocol {
                "simple" => client.batch_execute(sql).await,
                "prepared" => client.execute(*sql, &[]).await.map(drop),
                _ => client.query_typed(sql, &[]).await.map(drop),
            }
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
            let changed = state(&client).await;
            assert!(changed != before || INVISIBLE.contains(sql), "{sql}: {before}");
            drop(client);
            let client = check_out(&pool).await;
            assert_eq!(state(&client).await, before, "{sql}, {protocol}");
            assert_eq!(text(&client, "SELECT pg_backend_pid()::text").await, pid, "the same session");
            drop(client);
            resets += 1;
            let counters = pool.status().counters;
            assert_eq!((counters.reset, counters.opened, counters.discarded), (resets, 1, 0), "{sql}: {counters:?}");
        }
    }
    println!("{resets} changes, each undone by one reset");

    // A standby, and an open transaction.
    let pool = one_connection(&cluster, 1, "auto").await;
    let client = check_out(&pool).await;
    client.batch_execute("SET work_mem = '123MB'; BEGIN; SELECT 1").await.expect("the statements succeed");
    drop(client);
    assert_ne!(text(&check_out(&pool).await, "SHOW work_mem").await, "123MB");
    idle(&pool).await;
    let counters = pool.status().counters;
    assert_eq!((counters.reset, counters.opened), (1, 1), "{counters:?}");
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Work after which the session is as before. None of it requires a reset.
async fn work_without_changes(client: &mut Client, case: usize) -> Result<(), podpool::tokio_postgres::Error> {
    match case {
        0 => client.batch_execute("SELECT 1").await?,
        1 => client.batch_execute("INSERT INTO t VALUES (1); UPDATE t SET x = 2; DELETE FROM t").await?,
        2 => {
            let statement = client.prepare_cached("SELECT x FROM t WHERE x = $1").await?;
            client.query(&statement, &[&1]).await?;
        }
        // The name of a column.
        3 => drop(client.query_typed("SELECT temp FROM (SELECT 1 AS temp) AS readings", &[]).await?),
        4 => client.batch_execute("NOTIFY mine; UNLISTEN mine; SHOW work_mem; EXPLAIN SELECT 1").await?,
        // Changes that end with the transaction, committed or rolled back.
        5..=10 => {
            let transaction = client.transaction().await?;
            match case {
                5 => {
                    let sql = "SET LOCAL work_mem = '123MB'; SET LOCAL my.own = 'local'";
                    transaction.batch_execute(sql).await?;
                }
                6 => drop(transaction.execute("SET LOCAL TIME ZONE 'Asia/Tokyo'", &[]).await?),
                7 => drop(transaction.execute("SET TRANSACTION READ ONLY", &[]).await?),
                8 => {
                    let statement = transaction.prepare_cached("SELECT set_config('my.own', $1, true)").await?;
                    transaction.query(&statement, &[&"local"]).await?;
                }
                9 => drop(transaction.query("SELECT pg_advisory_xact_lock(1)", &[]).await?),
                _ => drop(transaction.query("SELECT reported('Asia/Tokyo')", &[]).await?),
            }
            // A function has changed the time zone of the session, so that transaction is rolled back.
            if case != 10 {
                transaction.commit().await?;
            }
        }
        // The pool rolls the open transaction back.
        _ => client.batch_execute("BEGIN; SELECT x FROM t FOR UPDATE; SELECT reported('Asia/Tokyo')").await?,
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unchanged_sessions_are_not_reset() {
    let cluster = start(1).await;
    for (reset, stays) in [("auto", true), ("none", true), ("discard", false)] {
        let pool = one_connection(&cluster, 0, reset).await;
        // The pool cannot notice that this function changes a parameter that the server does not report. The parameter
        // therefore shows whether the server has executed a reset.
        let hidden = text(&check_out(&pool).await, "SELECT hidden('kept')").await;
        assert_eq!(hidden, "kept");
        for round in 0..3 {
            for case in 0..=11 {
                let mut client = check_out(&pool).await;
                work_without_changes(&mut client, case).await.unwrap_or_else(|error| panic!("case {case}: {error}"));
                drop(client);
                let client = check_out(&pool).await;
                let own = text(&client, "SELECT current_setting('my.own', true)").await;
                assert_eq!(own == "kept", stays, "reset={reset}, case {case}, round {round}: {own:?}");
                let prepared = "SELECT count(*)::text FROM pg_prepared_statements WHERE name <> '' AND NOT from_sql";
                let expected = match (round, case) {
                    (0, 0 | 1) => "0",
                    (0, 2..=7) => "1",
                    _ => "2",
                };
                assert_eq!(text(&client, prepared).await, expected, "case {case}");
            }
        }
        idle(&pool).await;
        let counters = pool.status().counters;
        println!("reset={reset}: {} resets", counters.reset);
        assert_eq!(counters.reset == 0, stays, "{counters:?}");
        assert_eq!((counters.opened, counters.statement_caches_cleared), (1, 0), "{counters:?}");
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cached_statements_change_the_session_in_later_checkouts_too() {
    const SQL: &str = "SELECT set_config('my.own', $1, false), pg_try_advisory_lock(7)";
    let cluster = start(1).await;
    let pool = one_connection(&cluster, 0, "auto").await;
    let before = state(&check_out(&pool).await).await;
    for round in 1..=5 {
        let client = check_out(&pool).await;
        let statement = client.prepare_cached(SQL).await.expect("the statement is prepared");
        client.query(&statement, &[&"secret"]).await.expect("the statement succeeds");
        let changed = state(&client).await;
        assert!(changed.contains("my.own=secret") && changed.contains("locks=1"), "{changed}");
        drop((statement, client));
        let client = check_out(&pool).await;
        assert_eq!(state(&client).await, before, "round {round}");
        assert_eq!(client.statement_cache.size(), 1, "the statement stays prepared");
        drop(client);
        // A checkout that does not execute the statement is not followed by a reset.
        assert_eq!(pool.status().counters.reset, round);
    }
    let count = "SELECT count(*)::text FROM pg_prepared_statements WHERE name <> '' AND NOT from_sql";
    assert_eq!(text(&check_out(&pool).await, count).await, "1");
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_statements_cause_no_later_reset() {
    let cluster = start(1).await;
    let pool = one_connection(&cluster, 0, "auto").await;
    let client = check_out(&pool).await;
    for number in 0..1100 {
        let sql = format!("SELECT set_config('my.own', missing{number}, false)");
        client.prepare(&sql).await.expect_err("the column is missing");
    }
    drop(client);
    for _ in 0..5 {
        idle(&pool).await;
        let client = check_out(&pool).await;
        client.query("SELECT x FROM t", &[]).await.expect("the statement succeeds");
        text(&client, "SELECT 'text'").await;
    }
    idle(&pool).await;
    let counters = pool.status().counters;
    assert_eq!((counters.reset, counters.opened, counters.discarded), (1, 1, 0), "{counters:?}");
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blocks_that_commit_and_then_fail_are_followed_by_a_reset() {
    let cluster = start(1).await;
    let pool = one_connection(&cluster, 0, "auto").await;
    let before = state(&check_out(&pool).await).await;
    let block = "DO $$BEGIN SET my.own = 'secret'; COMMIT; RAISE 'failed'; END$$";
    for (number, sql) in ["CALL change()", block].into_iter().enumerate() {
        for (protocol, prepared) in [false, true].into_iter().enumerate() {
            let client = check_out(&pool).await;
            if prepared {
                client.execute(sql, &[]).await.expect_err("the block fails");
            } else {
                client.batch_execute(sql).await.expect_err("the block fails");
            }
            assert!(state(&client).await.contains("my.own=secret"), "{sql}");
            drop(client);
            assert_eq!(state(&check_out(&pool).await).await, before, "{sql}");
            idle(&pool).await;
            assert_eq!(pool.status().counters.reset, (2 * number + protocol) as u64 + 1, "{sql}");
        }
    }
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_that_set_parameters_are_followed_by_a_reset() {
    let cluster = start(1).await;
    let pool = one_connection(&cluster, 0, "auto").await;
    let before = state(&check_out(&pool).await).await;
    // The response to `SET` does not show that the change was rolled back, so the reset is needless in two cases.
    for (number, sql) in [
        "BEGIN; SET work_mem = '123MB'; ROLLBACK",
        "BEGIN; SET work_mem = '123MB'",
        "BEGIN; SET LOCAL work_mem = '123MB'; SET my.own = 'secret'; COMMIT",
    ]
    .into_iter()
    .enumerate()
    {
        check_out(&pool).await.batch_execute(sql).await.expect("the statements succeed");
        assert_eq!(state(&check_out(&pool).await).await, before, "{sql}");
        idle(&pool).await;
        assert_eq!(pool.status().counters.reset, number as u64 + 1, "{sql}");
    }
    // A change of the server's configuration costs at most one connection. Later values are compared with the new ones.
    let admin = cluster.client(0).await.expect("the superuser connects");
    admin.batch_execute("ALTER SYSTEM SET TimeZone = 'Asia/Tokyo'").await.expect("the setting is valid");
    admin.batch_execute("SELECT pg_reload_conf()").await.expect("the configuration is loaded");
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while text(&check_out(&pool).await, "SHOW TimeZone").await != "Asia/Tokyo" {
        assert!(std::time::Instant::now() < deadline, "the new time zone is not in effect");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for _ in 0..10 {
        text(&check_out(&pool).await, "SHOW TimeZone").await;
        check_out(&pool).await.batch_execute("BEGIN; SET LOCAL TimeZone = 'UTC'").await.expect("the setting is valid");
    }
    idle(&pool).await;
    let counters = pool.status().counters;
    assert!(counters.reset == 3 && counters.opened <= 2, "{counters:?}");
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}
