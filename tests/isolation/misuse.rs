//! Tests that mistakes and unusual events do not affect later callers: an unfinished COPY, unread rows, session
//! settings, refused writes, expired deadlines, terminated sessions, and pools that are closed or whose runtime has
//! ended.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use podpool::{
    Config, Endpoint, Kind, Pool, State, Target,
    discovery::{Resolution, Resolve, ResolveError},
    testkit::Cluster,
    tokio_postgres::{CopyInSink, types::ToSql},
};

use crate::common::{in_state, until};

fn pool(cluster: &Cluster, more: &str) -> Pool {
    let config: Config = format!("{}&{more}", cluster.url()).parse().expect("the URL parses");
    Pool::builder(config).build().expect("the pool is created")
}

/// Asserts that a checkout and a query succeed. `case` describes the state of the pool.
async fn assert_works(pool: &Pool, case: &str) {
    let client = pool.get().await.unwrap_or_else(|error| panic!("{case}: checkout failed: {error}"));
    let result = tokio::time::timeout(Duration::from_secs(3), client.query_one("SELECT 1", &[])).await;
    result
        .unwrap_or_else(|_| panic!("{case}: the query does not end within 3 s"))
        .unwrap_or_else(|error| panic!("{case}: the query failed: {error}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unfinished_copy_does_not_affect_the_next_caller() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let pool = pool(&cluster, "pool_size=1");

    let client = pool.get().await.expect("checkout succeeds");
    client.batch_execute("CREATE TEMP TABLE t (x int)").await.expect("the table is created");
    client.batch_execute("COPY t FROM STDIN").await.expect_err("the driver rejects COPY in a simple query");
    drop(client);
    assert_works(&pool, "after a COPY in a simple query").await;

    let client = pool.get().await.expect("checkout succeeds");
    client.batch_execute("CREATE TEMP TABLE IF NOT EXISTS t (x int)").await.expect("the table is created");
    let sink: CopyInSink<bytes::Bytes> = client.copy_in("COPY t FROM STDIN").await.expect("the COPY begins");
    drop(client);
    assert_works(&pool, "while the sink of a COPY is still alive").await;
    drop(sink);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unread_rows_do_not_block_the_next_caller() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let pool = pool(&cluster, "pool_size=1");
    // Sizes around the threshold at which the driver has read all rows but the stream has not yet received all of them.
    for kib in [1i32, 8, 16, 20, 23, 24, 25, 26, 32, 47] {
        let client = pool.get().await.expect("checkout succeeds");
        let sql = "SELECT repeat('x', 1000) FROM generate_series(1, $1::int)";
        let statement = client.prepare_cached(sql).await.expect("the statement is prepared");
        let parameters: [&(dyn ToSql + Sync); 1] = [&kib];
        let stream = client.query_raw(&statement, parameters).await.expect("the query starts");
        drop(client);
        assert_works(&pool, &format!("while {kib} KiB of rows are unread")).await;
        drop(stream);
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// PostgreSQL reports a change of `in_hot_standby` only with the response to a query. An idle session on a promoted
/// standby therefore still looks like a standby's session until its next query.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_standby_sessions_serve_writes_after_promotion() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    let pool = pool(&cluster, "pool_size=1");
    until(Duration::from_secs(10), "two Pods serve", || in_state(&pool, State::Healthy) == 2).await;
    drop(pool.get_for(Target::Standby).await.expect("checkout from a standby succeeds"));
    cluster.kill(0).await.expect("SIGKILL is sent");
    cluster.promote(1).await.expect("the standby is promoted");
    let began = Instant::now();
    let client = pool.get_for(Target::Primary).await.expect("checkout from the new primary succeeds");
    println!("the new primary was checked out {:?} after the promotion", began.elapsed());
    client.batch_execute("CREATE TABLE written (x int)").await.expect("the write succeeds");
    drop(client);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_only_session_does_not_block_writers() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let pool = pool(&cluster, "pool_size=2&reset=none");
    let (one, other) = (pool.get_for(Target::ReadWrite).await, pool.get_for(Target::ReadWrite).await);
    let (one, other) = (one.expect("checkout succeeds"), other.expect("checkout succeeds"));
    one.batch_execute("SET default_transaction_read_only = on").await.expect("the setting is changed");
    drop((other, one));
    for _ in 0..4 {
        let began = Instant::now();
        let client = pool.get_for(Target::ReadWrite).await.expect("checkout of a writable session succeeds");
        client.batch_execute("CREATE TABLE IF NOT EXISTS written (x int)").await.expect("the write succeeds");
        assert!(began.elapsed() < Duration::from_secs(1), "checkout and write took {:?}", began.elapsed());
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// The pool must not mistake the primary for a standby because a write fails in a `READ ONLY` transaction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_write_does_not_eject_the_primary() {
    let cluster = Cluster::builder().pods(2).ttl(Duration::from_secs(30)).start().await.expect("the cluster starts");
    let pool = pool(&cluster, "pool_size=2");
    until(Duration::from_secs(10), "two Pods serve", || in_state(&pool, State::Healthy) == 2).await;
    let client = pool.get_for(Target::Primary).await.expect("checkout from the primary succeeds");
    client.batch_execute("CREATE TABLE written (x int)").await.expect("the write succeeds");
    // Waits for longer than a probe result stays valid.
    let aged = || pool.status().resolve.age > Some(Duration::from_millis(1500));
    until(Duration::from_secs(10), "the last refresh is 1.5 s old", aged).await;
    client
        .batch_execute("BEGIN READ ONLY; INSERT INTO written VALUES (1)")
        .await
        .expect_err("the transaction is read-only");
    drop(client);
    let began = Instant::now();
    pool.get_for(Target::Primary).await.expect("checkout from the primary succeeds");
    println!("the primary was checked out {:?} after a refused write", began.elapsed());
    assert!(began.elapsed() < Duration::from_millis(500), "checkout took {:?}", began.elapsed());
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn does_not_retry_committed_work_after_a_postgres_fdw_error() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let pool = pool(&cluster, "pool_size=2");
    let client = pool.get().await.expect("checkout succeeds");
    client.batch_execute("CREATE TABLE written (x int)").await.expect("the table is created");
    // If `postgres_fdw` cannot connect to a foreign server, the error has SQLSTATE 08001 although the client's own
    // connection is healthy.
    let remote = "DO $$ BEGIN RAISE EXCEPTION 'no connection to another server' USING ERRCODE = '08001'; END $$";
    let work = |client: podpool::Client| async move {
        client.execute("INSERT INTO written VALUES (1)", &[]).await?;
        client.batch_execute(remote).await
    };
    let error = pool.retry_unapplied(Target::Any, work).await.expect_err("the statement fails");
    assert_eq!(error.kind(), Kind::Query);
    let rows: i64 = client.query_one("SELECT count(*) FROM written", &[]).await.expect("the query succeeds").get(0);
    assert_eq!(rows, 1, "the committed INSERT was repeated after: {error}");
    drop(client);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_expired_deadline_does_not_close_connections() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let pool = pool(&cluster, "min_idle=0");
    let mut all = Vec::new();
    for _ in 0..8 {
        all.push(pool.get().await.expect("checkout succeeds"));
    }
    drop(all);
    until(Duration::from_secs(5), "every connection is idle", || pool.status().endpoints[0].idle == 8).await;
    // Repeats until a call fails because its connection needs a ping and the call's deadline has passed.
    let mut idle_since = Instant::now();
    until(Duration::from_secs(20), "a call fails at its deadline", || {
        if idle_since.elapsed() < Duration::from_millis(1500) {
            return false;
        }
        idle_since = Instant::now();
        let mut call = std::pin::pin!(pool.wait_ready(Target::Any, Duration::ZERO));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        // Busy-polls the call, so that this task never yields to the runtime.
        loop {
            match call.as_mut().poll(&mut cx) {
                std::task::Poll::Ready(result) => break result.is_err(),
                std::task::Poll::Pending => std::thread::yield_now(),
            }
        }
    })
    .await;
    pool.wait_ready(Target::Any, Duration::MAX).await.expect("a Pod is ready");
    until(Duration::from_secs(5), "every connection is idle", || pool.status().endpoints[0].idle == 8).await;
    let counters = pool.status().counters;
    assert_eq!((counters.opened, counters.closed), (8, 0), "a connection was closed: {counters:?}");
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// A resolver that fails until a given time and then returns one Pod.
#[derive(Debug)]
struct Late {
    endpoint: Endpoint,
    from: Instant,
}

impl Resolve for Late {
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
        Box::pin(async move {
            if Instant::now() < self.from {
                return Err(ResolveError::other("not yet"));
            }
            let valid_until = tokio::time::Instant::now() + Duration::from_secs(1);
            Ok(Resolution::new(vec![self.endpoint.clone()], valid_until))
        })
    }

    fn source(&self) -> String {
        "a name that resolves late".to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn checkouts_wait_the_full_acquire_timeout_for_the_first_pod() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let acquire_timeout = Duration::from_secs(1);
    let config: Config = format!("{}&acquire_timeout=1s", cluster.url()).parse().expect("the URL parses");
    let late = Late { endpoint: cluster.pod(0).endpoint().clone(), from: Instant::now() + Duration::from_millis(2500) };
    let pool = Pool::builder(config).resolver(late).build().expect("the pool is created");
    let mut failed = Vec::new();
    let served = loop {
        let began = Instant::now();
        match pool.get().await {
            Ok(client) => break client,
            Err(error) => failed.push((error.kind(), began.elapsed())),
        }
        // The Pod appears after 2.5 s, and the next lookup follows within 5 s, so fewer than nine checkouts of one
        // second each fail.
        assert!(failed.len() < 9, "too many checkouts failed: {failed:?}");
    };
    assert!(
        failed.iter().all(|(_, took)| *took >= acquire_timeout),
        "a checkout failed before its timeout: {failed:?}"
    );
    // The last failed call may have timed out between the Pod's appearance and its first connection.
    let without_pod = failed.split_last().map_or(&[][..], |(_, others)| others);
    assert!(without_pod.iter().all(|(kind, _)| *kind == Kind::Dns), "expected only DNS errors: {failed:?}");
    let last_kind_fits = failed.last().is_none_or(|(kind, _)| matches!(kind, Kind::Dns | Kind::Connect));
    assert!(last_kind_fits, "expected a DNS or connect error last: {failed:?}");
    drop(served);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn close_stops_dns_queries_and_ends_event_streams() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let pool = pool(&cluster, "pool_size=1");
    drop(pool.get().await.expect("checkout succeeds"));
    let mut events = pool.events();
    assert_eq!(pool.close().await, 0);
    let end = tokio::time::timeout(Duration::from_secs(5), async { while events.next().await.is_some() {} }).await;
    end.expect("the event stream ends within 5 s");
    let queries = cluster.dns().queries();
    let closed = Instant::now();
    // Waits for longer than the DNS records' TTL of one second, after which an open pool would send a query.
    until(Duration::from_secs(5), "three seconds pass", || closed.elapsed() > Duration::from_secs(3)).await;
    assert_eq!(cluster.dns().queries(), queries, "the closed pool sent DNS queries");
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[test]
fn get_returns_a_shutdown_error_after_the_runtime_has_ended() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (pools, callers) = (runtime(), runtime());
    let cluster = callers.block_on(Cluster::start(1)).expect("the cluster starts");
    let config: Config = cluster.url().parse().expect("the URL parses");
    let pool = Pool::builder(config).runtime(pools.handle().clone()).build().expect("the pool is created");
    callers.block_on(pool.wait_ready(Target::Any, Duration::from_secs(10))).expect("a Pod is ready");
    drop(pools);
    let error = callers.block_on(pool.get()).expect_err("the pool's runtime has ended");
    assert_eq!(error.kind(), Kind::Shutdown, "unexpected error: {error}");
    callers.block_on(cluster.shutdown()).expect("the cluster shuts down");
}

/// Terminating single sessions, as an administrator may do, must not eject the only primary.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn terminating_a_primary_session_does_not_delay_writers() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    let pool = pool(&cluster, "pool_size=2");
    until(Duration::from_secs(10), "two Pods serve", || in_state(&pool, State::Healthy) == 2).await;
    let admin = cluster.client(0).await.expect("the superuser connects");
    let mut delays = Vec::new();
    for _ in 0..10 {
        let client = pool.get_for(Target::Primary).await.expect("checkout from the primary succeeds");
        let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.expect("the query succeeds").get(0);
        admin.execute("SELECT pg_terminate_backend($1)", &[&pid]).await.expect("the backend is terminated");
        client.simple_query("SELECT 1").await.expect_err("the session is terminated");
        drop(client);
        let began = Instant::now();
        drop(pool.get_for(Target::Primary).await.expect("checkout from the primary succeeds"));
        delays.push(began.elapsed());
    }
    println!("checkout times after a termination: {delays:?}");
    assert!(delays.iter().max() < Some(&Duration::from_millis(500)), "writers were delayed: {delays:?}");
    cluster.shutdown().await.expect("the cluster shuts down");
}
