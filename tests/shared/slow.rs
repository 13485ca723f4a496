use std::{
    future::Future,
    pin::pin,
    task::{Context, Waker},
    time::{Duration, Instant},
};

use podpool::{Applied, Checkout, Kind, Pool, Target};
use tokio::{
    task::JoinSet,
    time::{interval, timeout},
};

use super::{
    cluster,
    common::{
        one_pod::{SOON, TIMEOUTS},
        until,
    },
    one, pid, pool_to_one, running, sessions,
};

const SLEEP: &str = "SELECT pg_sleep(60)";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_is_sent_behind_a_slow_one() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, "&pool_size=3").await;
    let slow = tokio::spawn({
        let pool = pool.clone();
        async move { one::<String>(&pool, "SELECT pg_sleep(2)::text || 'slept'", &[]).await }
    });
    running(&cluster, "SELECT pg_sleep(2)::text || 'slept'", 1).await;
    tokio::time::sleep(Duration::from_millis(20)).await; // longer than 5 ms, after which the statement is slow
    let began = Instant::now();
    for n in 0..50 {
        assert_eq!(one::<i32>(&pool, "SELECT $1::int4", &[&n]).await, n);
    }
    assert!(!slow.is_finished(), "the statements took {:?}", began.elapsed());
    assert_eq!(pool.status().endpoints[0].shared, 2);
    assert_eq!(slow.await.expect("the caller does not panic"), "slept");
    // The second connection is no longer needed.
    until(SOON, "one connection remains", || pool.status().endpoints[0].shared == 1).await;
    assert!(pid(&pool).await > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repeatable_statements_move_away_from_a_slow_one() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, "&pool_size=3&shared_slow=200ms").await;
    // Prepares both statements, so that they are sent immediately.
    assert_eq!(one::<i32>(&pool, "SELECT $1::int4", &[&1]).await, 1);
    one::<String>(&pool, "SELECT pg_sleep($1)::text", &[&0f64]).await;
    let slow = tokio::spawn({
        let pool = pool.clone();
        async move { one::<String>(&pool, "SELECT pg_sleep($1)::text", &[&3f64]).await }
    });
    running(&cluster, "SELECT pg_sleep($1)::text", 1).await;
    let mut behind = JoinSet::new();
    for n in 0..8 {
        let pool = pool.clone();
        behind.spawn(async move {
            let shared = pool.shared(Target::Any).repeatable();
            assert_eq!(shared.query_one("SELECT $1::int4", &[&n]).await.expect("succeeds").get::<_, i32>(0), n);
        });
    }
    while let Some(done) = behind.join_next().await {
        done.expect("the caller does not panic");
    }
    assert!(!slow.is_finished());
    slow.await.expect("the caller does not panic");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abandoned_statement_is_cancelled_and_the_others_on_its_connection_are_not() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, "&pool_size=1&shared_slow=60s").await;
    let before = pid(&pool).await;
    assert_eq!(one::<i32>(&pool, "SELECT $1::int4", &[&1]).await, 1);
    for round in 0..5 {
        let slow = tokio::spawn({
            let pool = pool.clone();
            async move { one::<String>(&pool, SLEEP, &[]).await }
        });
        running(&cluster, SLEEP, 1).await;
        let mut behind = JoinSet::new();
        for n in 0..20 {
            let pool = pool.clone();
            behind.spawn(async move { one::<i32>(&pool, "SELECT $1::int4", &[&n]).await == n });
        }
        tokio::task::yield_now().await;
        slow.abort();
        while let Some(done) = timeout(SOON, behind.join_next()).await.expect("the statement was cancelled") {
            assert!(done.expect("the caller does not panic"), "round {round}");
        }
        running(&cluster, SLEEP, 0).await;
    }
    assert_eq!(pid(&pool).await, before, "the connection is still in use");
    assert_eq!(sessions(&cluster).await, [before]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_deadline_of_a_call_covers_its_statement() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, "&pool_size=1&shared_depth=1&shared_slow=60s").await;
    let short = pool.shared(Checkout::new(Target::Any).deadline(Duration::from_millis(300)));
    let error = short.query(SLEEP, &[]).await.expect_err("the deadline has passed");
    assert_eq!((error.kind(), error.applied()), (Kind::Timeout, Applied::Unknown), "{error}");
    running(&cluster, SLEEP, 0).await;
    // A statement that gets no place is not sent.
    let slow = tokio::spawn({
        let pool = pool.clone();
        async move { one::<String>(&pool, SLEEP, &[]).await }
    });
    running(&cluster, SLEEP, 1).await;
    let error = short.execute("SELECT 1", &[]).await.expect_err("the deadline has passed");
    assert_eq!((error.kind(), error.applied()), (Kind::PoolTimeout, Applied::No), "{error}");
    slow.abort();
    running(&cluster, SLEEP, 0).await;
    assert_eq!(one::<i32>(&pool, "SELECT 1", &[]).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_that_does_not_poll_delays_no_other() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, "&pool_size=1").await;
    let before = pid(&pool).await;
    let large = "SELECT repeat('x', 1000) FROM generate_series(1, 50000)";
    assert_eq!(pool.shared(Target::Any).execute(large, &[]).await.expect("the query succeeds"), 50_000);
    let shared = pool.shared(Target::Any);
    let mut unpolled = pin!(shared.query(large, &[]));
    // Polled until the statement is sent, and then no more.
    let mut cx = Context::from_waker(Waker::noop());
    until(SOON, "the statement is sent", || {
        assert!(unpolled.as_mut().poll(&mut cx).is_pending());
        pool.status().endpoints[0].shared_in_flight == 1
    })
    .await;
    for n in 0..20 {
        assert_eq!(timeout(SOON, one::<i32>(&pool, "SELECT $1::int4", &[&n])).await.expect("not blocked"), n);
    }
    let rows = timeout(SOON, unpolled).await.expect("the statement has ended").expect("the query succeeds");
    assert_eq!(rows.len(), 50_000);
    assert_eq!(pid(&pool).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn statements_are_cancelled_at_random_and_all_others_get_their_rows() {
    let cluster = cluster(1).await;
    let pool = pool_to_one(&cluster, "&pool_size=2&shared_depth=8").await;
    let mut callers = JoinSet::new();
    for caller in 0..32i32 {
        let pool = pool.clone();
        callers.spawn(async move {
            let (mut done, mut cancelled) = (0, 0);
            for round in 0..60i32 {
                let number = caller * 100 + round;
                let shared = pool.shared(Target::Any);
                let pause = if (caller + round) % 7 == 0 { 0.15 } else { 0.0 };
                let limit =
                    if (caller * 3 + round) % 5 == 0 { Duration::from_micros(number as u64 % 3_000) } else { SOON };
                match timeout(limit, shared.query_one("SELECT $1::int4, pg_sleep($2)", &[&number, &pause])).await {
                    Ok(row) => {
                        assert_eq!(row.expect("the statement succeeds").get::<_, i32>(0), number);
                        done += 1;
                    }
                    Err(_) => cancelled += 1,
                }
            }
            (done, cancelled)
        });
    }
    let (mut done, mut cancelled) = (0, 0);
    while let Some(result) = callers.join_next().await {
        let (more_done, more_cancelled) = result.expect("the caller does not panic");
        (done, cancelled) = (done + more_done, cancelled + more_cancelled);
    }
    println!("{done} statements succeeded, {cancelled} were cancelled");
    assert!(cancelled > 0);
    until(SOON, "nothing is in flight", || pool.status().endpoints[0].shared_in_flight == 0).await;
    assert!(pid(&pool).await > 0);
}

/// One statement per second sleeps for a second. It delays only those that were sent before it was found to be slow:
/// with one Pod and 5 ms, almost one in a hundred.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_slow_statement_per_second_does_not_delay_the_others() {
    const RUN: Duration = Duration::from_secs(10);
    for (pods, slow) in [(1, "&shared_slow=3ms"), (3, "")] {
        let cluster = cluster(pods).await;
        let url = if pods == 1 { format!("{}?", cluster.pod_url(0)) } else { format!("{}&", cluster.url()) };
        let pool = Pool::connect(&format!("{url}min_idle=0&{TIMEOUTS}{slow}")).await.expect("the pool is created");
        let warm = || pool.status().endpoints.iter().filter(|pod| pod.shared == 1).count() == pods;
        while !warm() {
            one::<i32>(&pool, "SELECT $1::int4", &[&0]).await;
        }
        let slow = tokio::spawn({
            let pool = pool.clone();
            async move {
                let began = Instant::now();
                for n in 0.. {
                    if began.elapsed() >= RUN {
                        return n;
                    }
                    one::<String>(&pool, "SELECT pg_sleep(1)::text", &[]).await;
                }
                unreachable!("the loop is infinite");
            }
        });
        let (began, mut fast) = (Instant::now(), JoinSet::new());
        let mut ticks = interval(Duration::from_millis(1));
        while began.elapsed() < RUN {
            let began = ticks.tick().await; // after a delay, the missed ticks follow immediately
            let pool = pool.clone();
            fast.spawn(async move {
                assert_eq!(one::<i32>(&pool, "SELECT $1::int4", &[&7]).await, 7);
                began.elapsed()
            });
        }
        let mut times = fast.join_all().await;
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        let slept = slow.await.expect("the caller does not panic");
        println!(
            "{pods} Pods: {} statements beside {slept} of 1 s: p50 {:?}, p99 {:?}, p99.9 {:?}, maximum {:?}",
            times.len(),
            at(0.5),
            at(0.99),
            at(0.999),
            at(1.0)
        );
        assert!(times.len() >= 9_000 && slept >= 8, "the load was too small");
        assert!(at(0.99) <= Duration::from_millis(20), "{:?}", at(0.99));
        cluster.shutdown().await.expect("the cluster shuts down");
    }
}
