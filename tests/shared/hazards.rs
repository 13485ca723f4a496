//! Situations in which one caller, or a change of the cluster, could block all others on a shared connection.

use std::time::{Duration, Instant};

use podpool::{Checkout, Pool, State, Target, testkit::Shutdown};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    cluster,
    common::{in_state, one_pod::SOON, until},
    one, pid, pool_to_one, running, superuser,
};

const SLEEP: &str = "SELECT pg_sleep(60)";

/// A connection that was opened to a standby still reports that role after the promotion, until its next response.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_reach_a_promoted_standby_to_which_an_unused_connection_is_open() {
    let cluster = cluster(2).await;
    cluster.wait_replicated().await.expect("the standby follows");
    let url = format!("{}&min_idle=0&shared_slow=60s", cluster.url());
    let pool = Pool::builder(url.parse().expect("the URL parses")).build().expect("the pool is created");
    until(SOON, "both Pods are healthy", || in_state(&pool, State::Healthy) == 2).await;
    let read = pool.shared(Target::Standby).query_one("SELECT pg_is_in_recovery()", &[]).await;
    assert!(read.expect("the query succeeds").get::<_, bool>(0));
    cluster.stop(0, Shutdown::Fast).await.expect("the primary stops");
    cluster.promote(1).await.expect("the standby is promoted");
    let began = Instant::now();
    let write = Checkout::new(Target::Primary).deadline(SOON);
    let role = pool.shared(write).query_one("SELECT pg_is_in_recovery()", &[]).await;
    assert!(!role.expect("the promoted Pod is found").get::<_, bool>(0));
    println!("the first statement for the primary returns after {:?}", began.elapsed());
}

/// Places go to the caller that has waited longest, whatever its target.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_of_one_target_do_not_starve_those_of_another() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, "&pool_size=1&shared_depth=1&shared_slow=60s").await;
    let (mut busy, end) = (JoinSet::new(), Instant::now() + Duration::from_secs(3));
    for _ in 0..16 {
        let pool = pool.clone();
        busy.spawn(async move {
            while Instant::now() < end {
                one::<String>(&pool, "SELECT pg_sleep(0.002)::text", &[]).await;
            }
        });
    }
    until(SOON, "callers wait", || pool.status().counters.waits > 16).await;
    let mut served = 0;
    while Instant::now() < end {
        let write = Checkout::new(Target::Primary).deadline(Duration::from_secs(2));
        pool.shared(write).execute("SELECT 1", &[]).await.expect("the statement gets its turn");
        served += 1;
    }
    while let Some(done) = busy.join_next().await {
        done.expect("the caller does not panic");
    }
    println!("{served} statements for the other target");
    assert!(served > 3);
}

/// The server waits for a lock while it prepares a statement, and executes nothing else on the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_whose_preparation_waits_for_a_lock_delays_no_other() {
    let cluster = cluster(1).await;
    let mut admin = superuser(&cluster).await;
    admin.batch_execute("CREATE TABLE t (id int); GRANT ALL ON t TO PUBLIC").await.expect("the table is created");
    let pool = pool_to_one(&cluster, "&pool_size=3").await;
    let migration = admin.transaction().await.expect("the transaction begins");
    migration.batch_execute("ALTER TABLE t ADD a int").await.expect("the table is locked");
    let blocked = tokio::spawn({
        let pool = pool.clone();
        async move { pool.shared(Target::Any).query("SELECT * FROM t", &[]).await.map(|rows| rows.len()) }
    });
    running(&cluster, "SELECT * FROM t", 1).await;
    for n in 0..50 {
        assert_eq!(timeout(SOON, one::<i32>(&pool, "SELECT $1::int4", &[&n])).await.expect("not delayed"), n);
    }
    let limited = pool.shared(Checkout::new(Target::Any).deadline(Duration::from_millis(300)));
    let began = Instant::now();
    let error = limited.query("SELECT id FROM t", &[]).await.expect_err("the deadline passes");
    assert!(began.elapsed() < SOON, "{error}");
    assert!(!blocked.is_finished());
    migration.commit().await.expect("the transaction is committed");
    assert_eq!(blocked.await.expect("the caller does not panic").expect("the query succeeds"), 0);
}

