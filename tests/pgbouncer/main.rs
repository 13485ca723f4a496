//! Tests pools behind a real PgBouncer. In session mode, every feature works. In transaction mode, `query_typed` and
//! simple queries work, and named statements since PgBouncer 1.21. PgBouncer does not report the server's role, so the
//! pool queries it.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use podpool::{
    Class, Client, Event, Pool, Role, State, Target, classify,
    testkit::Cluster,
    tokio_postgres::{SimpleQueryMessage, types::Type},
};

mod bouncer;
#[path = "../common/mod.rs"]
mod common;
mod messages;

use bouncer::Bouncer;
use common::{programs::programs, until};

const LONG: Duration = Duration::from_secs(20);

/// Returns the major and the minor version of PgBouncer: (1, 25) from `PgBouncer 1.25.2`.
fn version(program: &Path) -> (u32, u32) {
    let output = Command::new(program).arg("--version").output().expect("PgBouncer prints its version");
    let text = String::from_utf8(output.stdout).expect("the version is text");
    let number = text.lines().next().and_then(|line| line.strip_prefix("PgBouncer ")).expect("the version is first");
    let mut parts = number.split('.').map(|part| part.parse().expect("the version consists of numbers"));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// Doubles a number on the server. The query has a parameter, takes one round trip, and uses no named statement.
async fn doubled(client: &Client, number: i32) -> i32 {
    let rows = client.query_typed("SELECT $1 * 2", &[(&number, Type::INT4)]).await.expect("the query returns a row");
    rows[0].get(0)
}

/// Returns true if the connection is in a transaction.
async fn is_in_transaction(client: &Client) -> bool {
    let sql = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL OR now() <> statement_timestamp()";
    let messages = client.simple_query(sql).await.expect("the query returns a row");
    messages.iter().any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("t")))
}

/// Asserts that the pool rolls back and reuses a connection that was returned with an open transaction, so that the
/// next caller is not in that transaction.
async fn assert_transactions_are_rolled_back(pool: &Pool) {
    for round in 0..12 {
        let client = pool.get().await.expect("checkout succeeds");
        match round % 2 {
            0 => client.batch_execute("BEGIN; SELECT 1").await.expect("the transaction begins"),
            _ => drop(client.batch_execute("BEGIN; SELECT 1/0").await),
        }
        drop(client);
        let client = pool.get().await.expect("checkout succeeds");
        let began = Instant::now();
        assert!(!is_in_transaction(&client).await, "round {round}");
        assert!(began.elapsed() < Duration::from_secs(1), "round {round}: {:?}", began.elapsed());
    }
    let counters = pool.status().counters;
    assert!(counters.recycled >= 12, "{counters:?}");
    // The connections are recycled, not closed.
    assert_eq!(counters.discarded, 0, "{counters:?}");
}

