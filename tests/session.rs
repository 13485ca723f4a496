//! Tests session state between checkouts: the session reset, the statement cache, and stale cached plans.

use std::time::Duration;

use podpool::{
    Class, Client, Config, Kind, Pool, Target, classify,
    testkit::Cluster,
    tokio_postgres::{Error, error::SqlState},
};

mod common;
use common::until;

/// Returns a pool with one connection to one Pod.
async fn one_connection(cluster: &Cluster, ordinal: usize, parameters: &str) -> Pool {
    let config: Config =
        format!("{}?pool_size=1{parameters}", cluster.pod_url(ordinal)).parse().expect("the URL parses");
    let pool = Pool::builder(config).build().expect("the pool is created");
    drop(pool.get().await.expect("checkout succeeds"));
    idle(&pool).await;
    pool
}

/// Waits until the connection has been returned and recycled.
async fn idle(pool: &Pool) {
    until(Duration::from_secs(5), "an idle connection", || {
        pool.status().endpoints.iter().any(|pod| pod.in_use == 0 && pod.idle > 0)
    })
    .await;
}

/// Returns the first column of the first row.
async fn text(client: &Client, sql: &str) -> String {
    let rows = client.query_typed(sql, &[]).await.expect(sql);
    rows[0].get::<_, Option<String>>(0).unwrap_or_default()
}

/// Returns the session state as text: settings, and the numbers of temporary tables, `LISTEN` channels, advisory locks,
/// holdable cursors, and statements prepared with `PREPARE`.
async fn session_state(client: &Client) -> String {
    let sql = "SELECT concat_ws(' ', \
               'role=' || current_user, 'app=' || current_setting('application_name'), \
               'work_mem=' || current_setting('work_mem'), 'mine=' || current_setting('my.own', true), \
               'temporary=' || (SELECT count(*) FROM pg_class WHERE relpersistence = 't'), \
               'listening=' || (SELECT count(*) FROM pg_listening_channels()), \
               'locks=' || (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), \
               'cursors=' || (SELECT count(*) FROM pg_cursors WHERE is_holdable), \
               'prepared=' || (SELECT count(*) FROM pg_prepared_statements WHERE from_sql))";
    text(client, sql).await
}

/// Statements that change every part of [`session_state`].
const CHANGE_STATE: &str = "SET work_mem = '123MB'; SET my.own = 'secret'; SET application_name = 'another'; \
                            CREATE TEMPORARY TABLE mine (id int); LISTEN mine; SELECT pg_advisory_lock(1); \
                            DECLARE mine CURSOR WITH HOLD FOR SELECT 1; \
                            PREPARE \"my \"\"statement\" AS SELECT 1; PREPARE other AS SELECT 2; SET ROLE none";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_state_is_discarded_unless_reset_is_none() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    for (reset, stays) in [("none", true), ("discard", false)] {
        let pool = one_connection(&cluster, 0, &format!("&reset={reset}&application_name=shop")).await;
        let client = pool.get().await.expect("checkout succeeds");
        let (before, pid) = (session_state(&client).await, text(&client, "SELECT pg_backend_pid()::text").await);
        let statement = client.prepare_cached("SELECT 7").await.expect("the statement is prepared");
        client.batch_execute(CHANGE_STATE).await.expect("the statement succeeds");
        let changed = session_state(&client).await;
        for part in ["work_mem=123MB", "prepared=2", "locks=1"] {
            assert!(changed.contains(part), "{changed}");
        }
        drop((statement, client));

        let client = pool.get().await.expect("checkout succeeds");
        assert_eq!(text(&client, "SELECT pg_backend_pid()::text").await, pid, "the same session");
        let found = session_state(&client).await;
        println!("reset={reset}: {found}");
        match stays {
            true => assert_eq!(found, changed),
            // The server keeps the name of the custom setting, but discards its value.
            false => assert_eq!(found.replace(" mine= ", " "), before, "the state of a new session"),
        }
        // The statement that the driver prepared survives the reset and is not prepared again.
        assert_eq!(client.statement_cache.size(), 1);
        let statement = client.prepare_cached("SELECT 7").await.expect("the statement is prepared");
        client.query_one(&statement, &[]).await.expect("the statement succeeds");
        let count = text(&client, "SELECT count(*)::text FROM pg_prepared_statements WHERE NOT from_sql").await;
        assert_eq!(count, "1");
        drop((statement, client));
        let counters = pool.status().counters;
        assert_eq!((counters.discarded, counters.opened), (0, 1), "{counters:?}");
        assert_eq!(counters.reset == 0, stays, "{counters:?}");
    }

    // The reset also works on a standby and after an open transaction. It is skipped if the caller sent no statement.
    let pool = one_connection(&cluster, 1, "&reset=discard").await;
    let client = pool.get().await.expect("checkout succeeds");
    client.batch_execute("SET work_mem = '123MB'; BEGIN; SELECT 1").await.expect("the statement succeeds");
    drop(client);
    let client = pool.get().await.expect("checkout succeeds");
    assert_ne!(text(&client, "SHOW work_mem").await, "123MB");
    drop(client);
    idle(&pool).await;
    let reset = pool.status().counters.reset;
    for _ in 0..20 {
        drop(pool.get().await.expect("checkout succeeds"));
        assert_eq!(pool.status().endpoints[0].idle, 1, "expected the connection to be idle immediately");
    }
    let counters = pool.status().counters;
    assert_eq!((counters.reset, counters.discarded), (reset, 0), "{counters:?}");
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Returns the number of named prepared statements on the server.
async fn prepared_on_the_server(client: &Client) -> String {
    text(client, "SELECT count(*)::text FROM pg_prepared_statements WHERE name <> ''").await
}

