//! What one borrower does must not reach the next, even where the driver and the protocol make it easy.

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
    let config: Config = format!("{}&{more}", cluster.url()).parse().expect("a URL");
    Pool::builder(config).build().expect("a pool")
}

async fn works(pool: &Pool, what: &str) {
    let client = pool.get().await.expect(what);
    let answer = tokio::time::timeout(Duration::from_secs(3), client.query_one("SELECT 1", &[])).await;
    answer.expect(what).expect(what);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_in_the_middle_is_not_handed_on() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let pool = pool(&cluster, "pool_size=1");

    let client = pool.get().await.expect("a connection");
    client.batch_execute("CREATE TEMP TABLE t (x int)").await.expect("a table");
    client.batch_execute("COPY t FROM STDIN").await.expect_err("the driver does not do that");
    drop(client);
    works(&pool, "after a COPY by a simple query").await;

    let client = pool.get().await.expect("a connection");
    client.batch_execute("CREATE TEMP TABLE IF NOT EXISTS t (x int)").await.expect("a table");
    let sink: CopyInSink<bytes::Bytes> = client.copy_in("COPY t FROM STDIN").await.expect("a COPY");
    drop(client);
    works(&pool, "while the sink of a COPY is still there").await;
    drop(sink);
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_nobody_takes_hold_nobody_up() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let pool = pool(&cluster, "pool_size=1");
    // Around the sizes at which the driver has read all and handed on less.
    for kib in [1i32, 8, 16, 20, 23, 24, 25, 26, 32, 47] {
        let client = pool.get().await.expect("a connection");
        let sql = "SELECT repeat('x', 1000) FROM generate_series(1, $1::int)";
        let statement = client.prepare_cached(sql).await.expect("a statement");
        let parameters: [&(dyn ToSql + Sync); 1] = [&kib];
        let stream = client.query_raw(&statement, parameters).await.expect("rows");
        drop(client);
        works(&pool, &format!("while {kib} KiB of rows are left lying")).await;
        drop(stream);
    }
    cluster.shutdown().await.expect("an orderly end");
}

/// The idle sessions of a standby that has been promoted say "standby" until they are asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_full_of_a_standbys_sessions_serves_writes_after_its_promotion() {
    let cluster = Cluster::start(2).await.expect("a cluster");
    let pool = pool(&cluster, "pool_size=1");
    until(Duration::from_secs(10), "two Pods serve", || in_state(&pool, State::Healthy) == 2).await;
    drop(pool.get_for(Target::Standby).await.expect("a standby"));
    cluster.kill(0).await.expect("SIGKILL");
    cluster.promote(1).await.expect("a promotion");
    let began = Instant::now();
    let client = pool.get_for(Target::Primary).await.expect("the new primary");
    println!("the new primary's connection came {:?} after the promotion", began.elapsed());
    client.batch_execute("CREATE TABLE written (x int)").await.expect("a write");
    drop(client);
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_sessions_setting_keeps_nobody_else_from_writing() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let pool = pool(&cluster, "pool_size=2");
    let (one, other) = (pool.get_for(Target::ReadWrite).await, pool.get_for(Target::ReadWrite).await);
    let (one, other) = (one.expect("a connection"), other.expect("a connection"));
    one.batch_execute("SET default_transaction_read_only = on").await.expect("a setting");
    drop((other, one));
    for _ in 0..4 {
        let began = Instant::now();
        let client = pool.get_for(Target::ReadWrite).await.expect("a connection that writes");
        client.batch_execute("CREATE TABLE IF NOT EXISTS written (x int)").await.expect("a write");
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
    cluster.shutdown().await.expect("an orderly end");
}

/// A refused write in a transaction that was read-only by its own wish says nothing of the server.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_write_does_not_take_the_primary_away() {
    let cluster = Cluster::builder().pods(2).ttl(Duration::from_secs(30)).start().await.expect("a cluster");
    let pool = pool(&cluster, "pool_size=2");
    until(Duration::from_secs(10), "two Pods serve", || in_state(&pool, State::Healthy) == 2).await;
    let client = pool.get_for(Target::Primary).await.expect("the primary");
    client.batch_execute("CREATE TABLE written (x int)").await.expect("a write");
    // Older than a probe's word is believed for.
    until(Duration::from_secs(10), "a while", || pool.status().resolve.age > Some(Duration::from_millis(1500))).await;
    client.batch_execute("BEGIN READ ONLY; INSERT INTO written VALUES (1)").await.expect_err("read-only");
    drop(client);
    let began = Instant::now();
    pool.get_for(Target::Primary).await.expect("the primary");
    println!("the primary was given {:?} after a refused write", began.elapsed());
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_committed_before_a_remote_servers_error_is_not_done_again() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let pool = pool(&cluster, "pool_size=2");
    let client = pool.get().await.expect("a connection");
    client.batch_execute("CREATE TABLE written (x int)").await.expect("a table");
    let remote = "DO $$ BEGIN RAISE EXCEPTION 'no connection to another server' USING ERRCODE = '08001'; END $$";
    let work = |client: podpool::Client| async move {
        client.execute("INSERT INTO written VALUES (1)", &[]).await?;
        client.batch_execute(remote).await
    };
    let error = pool.retry_unapplied(Target::Any, work).await.expect_err("the remote server's error");
    assert_eq!(error.kind(), Kind::Query);
    let rows: i64 = client.query_one("SELECT count(*) FROM written", &[]).await.expect("an answer").get(0);
    assert_eq!(rows, 1, "{error}");
    drop(client);
    cluster.shutdown().await.expect("an orderly end");
}