/// A server that executes a statement reads nothing, so a large request behind it is not written.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_statement_is_cancelled_while_a_large_request_waits_to_be_written() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, "&pool_size=1&shared_slow=60s").await;
    let (before, length) = (pid(&pool).await, "SELECT length($1::text)");
    assert_eq!(one::<i32>(&pool, length, &[&"a"]).await, 1);
    let slow = tokio::spawn({
        let pool = pool.clone();
        async move { one::<String>(&pool, SLEEP, &[]).await }
    });
    running(&cluster, SLEEP, 1).await;
    let large = tokio::spawn({
        let pool = pool.clone();
        async move { one::<i32>(&pool, length, &[&"a".repeat(30_000_000)]).await }
    });
    until(SOON, "both are sent", || pool.status().endpoints[0].shared_in_flight == 2).await;
    sleep(Duration::from_millis(50)).await; // the socket's buffers are full soon
    slow.abort();
    let length = timeout(SOON, large).await.expect("the statement was cancelled").expect("the caller does not panic");
    assert_eq!(length, 30_000_000);
    assert_eq!(pid(&pool).await, before, "the connection is still in use");
}

/// The driver looks types up with statements of its own, one set for each of the callers at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn type_lookups_of_many_callers_do_not_disturb_the_numbers_of_statements() {
    let cluster = cluster(1).await;
    let types: String = (0..20).map(|n| format!("CREATE TYPE e{n} AS ENUM ('a');")).collect();
    superuser(&cluster).await.batch_execute(&types).await.expect("the types are created");
    let pool = pool_to_one(&cluster, "&pool_size=1&shared_slow=60s").await;
    let mut callers = JoinSet::new();
    for n in 0..20 {
        let pool = pool.clone();
        callers.spawn(async move {
            let rows = pool.shared(Target::Any).query(&format!("SELECT 'a'::e{n}, 1::int4"), &[]).await;
            rows.map(|rows| rows[0].get::<_, i32>(1))
        });
    }
    while let Some(done) = callers.join_next().await {
        assert_eq!(done.expect("the caller does not panic").expect("the query succeeds"), 1);
    }
    // Only if the numbers agree is an abandoned statement cancelled immediately.
    let slow = tokio::spawn({
        let pool = pool.clone();
        async move { one::<String>(&pool, SLEEP, &[]).await }
    });
    running(&cluster, SLEEP, 1).await;
    let began = Instant::now();
    slow.abort();
    assert_eq!(timeout(SOON, one::<i32>(&pool, "SELECT 1", &[])).await.expect("the statement was cancelled"), 1);
    println!("cancelled after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
}

/// Connections that were opened beside slow statements are closed again, although the load never pauses.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn further_connections_are_closed_under_load_and_leave_their_permits_to_get() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, "&pool_size=3").await;
    let mut slow = JoinSet::new();
    for _ in 0..2 {
        let caller = pool.clone();
        slow.spawn(async move { one::<String>(&caller, "SELECT pg_sleep(1)::text", &[]).await });
        until(SOON, "the statement is sent", || pool.status().endpoints[0].shared_in_flight >= 1).await;
        sleep(Duration::from_millis(50)).await;
        assert!(pid(&pool).await > 0);
    }
    assert!(pool.status().endpoints[0].shared > 1);
    let (mut busy, end) = (JoinSet::new(), Instant::now() + Duration::from_secs(12));
    for _ in 0..4 {
        let pool = pool.clone();
        busy.spawn(async move {
            while Instant::now() < end {
                one::<i32>(&pool, "SELECT 1", &[]).await;
            }
        });
    }
    while let Some(done) = slow.join_next().await {
        done.expect("the caller does not panic");
    }
    until(SOON, "one connection remains", || pool.status().endpoints[0].shared == 1).await;
    assert!(Instant::now() < end, "the load has not ended before");
    let clients = [pool.get().await, pool.get().await];
    assert!(clients.iter().all(Result::is_ok));
    drop(clients);
    while let Some(done) = busy.join_next().await {
        done.expect("the caller does not panic");
    }
}

/// The deadline of a caller is no evidence against the connection that it pings.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_deadline_of_one_caller_keeps_the_connection() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, "&ping_after=1ms").await;
    let before = pid(&pool).await;
    let mut failed = 0;
    for _ in 0..50 {
        sleep(Duration::from_millis(5)).await;
        let short = Checkout::new(Target::Any).deadline(Duration::from_nanos(1));
        // The response may arrive before the timer is noticed.
        failed += u32::from(pool.shared(short).query("SELECT 1", &[]).await.is_err());
    }
    assert!(failed > 0);
    assert_eq!(pid(&pool).await, before);
}
