//! Tests the application's hooks: `after_connect`, `before_checkout` and `after_checkin`.

use std::time::{Duration, Instant};

use podpool::{Client, Event, Kind, Phase, Pool, State, Target, testkit::Cluster};

mod common;
use common::{
    one_pod::{Calls, SOON, TIMEOUTS, builder, settled},
    until,
};

/// Starts a server with the roles `app` and `other`, which the pool's user may assume.
async fn start() -> Cluster {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let admin = cluster.client(0).await.expect("the superuser connects");
    let sql = format!("CREATE ROLE app; CREATE ROLE other; GRANT app, other TO \"{}\"", cluster.user());
    admin.batch_execute(&sql).await.expect("the roles are created");
    cluster
}

async fn check_out(pool: &Pool) -> Client {
    pool.get().await.expect("checkout succeeds")
}

async fn text(client: &Client, sql: &str) -> String {
    client.query_typed(sql, &[]).await.expect(sql)[0].get(0)
}

/// Statements after which the session no longer has the state that the hook has set.
const CHANGES: [&str; 9] = [
    "SET ROLE other",
    "RESET ROLE",
    "DISCARD ALL",
    "RESET ALL",
    "SET search_path = pg_catalog",
    "SET TimeZone = 'Europe/Paris'",
    "SET SESSION AUTHORIZATION DEFAULT",
    "DISCARD TEMP",
    "DO $$BEGIN EXECUTE 'SET ROLE other'; END$$",
];

