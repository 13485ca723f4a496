//! Tests that the pool handles the errors that PgBouncer 1.18 to 1.25 sends, by a proxy that encodes them as
//! PgBouncer's source does. Not every system has packages of current versions, and some errors are hard to provoke.

use std::time::Duration;

use podpool::{Applied, Class, Config, Pool, State, classify, testkit::Cluster, tokio_postgres::error::SqlState};

use crate::common::{
    ejections::ejections,
    pooler::{MARK, Pooler, pooler_fatal, pooler_notice},
    until,
};

const LONG: Duration = Duration::from_secs(20);

/// SQLSTATE of PgBouncer's own errors. Before version 1.20, the SQLSTATE of all errors that PgBouncer sends itself.
const PROTOCOL_VIOLATION: &str = "08P01";

/// Starts a proxy in front of one Pod, and a pool with six connections to it.
async fn start() -> (Cluster, Pooler, Pool) {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let pod = cluster.pod(0).address();
    let pooler = Pooler::start(pod).await;
    let url = cluster.pod_url(0).replace(&pod.to_string(), &pooler.address().to_string());
    let config: Config = format!("{url}?sslmode=disable&pool_size=6&min_idle=6").parse().expect("the URL parses");
    let pool = Pool::builder(config).build().expect("the pool is created");
    until(LONG, "all connections are open", || {
        pool.status().endpoints.first().is_some_and(|pod| pod.state == State::Healthy && pod.idle == 6)
    })
    .await;
    (cluster, pooler, pool)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_pgbouncer_ends_only_its_session() {
    let (cluster, pooler, pool) = start().await;
    let ejections = ejections(&pool);
    // Since 1.20, PgBouncer forwards the SQLSTATE of the error with which the server has refused its login, also to
    // sessions that already exist.
    for (sqlstate, text, class) in [
        (PROTOCOL_VIOLATION, "query_wait_timeout", Class::Connection),
        (PROTOCOL_VIOLATION, "query_timeout", Class::Connection),
        (PROTOCOL_VIOLATION, "server conn crashed?", Class::Connection),
        (PROTOCOL_VIOLATION, "server login has been failing, cached error: x (server_login_retry)", Class::Connection),
        ("53300", "sorry, too many clients already", Class::Full),
        ("57P01", "terminating connection due to administrator command", Class::NotReady),
        ("28P01", "password authentication failed for user \"x\"", Class::Access),
    ] {
        // Since 1.25, a notice precedes the error of a session that has waited for more than 5 s.
        let notice = "No server connection available in postgres backend, client being queued";
        pooler.answer([pooler_notice(notice), pooler_fatal(sqlstate, text)].concat());
        let client = pool.get().await.expect("checkout succeeds");
        let error = client.batch_execute(&format!("SELECT 1 {MARK}")).await.expect_err("the pooler ends the session");
        assert_eq!(error.code().map(SqlState::code), Some(sqlstate), "{error}");
        let verdict = classify(&error);
        assert_eq!((verdict.class, verdict.applied), (class, Applied::Unknown), "{sqlstate} {text}");
        drop(client);
        let client = pool.get().await.expect("checkout succeeds");
        client.batch_execute("SELECT 1").await.expect("other sessions continue");
    }
    assert_eq!(*ejections.lock().expect("no thread has panicked"), Vec::<String>::new());
    let pod = &pool.status().endpoints[0];
    assert_eq!(pod.state, State::Healthy);
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// PgBouncer's timeouts end many sessions at the same moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_sessions_that_pgbouncer_ends_together_do_not_eject_the_pod() {
    let (cluster, pooler, pool) = start().await;
    let ejections = ejections(&pool);
    for text in ["client_idle_timeout", "admin forced disconnect", "suspend_timeout"] {
        let opened = pool.status().counters.opened;
        assert!(pooler.end_sessions(pooler_fatal(PROTOCOL_VIOLATION, text)) >= 6);
        until(LONG, "the sessions are replaced", || {
            pool.status().counters.opened >= opened + 6 && pool.status().endpoints[0].idle == 6
        })
        .await;
    }
    assert_eq!(*ejections.lock().expect("no thread has panicked"), Vec::<String>::new());
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pod_is_ejected_while_pgbouncer_refuses_logins() {
    let (cluster, pooler, pool) = start().await;
    for (sqlstate, text) in [
        (PROTOCOL_VIOLATION, "pooler is shutting down"),
        (PROTOCOL_VIOLATION, "server login has been failing, cached error: x (server_login_retry)"),
        ("57P03", "the database system is shutting down"),
    ] {
        pooler.refuse(Some(pooler_fatal(sqlstate, text)));
        pooler.end_sessions(pooler_fatal(PROTOCOL_VIOLATION, "server shutting down"));
        until(LONG, "the Pod is ejected", || pool.status().endpoints[0].state == State::Ejected).await;
        let failure = pool.status().endpoints[0].last_failure.clone();
        assert!(failure.as_ref().is_some_and(|failure| failure.contains(text)), "{failure:?}");

        pooler.refuse(None);
        until(LONG, "the Pod returns", || {
            let pod = &pool.status().endpoints[0];
            pod.state == State::Healthy && pod.idle == 6
        })
        .await;
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}