async fn run(client: &Client, sql: &str) -> Result<usize, Error> {
    let statement = client.prepare_cached(sql).await?;
    client.query(&statement, &[]).await.map(|rows| rows.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statement_cache_is_bounded_and_cleared_when_outdated() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");

    // After each check-in, the cache and the server hold at most 10 statements. No connection is closed to enforce
    // that.
    let pool = one_connection(&cluster, 0, "&statement_cache_size=10").await;
    let mut max = 0;
    for round in 0..40 {
        let client = pool.get().await.expect("checkout succeeds");
        max = max.max(client.statement_cache.size());
        assert!(prepared_on_the_server(&client).await.parse::<usize>().expect("the count is a number") <= 10);
        for statement in 0..3 {
            run(&client, &format!("SELECT {}", round * 3 + statement)).await.expect("the statement succeeds");
        }
    }
    idle(&pool).await;
    let counters = pool.status().counters;
    println!("120 statements through a cache of 10: at most {max} kept; {counters:?}");
    assert!((8..=10).contains(&max), "{max}");
    assert!(counters.statement_caches_cleared >= 9 && counters.opened == 1, "{counters:?}");
    // Uncached statements do not clear the cache.
    let before = pool.status().counters.statement_caches_cleared;
    let client = pool.get().await.expect("checkout succeeds");
    client.statement_cache.clear();
    for _ in 0..50 {
        client.query("SELECT 1", &[]).await.expect("the statement succeeds");
    }
    drop(client);
    idle(&pool).await;
    assert_eq!(pool.status().counters.statement_caches_cleared, before);
    let none = one_connection(&cluster, 0, "&statement_cache_size=0").await;
    run(&none.get().await.expect("checkout succeeds"), "SELECT 1").await.expect("the statement succeeds");
    assert_eq!(none.get().await.expect("checkout succeeds").statement_cache.size(), 0);

    // A table changes after the plan of a query on it was cached: one query fails, and queries after the next checkout
    // succeed.
    let pool = one_connection(&cluster, 0, "").await;
    let client = pool.get().await.expect("checkout succeeds");
    client
        .batch_execute("CREATE TABLE orders (id int); INSERT INTO orders VALUES (1)")
        .await
        .expect("the table is created");
    assert_eq!(run(&client, "SELECT * FROM orders").await.expect("the statement succeeds"), 1);
    client.batch_execute("ALTER TABLE orders ADD COLUMN item text").await.expect("the column is added");
    let error = run(&client, "SELECT * FROM orders").await.expect_err("the cached plan is stale");
    assert_eq!(error.code(), Some(&SqlState::FEATURE_NOT_SUPPORTED), "{error:?}");
    assert_eq!(classify(&error).class, Class::StalePlan);
    drop(client);
    let client = pool.get().await.expect("checkout succeeds");
    assert_eq!(run(&client, "SELECT * FROM orders").await.expect("the statement succeeds"), 1);

    // The pool detects DEALLOCATE ALL and DISCARD ALL from the server's response, so no query fails.
    drop(client);
    for all in ["DEALLOCATE ALL", "DISCARD ALL"] {
        let client = pool.get().await.expect("checkout succeeds");
        assert_eq!(run(&client, "SELECT 2").await.expect("the statement succeeds"), 1);
        client.batch_execute(all).await.expect("the statement succeeds");
    }
    let client = pool.get().await.expect("checkout succeeds");
    assert_eq!(run(&client, "SELECT 2").await.expect("the statement succeeds"), 1);

    // The pool does not detect DEALLOCATE of a single statement: one query fails, and queries after the next checkout
    // succeed.
    let names = "SELECT string_agg('DEALLOCATE ' || name, ';') FROM pg_prepared_statements WHERE name <> ''";
    client.batch_execute(&text(&client, names).await).await.expect("the statement succeeds");
    let error = run(&client, "SELECT 2").await.expect_err("the statement no longer exists");
    assert_eq!(error.code(), Some(&SqlState::INVALID_SQL_STATEMENT_NAME), "{error:?}");
    assert_eq!(classify(&error).class, Class::StalePlan);
    drop(client);
    let client = pool.get().await.expect("checkout succeeds");
    assert_eq!(run(&client, "SELECT 2").await.expect("the statement succeeds"), 1);
    assert_eq!(pool.status().counters.opened, 1);

    // The driver cannot prepare its internal statement for type lookups again. The failed lookup is this connection's
    // second error because of a missing statement, so the pool closes the connection.
    client
        .batch_execute("CREATE TYPE mood AS ENUM ('glad'); CREATE TYPE size AS ENUM ('big')")
        .await
        .expect("the types are created");
    run(&client, "SELECT 'glad'::mood").await.expect("the statement succeeds");
    client.batch_execute("DEALLOCATE ALL").await.expect("the statement succeeds");
    drop(client);
    for failed in [true, false] {
        let client = pool.get().await.expect("checkout succeeds");
        assert_eq!(run(&client, "SELECT 'big'::size").await.is_err(), failed);
    }
    idle(&pool).await;
    assert_eq!(pool.status().counters.opened, 2);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retry_retries_an_outdated_plan_but_retry_unapplied_does_not() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let pool = Pool::connect(&format!("{}&pool_size=6", cluster.url())).await.expect("the pool is created");
    let admin = cluster.client(0).await.expect("the superuser connects");
    admin
        .batch_execute("CREATE TABLE stock (id int); INSERT INTO stock VALUES (1); GRANT ALL ON stock TO PUBLIC")
        .await
        .expect("the table is created");
    const SQL: &str = "SELECT * FROM stock";
    // Caches the plan of the query on every connection.
    let mut clients = Vec::new();
    for _ in 0..6 {
        let client = pool.get().await.expect("checkout succeeds");
        run(&client, SQL).await.expect("the statement succeeds");
        clients.push(client);
    }
    drop(clients);
    admin.batch_execute("ALTER TABLE stock ADD COLUMN item text").await.expect("the column is added");
    let work = |client: Client| async move { run(&client, SQL).await };

    // Keeps the client checked out. The pool would clear the statement cache of a returned connection, and the next
    // call might then use that connection instead of one with a stale plan.
    let kept = std::sync::Mutex::new(None);
    let keep = |client: Client| {
        let kept = &kept;
        async move {
            let result = run(&client, SQL).await;
            *kept.lock().expect("no attempt panicked") = Some(client);
            result
        }
    };
    let error = pool.retry_unapplied(Target::Any, keep).await.expect_err("a retry may apply the statement twice");
    assert_eq!(error.kind(), Kind::Query, "{error}");
    // Five connections still have the stale plan in their caches, but one retry is enough.
    assert_eq!(pool.retry(Target::Any, work).await.expect("the statement succeeds"), 1);
    assert_eq!(pool.status().counters.retries, 1);
    drop(kept);
    cluster.shutdown().await.expect("the cluster shuts down");
}