/// A caller whose time is up takes no connection with him.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_that_is_over_closes_nothing() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let pool = pool(&cluster, "min_idle=0");
    let mut all = Vec::new();
    for _ in 0..8 {
        all.push(pool.get().await.expect("a connection"));
    }
    drop(all);
    // Until one wants a ping for which there is no time.
    until(Duration::from_secs(5), "all are back", || pool.status().endpoints[0].idle == 8).await;
    let mut rested = Instant::now();
    until(Duration::from_secs(20), "no time at all", || {
        if rested.elapsed() < Duration::from_millis(1500) {
            return false;
        }
        rested = Instant::now();
        let mut call = std::pin::pin!(pool.wait_ready(Target::Any, Duration::ZERO));
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        // Begun, and begun again for as long as it waits for its ping; it has no time to wait.
        loop {
            match call.as_mut().poll(&mut cx) {
                std::task::Poll::Ready(result) => break result.is_err(),
                std::task::Poll::Pending => std::thread::yield_now(),
            }
        }
    })
    .await;
    pool.wait_ready(Target::Any, Duration::MAX).await.expect("all the time there is");
    until(Duration::from_secs(5), "all are back", || pool.status().endpoints[0].idle == 8).await;
    let counters = pool.status().counters;
    assert_eq!((counters.opened, counters.closed), (8, 0), "{counters:?}");
    cluster.shutdown().await.expect("an orderly end");
}

/// Tells of a Pod, but not at first.
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
async fn who_waits_for_the_first_pod_gets_it_however_long_there_was_none() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let patience = Duration::from_secs(1);
    let config: Config = format!("{}&acquire_timeout=1s", cluster.url()).parse().expect("a URL");
    let late = Late { endpoint: cluster.pod(0).endpoint().clone(), from: Instant::now() + Duration::from_millis(2500) };
    let pool = Pool::builder(config).resolver(late).build().expect("a pool");
    let mut failed = Vec::new();
    let served = loop {
        let asked = Instant::now();
        match pool.get().await {
            Ok(client) => break client,
            Err(error) => failed.push((error.kind(), asked.elapsed())),
        }
        // The Pod is there after 2.5 s; lookups that fail come at most 5 s one after the other.
        assert!(failed.len() < 9, "{failed:?}");
    };
    assert!(failed.iter().all(|(_, took)| *took >= patience), "nobody is turned away early: {failed:?}");
    // The time of the last may have ended between the Pod's appearance and its first answer.
    let while_there_was_none = failed.split_last().map_or(&[][..], |(_, others)| others);
    assert!(while_there_was_none.iter().all(|(kind, _)| *kind == Kind::Dns), "{failed:?}");
    assert!(failed.last().is_none_or(|(kind, _)| matches!(kind, Kind::Dns | Kind::Connect)), "{failed:?}");
    drop(served);
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_pool_asks_nobody_and_its_events_end() {
    let cluster = Cluster::start(1).await.expect("a cluster");
    let pool = pool(&cluster, "pool_size=1");
    drop(pool.get().await.expect("a connection"));
    let mut events = pool.events();
    assert_eq!(pool.close().await, 0);
    let end = tokio::time::timeout(Duration::from_secs(5), async { while events.next().await.is_some() {} }).await;
    end.expect("the events end");
    let queries = cluster.dns().queries();
    let closed = Instant::now();
    // Longer than the records' TTL of a second.
    until(Duration::from_secs(5), "a while", || closed.elapsed() > Duration::from_secs(3)).await;
    assert_eq!(cluster.dns().queries(), queries);
    cluster.shutdown().await.expect("an orderly end");
}

/// The pool's runtime has ended: a call says so, at once.
#[test]
fn a_pool_without_its_runtime_says_that_it_is_closed() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (pools, callers) = (runtime(), runtime());
    let cluster = callers.block_on(Cluster::start(1)).expect("a cluster");
    let config: Config = cluster.url().parse().expect("a URL");
    let pool = Pool::builder(config).runtime(pools.handle().clone()).build().expect("a pool");
    callers.block_on(pool.wait_ready(Target::Any, Duration::from_secs(10))).expect("ready");
    drop(pools);
    let error = callers.block_on(pool.get()).expect_err("closed");
    assert_eq!(error.kind(), Kind::Shutdown, "{error}");
    callers.block_on(cluster.shutdown()).expect("an orderly end");
}

/// Somebody ends a session on the only primary, now and then: that is no reason to keep writers waiting.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminated_session_of_the_primary_delays_no_writer() {
    let cluster = Cluster::start(2).await.expect("a cluster");
    let pool = pool(&cluster, "pool_size=2");
    until(Duration::from_secs(10), "two Pods serve", || in_state(&pool, State::Healthy) == 2).await;
    let admin = cluster.client(0).await.expect("a superuser");
    let mut delays = Vec::new();
    for _ in 0..10 {
        let client = pool.get_for(Target::Primary).await.expect("the primary");
        let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await.expect("an answer").get(0);
        admin.execute("SELECT pg_terminate_backend($1)", &[&pid]).await.expect("an end");
        client.simple_query("SELECT 1").await.expect_err("ended");
        drop(client);
        let began = Instant::now();
        drop(pool.get_for(Target::Primary).await.expect("the primary"));
        delays.push(began.elapsed());
    }
    println!("the next writer waited {delays:?}");
    assert!(delays.iter().max() < Some(&Duration::from_millis(500)), "{delays:?}");
    cluster.shutdown().await.expect("an orderly end");
}
