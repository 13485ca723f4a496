//! What a session keeps beyond its transactions: its prepared statements, and its own state.

use std::time::Duration;

use podpool::{
    Class, Client, Config, Kind, Pool, Target, classify,
    testkit::Cluster,
    tokio_postgres::{Error, error::SqlState},
};

mod common;
use common::until;

/// A pool of one Pod, the `ordinal`th, with one connection.
async fn one_connection(cluster: &Cluster, ordinal: usize, parameters: &str) -> Pool {
    let config: Config = format!("{}?pool_size=1{parameters}", cluster.pod_url(ordinal)).parse().expect("a URL");
    let pool = Pool::builder(config).build().expect("a pool");
    drop(pool.get().await.expect("a connection"));
    idle(&pool).await;
    pool
}

/// Waits until the connection is back.
async fn idle(pool: &Pool) {
    until(Duration::from_secs(5), "the connection is back", || {
        pool.status().endpoints.iter().any(|pod| pod.in_use == 0 && pod.idle > 0)
    })
    .await;
}

async fn text(client: &Client, sql: &str) -> String {
    let rows = client.query_typed(sql, &[]).await.expect(sql);
    rows[0].get::<_, Option<String>>(0).unwrap_or_default()
}

/// What a borrower left behind: settings, temporary tables, LISTEN, advisory locks, cursors, statements of PREPARE.
async fn leavings(client: &Client) -> String {
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

const LEAVE: &str = "SET work_mem = '123MB'; SET my.own = 'secret'; SET application_name = 'somebody else'; \
                     CREATE TEMPORARY TABLE mine (id int); LISTEN mine; SELECT pg_advisory_lock(1); \
                     DECLARE mine CURSOR WITH HOLD FOR SELECT 1; \
                     PREPARE \"my \"\"statement\" AS SELECT 1; PREPARE other AS SELECT 2; SET ROLE none";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reset_discards_what_a_borrower_left_and_none_leaves_it() {
    let cluster = Cluster::start(2).await.expect("a cluster");
    for (reset, stays) in [("none", true), ("discard", false)] {
        let pool = one_connection(&cluster, 0, &format!("&reset={reset}&application_name=shop")).await;
        let client = pool.get().await.expect("a connection");
        let (before, pid) = (leavings(&client).await, text(&client, "SELECT pg_backend_pid()::text").await);
        let statement = client.prepare_cached("SELECT 7").await.expect("a statement");
        client.batch_execute(LEAVE).await.expect("an answer");
        let left = leavings(&client).await;
        assert!(left.contains("work_mem=123MB") && left.contains("prepared=2") && left.contains("locks=1"), "{left}");
        drop((statement, client));

        let client = pool.get().await.expect("a connection");
        assert_eq!(text(&client, "SELECT pg_backend_pid()::text").await, pid, "the same session");
        let found = leavings(&client).await;
        println!("reset={reset}: {found}");
        match stays {
            true => assert_eq!(found, left),
            // The server remembers that there was such a setting, and nothing of it.
            false => assert_eq!(found.replace(" mine= ", " "), before, "as if new"),
        }
        // What the driver prepared is there still, and not prepared again.
        assert_eq!(client.statement_cache.size(), 1);
        let statement = client.prepare_cached("SELECT 7").await.expect("a statement");
        client.query_one(&statement, &[]).await.expect("an answer");
        let count = text(&client, "SELECT count(*)::text FROM pg_prepared_statements WHERE NOT from_sql").await;
        assert_eq!(count, "1");
        drop((statement, client));
        let counters = pool.status().counters;
        assert_eq!((counters.discarded, counters.opened), (0, 1), "{counters:?}");
        assert_eq!(counters.reset == 0, stays, "{counters:?}");
    }

    // On a standby as well, after an open transaction, and never for one who sent nothing.
    let pool = one_connection(&cluster, 1, "&reset=discard").await;
    let client = pool.get().await.expect("a connection");
    client.batch_execute("SET work_mem = '123MB'; BEGIN; SELECT 1").await.expect("an answer");
    drop(client);
    let client = pool.get().await.expect("a connection");
    assert_ne!(text(&client, "SHOW work_mem").await, "123MB");
    drop(client);
    idle(&pool).await;
    let reset = pool.status().counters.reset;
    for _ in 0..20 {
        drop(pool.get().await.expect("a connection"));
        assert_eq!(pool.status().endpoints[0].idle, 1, "back at once");
    }
    let counters = pool.status().counters;
    assert_eq!((counters.reset, counters.discarded), (reset, 0), "{counters:?}");
    drop(pool);
    cluster.shutdown().await.expect("an orderly end");
}

/// Statements that the server keeps for the driver.
async fn on_the_server(client: &Client) -> String {
    text(client, "SELECT count(*)::text FROM pg_prepared_statements WHERE name <> ''").await
}

async fn run(client: &Client, sql: &str) -> Result<usize, Error> {
    let statement = client.prepare_cached(sql).await?;
    client.query(&statement, &[]).await.map(|rows| rows.len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_statement_cache_is_bounded_and_emptied_when_outdated() {
    let cluster = Cluster::start(1).await.expect("a cluster");

    // Bounded: at most so many after any return, on the server too; and nothing is closed for it.
    let pool = one_connection(&cluster, 0, "&statement_cache_size=10").await;
    let mut most = 0;
    for round in 0..40 {
        let client = pool.get().await.expect("a connection");
        most = most.max(client.statement_cache.size());
        assert!(on_the_server(&client).await.parse::<usize>().expect("a number") <= 10);
        for statement in 0..3 {
            run(&client, &format!("SELECT {}", round * 3 + statement)).await.expect("an answer");
        }
    }
    idle(&pool).await;
    let counters = pool.status().counters;
    println!("120 statements through a cache of 10: at most {most} kept; {counters:?}");
    assert!((8..=10).contains(&most), "{most}");
    assert!(counters.cache_cleared >= 9 && counters.opened == 1, "{counters:?}");
    // Statements that are not cached make it look, and it finds nothing over.
    let before = pool.status().counters.cache_cleared;
    let client = pool.get().await.expect("a connection");
    client.statement_cache.clear();
    for _ in 0..50 {
        client.query("SELECT 1", &[]).await.expect("an answer");
    }
    drop(client);
    idle(&pool).await;
    assert_eq!(pool.status().counters.cache_cleared, before);
    let none = one_connection(&cluster, 0, "&statement_cache_size=0").await;
    run(&none.get().await.expect("a connection"), "SELECT 1").await.expect("an answer");
    assert_eq!(none.get().await.expect("a connection").statement_cache.size(), 0);

    // A table that changes under a cached plan: one error, and the next borrower has none.
    let pool = one_connection(&cluster, 0, "").await;
    let client = pool.get().await.expect("a connection");
    client.batch_execute("CREATE TABLE orders (id int); INSERT INTO orders VALUES (1)").await.expect("a table");
    assert_eq!(run(&client, "SELECT * FROM orders").await.expect("an answer"), 1);
    client.batch_execute("ALTER TABLE orders ADD COLUMN item text").await.expect("a column");
    let error = run(&client, "SELECT * FROM orders").await.expect_err("an outdated plan");
    assert_eq!(error.code(), Some(&SqlState::FEATURE_NOT_SUPPORTED), "{error:?}");
    assert_eq!(classify(&error).class, Class::StalePlan);
    drop(client);
    let client = pool.get().await.expect("a connection");
    assert_eq!(run(&client, "SELECT * FROM orders").await.expect("an answer"), 1);

    // Statements that are deallocated behind the driver's back: seen by the server's word for it, before anybody fails.
    drop(client);
    for all in ["DEALLOCATE ALL", "DISCARD ALL"] {
        let client = pool.get().await.expect("a connection");
        assert_eq!(run(&client, "SELECT 2").await.expect("an answer"), 1);
        client.batch_execute(all).await.expect("an answer");
    }
    let client = pool.get().await.expect("a connection");
    assert_eq!(run(&client, "SELECT 2").await.expect("an answer"), 1);

    // A single one that goes: one error, and the next borrower has none.
    let names = "SELECT string_agg('DEALLOCATE ' || name, ';') FROM pg_prepared_statements WHERE name <> ''";
    client.batch_execute(&text(&client, names).await).await.expect("an answer");
    let error = run(&client, "SELECT 2").await.expect_err("a missing statement");
    assert_eq!(error.code(), Some(&SqlState::INVALID_SQL_STATEMENT_NAME), "{error:?}");
    assert_eq!(classify(&error).class, Class::StalePlan);
    drop(client);
    let client = pool.get().await.expect("a connection");
    assert_eq!(run(&client, "SELECT 2").await.expect("an answer"), 1);
    assert_eq!(pool.status().counters.opened, 1);

    // The driver's own statement, which looks types up, cannot be had back: closed at the second error.
    client.batch_execute("CREATE TYPE mood AS ENUM ('glad'); CREATE TYPE size AS ENUM ('big')").await.expect("types");
    run(&client, "SELECT 'glad'::mood").await.expect("an answer");
    client.batch_execute("DEALLOCATE ALL").await.expect("an answer");
    drop(client);
    for failed in [true, false] {
        let client = pool.get().await.expect("a connection");
        assert_eq!(run(&client, "SELECT 'big'::size").await.is_err(), failed);
    }
    idle(&pool).await;
    assert_eq!(pool.status().counters.opened, 2);
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outdated_plan_is_retried_by_retry_alone() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let pool = Pool::connect(&format!("{}&pool_size=6", cluster.url())).await.expect("a pool");
    let admin = cluster.client(0).await.expect("a superuser");
    admin
        .batch_execute("CREATE TABLE stock (id int); INSERT INTO stock VALUES (1); GRANT ALL ON stock TO PUBLIC")
        .await
        .expect("a table");
    const SQL: &str = "SELECT * FROM stock";
    // Every connection has the plan.
    let mut clients = Vec::new();
    for _ in 0..6 {
        let client = pool.get().await.expect("a connection");
        run(&client, SQL).await.expect("an answer");
        clients.push(client);
    }
    drop(clients);
    admin.batch_execute("ALTER TABLE stock ADD COLUMN item text").await.expect("a column");
    let work = |client: Client| async move { run(&client, SQL).await };

    // Kept, so that it does not come back without its plan before the others are tried.
    let kept = std::sync::Mutex::new(None);
    let keep = |client: Client| {
        let kept = &kept;
        async move {
            let result = run(&client, SQL).await;
            *kept.lock().expect("no panic") = Some(client);
            result
        }
    };
    let error = pool.retry_unapplied(Target::Any, keep).await.expect_err("not where doing it twice may harm");
    assert_eq!(error.kind(), Kind::Query, "{error}");
    // Five connections have it still, and one repetition is enough.
    assert_eq!(pool.retry(Target::Any, work).await.expect("an answer"), 1);
    assert_eq!(pool.status().counters.retries, 1);
    drop(kept);
    cluster.shutdown().await.expect("an orderly end");
}