/// Asserts that the pool detects the role, and that all probes (each sends a Sync message and a query) succeed for one
/// second.
async fn assert_probes_pass(pool: &Pool, role: Role) {
    let (server_connections, since) = (pool.status().endpoints[0].server_connections, Instant::now());
    assert!(server_connections.is_some());
    until(LONG, "the role is known", || pool.status().endpoints[0].role == role).await;
    while since.elapsed() < Duration::from_secs(1) {
        let pod = &pool.status().endpoints[0];
        assert_eq!((pod.state, &pod.last_failure), (State::Healthy, &None));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_mode_supports_all_session_state() {
    let Some([program]) = programs(["pgbouncer"]) else { return };
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    for (ordinal, role, target) in [(0, Role::Primary, Target::Primary), (1, Role::Standby, Target::Standby)] {
        let bouncer = Bouncer::start(&program, &cluster, ordinal, "session", 20).await;
        let pool = bouncer.pool("reset=discard&statement_cache_size=8&probe_interval=100ms");
        let mut client = pool.get_for(target).await.expect("checkout succeeds");
        assert_eq!(client.role(), role);

        // Prepared statements, settings and transactions stay with the session.
        for number in 0..20 {
            let statement = client.prepare_cached("SELECT $1::int4 * 2").await.expect("the statement is prepared");
            assert_eq!(
                client.query_one(&statement, &[&number]).await.expect("the query returns a row").get::<_, i32>(0),
                number * 2
            );
        }
        client.batch_execute("SET work_mem = '123MB'").await.expect("the setting is changed");
        let transaction = client.transaction().await.expect("the transaction begins");
        let row = transaction.query_one("SHOW work_mem", &[]).await.expect("the query returns a row");
        assert_eq!(row.get::<_, &str>(0), "123MB");
        transaction.commit().await.expect("the transaction commits");
        drop(client);
        let client = pool.get().await.expect("checkout succeeds");
        assert_ne!(
            client.query_one("SHOW work_mem", &[]).await.expect("the query returns a row").get::<_, &str>(0),
            "123MB"
        );
        drop(client);

        let other = if role == Role::Primary { Target::Standby } else { Target::Primary };
        pool.wait_ready(other, Duration::from_millis(300)).await.expect_err("the server has the other role");
        assert_probes_pass(&pool, role).await;
        assert_transactions_are_rolled_back(&bouncer.pool("pool_size=1")).await;
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// A reset restores the parameters of PgBouncer's login, instead of those of the pool's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_mode_keeps_the_startup_parameters_with_automatic_resets() {
    let Some([program]) = programs(["pgbouncer"]) else { return };
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let bouncer = Bouncer::start(&program, &cluster, 0, "session", 20).await;
    for (reset, name_after_reset) in [("auto", "shop"), ("discard", "")] {
        let pool = bouncer.pool(&format!("pool_size=1&application_name=shop&reset={reset}"));
        for round in 0..3 {
            let client = pool.get().await.expect("checkout succeeds");
            let name = if round == 0 { "shop" } else { name_after_reset };
            for (parameter, expected) in [("application_name", name), ("work_mem", "4MB"), ("client_encoding", "UTF8")]
            {
                let messages =
                    client.simple_query(&format!("SHOW {parameter}")).await.expect("the query returns a row");
                let value = messages.iter().find_map(|message| match message {
                    SimpleQueryMessage::Row(row) => row.get(0),
                    _ => None,
                });
                assert_eq!(value, Some(expected), "{parameter}, reset={reset}, round {round}");
            }
            client.batch_execute("SET work_mem = '123MB'").await.expect("the setting is changed");
        }
        let counters = pool.status().counters;
        if reset == "auto" {
            assert!(counters.reset == 0 && counters.opened >= 3, "the connections are closed: {counters:?}");
        } else {
            assert!(counters.reset >= 2 && counters.opened == 1, "{counters:?}");
        }
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transaction_mode_supports_query_typed_and_simple_queries() {
    let Some([program]) = programs(["pgbouncer"]) else { return };
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    // The pool's eight connections and its probe connection share three server connections.
    let bouncer = Bouncer::start(&program, &cluster, 0, "transaction", 3).await;
    let pool = bouncer.pool("probe_interval=100ms&reset=none");
    pool.wait_ready(Target::Primary, LONG).await.expect("the primary becomes ready");

    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for number in 0..100 {
                    let client = pool.get().await.expect("checkout succeeds");
                    assert_eq!(doubled(&client, number).await, number * 2);
                    let begin = format!("BEGIN; SELECT set_config('my.own', '{task}', true)");
                    client.batch_execute(&begin).await.expect("the transaction begins");
                    // All statements of a transaction use the same session.
                    let messages =
                        client.simple_query("SELECT current_setting('my.own')").await.expect("the query returns a row");
                    let own = messages.iter().find_map(|message| match message {
                        SimpleQueryMessage::Row(row) => row.get(0),
                        _ => None,
                    });
                    assert_eq!(own, Some(task.to_string().as_str()));
                    client.batch_execute("COMMIT").await.expect("the transaction commits");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("the task does not panic");
    }
    let status = pool.status();
    println!("800 rounds: {:?}", status.counters);
    assert!(status.endpoints[0].open > 3, "expected more connections than server connections: {status:?}");
    assert_eq!((status.counters.open_failed, status.counters.discarded), (0, 0), "{:?}", status.counters);
    assert_probes_pass(&pool, Role::Primary).await;
    assert_transactions_are_rolled_back(&bouncer.pool("pool_size=1&reset=none")).await;
    drop(pool);
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// Since version 1.21, PgBouncer prepares a named statement on each server session that executes it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transaction_mode_supports_named_statements_since_1_21() {
    let Some([program]) = programs(["pgbouncer"]) else { return };
    let version = version(&program);
    if version < (1, 21) {
        println!("skipped: expected PgBouncer 1.21 or newer, found {version:?}");
        return;
    }
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    // PgBouncer keeps at most three statements in each server session, and prepares the others again.
    let bouncer = Bouncer::start(&program, &cluster, 0, "transaction\nmax_prepared_statements = 3", 2).await;
    let pool = bouncer.pool("pool_size=6&reset=none");
    let tasks: Vec<_> = (0..6)
        .map(|task| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for number in 0..50 {
                    let client = pool.get().await.expect("checkout succeeds");
                    // Each task has statements of its own and one in common with the others.
                    for sql in ["SELECT $1::int4 * 2".to_owned(), format!("SELECT $1::int4 * 2 -- {task}")] {
                        let statement = client.prepare_cached(&sql).await.expect("the statement is prepared");
                        let row = client.query_one(&statement, &[&number]).await.expect("the query returns a row");
                        assert_eq!(row.get::<_, i32>(0), number * 2);
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("the task does not panic");
    }
    let counters = pool.status().counters;
    assert_eq!((counters.open_failed, counters.discarded), (0, 0), "{counters:?}");

    // A schema change makes the plans of PgBouncer's statements outdated. PgBouncer does not prepare them again before
    // `RECONNECT`, whatever a client does, because it identifies statements by their text.
    let pool = bouncer.pool("pool_size=1");
    let client = pool.get().await.expect("checkout succeeds");
    client.batch_execute("CREATE TABLE t (n int)").await.expect("the table is created");
    let sql = "SELECT * FROM t";
    let statement = client.prepare_cached(sql).await.expect("the statement is prepared");
    client.query(&statement, &[]).await.expect("the query succeeds");
    client.batch_execute("ALTER TABLE t ADD COLUMN m int").await.expect("the column is added");
    let error = client.query(&statement, &[]).await.expect_err("the plan is outdated");
    assert_eq!(classify(&error).class, Class::StalePlan, "{error}");
    drop((statement, client));
    let repeated = pool
        .retry(Target::Any, async |client: Client| {
            let statement = client.prepare_cached(sql).await?;
            client.query(&statement, &[]).await
        })
        .await;
    let error = repeated.expect_err("the plan is still outdated");
    assert!(error.to_string().contains("cached plan must not change result type"), "{error}");
    let client = pool.get().await.expect("checkout succeeds");
    client.query_typed(sql, &[]).await.expect("a statement without a name is planned again");
    drop((client, pool));
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// PgBouncer ends each session that is idle for half a second, with a FATAL error that has no field `V`. Such an end is
/// no evidence against the Pod.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_pgbouncer_ends_do_not_eject_the_pod() {
    let Some([program]) = programs(["pgbouncer"]) else { return };
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let bouncer = Bouncer::start(&program, &cluster, 0, "session\nclient_idle_timeout = 0.5", 20).await;
    let pool = bouncer.pool("pool_size=6&min_idle=6");
    pool.wait_ready(Target::Primary, LONG).await.expect("the primary becomes ready");
    until(LONG, "the Pod is healthy", || pool.status().endpoints[0].state == State::Healthy).await;
    let mut events = pool.events();
    until(LONG, "PgBouncer has ended 20 sessions", || pool.status().counters.closed >= 20).await;
    println!("{:?}", pool.status().counters);
    pool.close().await;
    while let Some(event) = events.next().await {
        let event = event.expect("no event is lost");
        assert!(!matches!(event, Event::StateChanged { to: "ejected", .. }), "{event}");
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}