async fn a_thousand_checkouts_have_the_role_of_the_hook(reset: &str) {
    let cluster = start().await;
    let calls = Calls::default();
    let pool = builder(&cluster, &format!("pool_size=3&reset={reset}&{TIMEOUTS}"))
        .after_connect({
            let calls = calls.clone();
            move |client| {
                calls.next();
                Box::pin(async move {
                    let sql = "CREATE TEMP TABLE mine (); SET ROLE app; SET TimeZone = 'Asia/Tokyo'";
                    client.batch_execute(sql).await?;
                    Ok(())
                })
            }
        })
        .build()
        .expect("the pool is created");
    let (mut changes, expected) = (0, "app app Asia/Tokyo mine");
    for number in 0..1_000 {
        let client = check_out(&pool).await;
        let sql = "SELECT concat_ws(' ', current_user, current_role, current_setting('TimeZone'), \
                   (SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()))";
        assert_eq!(text(&client, sql).await, expected, "checkout {number} with reset={reset}");
        // Two of three callers change nothing.
        if number % 3 == 0 {
            let sql = CHANGES[number / 3 % CHANGES.len()];
            client.batch_execute(sql).await.expect(sql);
            changes += 1;
        }
    }
    settled(&pool).await;
    let counters = pool.status().counters;
    println!("reset={reset}: {changes} changes, {} resets, {} connections", counters.reset, counters.opened);
    assert_eq!(calls.count(), counters.opened + counters.reset, "the hook runs after each reset");
    match reset {
        "auto" => assert_eq!(counters.reset, changes, "the statements of the hook are no changes: {counters:?}"),
        _ => assert_eq!(counters.reset, 1_000, "{counters:?}"),
    }
    assert_eq!((counters.closed, counters.discarded), (0, 0), "{counters:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_role_of_the_hook_survives_with_reset_auto() {
    a_thousand_checkouts_have_the_role_of_the_hook("auto").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_role_of_the_hook_survives_with_reset_discard() {
    a_thousand_checkouts_have_the_role_of_the_hook("discard").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_hook_is_a_failed_dial_and_no_evidence_against_the_pod() {
    let cluster = start().await;
    let pool = builder(&cluster, "pool_size=2&connect_timeout=20s&acquire_timeout=1500ms&probe_interval=200ms")
        .after_connect(|client| {
            Box::pin(async move {
                client.batch_execute("SET ROLE missing").await?;
                Ok(())
            })
        })
        .build()
        .expect("the pool is created");
    let mut events = pool.events();
    let error = pool.get().await.expect_err("no connection can be set up");
    let attempt = error.attempts().last().expect("the error has the attempt");
    assert_eq!((error.kind(), attempt.phase()), (Kind::Connect, Phase::AfterConnect), "{error}");
    assert_eq!(attempt.address().tcp(), Some(cluster.pods()[0].address()));
    let cause = attempt.cause().and_then(|cause| cause.downcast_ref::<podpool::tokio_postgres::Error>());
    assert_eq!(cause.and_then(|cause| cause.code()).map(|code| code.code()), Some("22023"), "{error}");
    assert_eq!(error.sqlstate().map(|code| code.code()), Some("22023"), "the attempt has the SQLSTATE");
    println!("{error}");
    let mut failures = 0;
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(300), events.next()).await {
        match event.expect("no event is lost") {
            Event::SetupFailed { endpoint, cause } => {
                assert!(cause.contains("after_connect") && cause.contains("missing"), "{cause}");
                assert_eq!(endpoint.address(), attempt.address());
                failures += 1;
            }
            Event::StateChanged { to, .. } => assert_ne!(to, "ejected"),
            _ => {}
        }
    }
    assert_eq!(failures, 1, "an event reports the first failure only");
    let pod = &pool.status().endpoints[0];
    assert_eq!(pod.state, State::Healthy);
    assert!(pod.last_failure.as_ref().is_some_and(|failure| failure.contains("after_connect")), "{pod:?}");
    settled(&pool).await;
    let counters = pool.status().counters;
    assert!(counters.opened == 0 && counters.open_failed > 1, "{counters:?}");
    // The backoff reaches 1 s within a second and continues although the Pod passes its probes.
    assert!(counters.open_failed < 40, "{counters:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_that_panics_or_hangs_or_leaves_a_transaction_open_fails_the_dial() {
    let cluster = start().await;
    let calls = Calls::default();
    let pool = builder(&cluster, &format!("pool_size=1&{TIMEOUTS}"))
        .after_connect({
            let calls = calls.clone();
            move |client| {
                let call = calls.next();
                assert!(call != 0, "the hook panics before it returns a future");
                Box::pin(async move {
                    match call {
                        1 => panic!("the future of the hook panics"),
                        2 => client.batch_execute("SELECT pg_sleep(60)").await?,
                        3 => client.batch_execute("BEGIN").await?,
                        _ => client.batch_execute("SET ROLE app").await?,
                    }
                    Ok(())
                })
            }
        })
        .hook_timeout(Duration::from_millis(300))
        .build()
        .expect("the pool is created");
    let mut events = pool.events();
    let client = check_out(&pool).await;
    assert_eq!(text(&client, "SELECT current_user::text").await, "app");
    drop(client);
    assert_eq!(calls.count(), 5);
    settled(&pool).await;
    let counters = pool.status().counters;
    assert_eq!((counters.opened, counters.open_failed, counters.closed), (1, 4, 0), "{counters:?}");
    let panicked = async {
        loop {
            if let Some(Ok(Event::Panicked { source: "after_connect", cause })) = events.next().await {
                break cause;
            }
        }
    };
    println!("{}", tokio::time::timeout(SOON, panicked).await.expect("an event reports the panic"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_hook_does_not_run_on_connections_that_only_probes_use() {
    let cluster = start().await;
    let calls = Calls::default();
    let pool = builder(&cluster, &format!("pool_size=2&min_idle=0&probe_interval=200ms&{TIMEOUTS}"))
        .after_connect({
            let calls = calls.clone();
            move |client| {
                calls.next();
                Box::pin(async move { client.prepare_cached("SELECT 7").await.map(drop).map_err(Into::into) })
            }
        })
        .build()
        .expect("the pool is created");
    until(SOON, "a probe passes", || pool.status().endpoints.iter().any(|pod| pod.state == State::Healthy)).await;
    assert_eq!(calls.count(), 0, "only a probe has connected");
    let client = check_out(&pool).await;
    assert_eq!(client.statement_cache.size(), 1, "the hook has filled the cache");
    assert_eq!(client.query_one("SELECT 1", &[]).await.expect("the query succeeds").get::<_, i32>(0), 1);
    drop(client);
    settled(&pool).await;
    assert_eq!(calls.count(), pool.status().counters.opened);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_connection_is_closed_and_the_checkout_tries_another() {
    let cluster = start().await;
    let calls = Calls::default();
    let pool = builder(&cluster, &format!("pool_size=2&min_idle=1&{TIMEOUTS}"))
        .before_checkout({
            let calls = calls.clone();
            move |client| {
                let call = calls.next();
                Box::pin(async move {
                    client.batch_execute("SELECT 1").await?;
                    assert!(call != 1, "the second call panics");
                    if call == 0 || call >= 5 { Err(format!("call {call} rejects").into()) } else { Ok(()) }
                })
            }
        })
        .build()
        .expect("the pool is created");
    for _ in 0..3 {
        let client = check_out(&pool).await;
        assert_eq!(text(&client, "SELECT current_user::text").await, cluster.user());
    }
    assert_eq!(calls.count(), 5, "two of the five calls rejected a connection");
    let error = pool.get().await.expect_err("every connection is rejected");
    println!("{error}");
    assert_eq!((error.kind(), error.attempts().len()), (Kind::Other, 8), "{error}");
    for attempt in error.attempts() {
        assert_eq!(
            (attempt.phase(), attempt.address().tcp()),
            (Phase::BeforeCheckout, Some(cluster.pods()[0].address()))
        );
        assert!(attempt.to_string().contains("rejects"), "{attempt}");
    }
    settled(&pool).await;
    let counters = pool.status().counters;
    assert_eq!(counters.closed, 10, "{counters:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_checkout_returns_the_connection_on_which_the_hook_runs() {
    let cluster = start().await;
    let pool = builder(&cluster, &format!("pool_size=1&{TIMEOUTS}"))
        .before_checkout(|client| {
            Box::pin(async move {
                // The setting of the first caller remains in the session.
                let slow = client.query_typed("SELECT current_setting('my.slow', true) = 'on'", &[]).await?;
                let slow: Option<bool> = slow[0].get(0);
                if slow == Some(true) {
                    client.batch_execute("SELECT pg_sleep(60)").await?;
                }
                Ok(())
            })
        })
        .build()
        .expect("the pool is created");
    drop(check_out(&pool).await);
    settled(&pool).await;
    let pid = text(&check_out(&pool).await, "SELECT pg_backend_pid()::text").await;
    let admin = cluster.client(0).await.expect("the superuser connects");
    let all = format!("ALTER ROLE \"{}\" SET my.slow = 'on'", cluster.user());
    admin.batch_execute(&all).await.expect("new sessions are slow");
    admin.execute("SELECT pg_terminate_backend($1)", &[&pid.parse::<i32>().expect("a number")]).await.expect("ends it");
    // Another session may be open already.
    until(SOON, "the session has ended", || pool.status().counters.closed == 1).await;
    let began = Instant::now();
    let cancelled = tokio::time::timeout(Duration::from_secs(2), pool.get()).await;
    assert!(cancelled.is_err(), "the hook is still running");
    settled(&pool).await;
    println!("the connection was available again {:?} after the start of the checkout", began.elapsed());
    assert!(began.elapsed() < SOON, "the statement of the hook is cancelled");
    let status = pool.status();
    assert_eq!((status.endpoints[0].open, status.endpoints[0].idle), (1, 1), "{status:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hook_that_meets_the_deadline_of_the_caller_keeps_the_connection() {
    let cluster = start().await;
    let calls = Calls::default();
    let pool = builder(&cluster, &format!("pool_size=1&{TIMEOUTS}"))
        .before_checkout({
            let calls = calls.clone();
            move |client| {
                let is_slow = calls.next() == 1;
                let sql = if is_slow { "SELECT pg_sleep(60)" } else { "SELECT 1" };
                Box::pin(async move { Ok(client.batch_execute(sql).await?) })
            }
        })
        .build()
        .expect("the pool is created");
    let pid = text(&check_out(&pool).await, "SELECT pg_backend_pid()::text").await;
    settled(&pool).await;
    let error = pool.get_within(Target::Any, Duration::from_millis(100)).await.expect_err("the hook is slow");
    assert!(error.attempts().iter().any(|attempt| attempt.phase() == Phase::BeforeCheckout), "{error}");
    settled(&pool).await;
    assert_eq!(text(&check_out(&pool).await, "SELECT pg_backend_pid()::text").await, pid, "{:?}", pool.status());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_checkin_can_reject_a_returned_connection() {
    let cluster = start().await;
    let calls = Calls::default();
    let pool = builder(&cluster, &format!("pool_size=1&{TIMEOUTS}"))
        .after_checkin({
            let calls = calls.clone();
            move |client| {
                let call = calls.next();
                Box::pin(async move {
                    let role: String = client.query_typed("SELECT current_user::text", &[]).await?[0].get(0);
                    assert!(call != 2, "the third call panics");
                    if role == "other" { Err("the caller has left another role".into()) } else { Ok(()) }
                })
            }
        })
        .build()
        .expect("the pool is created");
    let mut pids = Vec::new();
    for sql in ["SELECT 1", "SET ROLE other", "SELECT 1", "BEGIN", "SELECT 1"] {
        let client = check_out(&pool).await;
        pids.push(text(&client, "SELECT pg_backend_pid()::text").await);
        client.batch_execute(sql).await.expect(sql);
    }
    settled(&pool).await;
    assert_eq!(pids[0], pids[1]);
    assert_ne!(pids[1], pids[2], "the connection with another role was closed");
    assert_ne!(pids[2], pids[3], "the panic has closed the connection");
    assert_eq!(pids[3], pids[4], "an open transaction is rolled back before the hook runs");
    let counters = pool.status().counters;
    assert_eq!((calls.count(), counters.opened, counters.closed), (5, 3, 2), "{counters:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_connection_of_a_listener_is_set_up_too() {
    let cluster = start().await;
    let pool = builder(&cluster, TIMEOUTS)
        .after_connect(|client| {
            Box::pin(async move { Ok(client.batch_execute("SET application_name = 'set up by the hook'").await?) })
        })
        .build()
        .expect("the pool is created");
    let _listener = pool.listen(podpool::Target::Primary, ["orders"]).await.expect("the listener starts");
    let admin = cluster.client(0).await.expect("the superuser connects");
    let sql = "SELECT application_name FROM pg_stat_activity WHERE query LIKE 'LISTEN%'";
    let row = admin.query_one(sql, &[]).await.expect("one session listens");
    assert_eq!(row.get::<_, &str>(0), "set up by the hook");
}
