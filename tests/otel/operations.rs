//! Tests the histogram of the durations of callers' requests.

use std::{
    pin::pin,
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, future::join_all};
use opentelemetry::Value;
use podpool::{Pool, Target, metrics::OPERATION_DURATION, testkit::Cluster, tokio_postgres::types::Type};

use crate::{
    LIMIT,
    collection::{Collection, Point},
    common::until,
};

/// One Pod, and a pool with one connection to it.
struct Site {
    cluster: Cluster,
    collection: Collection,
    pool: Pool,
}

impl Site {
    async fn start(parameters: &str) -> Self {
        let cluster = Cluster::start(1).await.expect("the cluster starts");
        let collection = Collection::new();
        let pool = crate::workload::builder(&cluster, parameters).meter_provider(collection.provider()).build();
        let pool = pool.expect("the pool is built");
        pool.wait_ready(Target::Any, LIMIT).await.expect("the Pod becomes ready");
        Self { cluster, collection, pool }
    }

    fn points(&self) -> Vec<Point> {
        self.collection.points(OPERATION_DURATION)
    }

    /// Returns the number of requests with this error type. It is empty for those that have succeeded.
    fn count(&self, error: &str) -> u64 {
        self.points().iter().filter(|point| point.text("error.type") == error).map(Point::count).sum()
    }

    async fn end(self) {
        self.pool.close().await;
        self.cluster.shutdown().await.expect("the cluster stops");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_request_that_executes_is_counted_with_the_documented_attributes() {
    let site = Site::start("").await;
    let client = site.pool.get().await.expect("a connection is available");
    let statement = client.prepare("SELECT $1::int4").await.expect("the statement is prepared");
    assert!(site.points().is_empty(), "a prepared statement was counted: {:?}", site.points());
    for value in 0..3i32 {
        client.query_one(&statement, &[&value]).await.expect("the query succeeds");
    }
    drop(statement); // closes it on the server
    client.simple_query("SELECT 1; SELECT 2").await.expect("the queries succeed");
    client.query_typed("SELECT $1", &[(&1i32, Type::INT4)]).await.expect("the query succeeds");
    assert_eq!(site.count(""), 5);
    let [point] = &site.points()[..] else { panic!("one Pod and no error: {:?}", site.points()) };
    let address = site.cluster.pod(0).address();
    assert_eq!(point.text("db.system.name"), "postgresql");
    assert_eq!(point.text("db.namespace"), site.cluster.database());
    assert_eq!(point.text("server.address"), address.ip().to_string());
    assert_eq!(point.attributes["server.port"], Value::I64(address.port().into()));
    assert_eq!(point.attributes.len(), 4);

    client.batch_execute("CREATE TEMP TABLE copied (value int4)").await.expect("the table is created");
    let sink = client.copy_in::<_, bytes::Bytes>("COPY copied FROM STDIN").await.expect("the COPY begins");
    let mut sink = pin!(sink);
    sink.send(bytes::Bytes::from_static(b"1\n2\n")).await.expect("rows are sent");
    assert_eq!(site.count(""), 6, "the COPY has not ended");
    assert_eq!(sink.finish().await.expect("the COPY ends"), 2);
    assert_eq!(site.count(""), 7);
    drop(client);

    let owned = site.pool.connect_owned(Target::Any).await.expect("a connection is opened");
    owned.client.simple_query("SELECT 1").await.expect("the query succeeds");
    assert_eq!(site.count(""), 8, "a connection that belongs to the application");
    drop(owned);
    site.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_pipelined_request_has_its_own_duration() {
    let site = Site::start("").await;
    let client = site.pool.get().await.expect("a connection is available");
    let sleep = client.prepare("SELECT pg_sleep(0.2)").await.expect("the statement is prepared");
    // The requests are sent together, and the server executes them one after the other.
    let results = join_all((0..3).map(|_| client.query(&sleep, &[]))).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let [point] = &site.points()[..] else { panic!("one Pod and no error: {:?}", site.points()) };
    let (count, min, max, _) = point.histogram.clone().expect("it is a histogram");
    println!("{count} requests of 0.2 s: {min:.3} s to {max:.3} s, together {:.3} s", point.value);
    assert_eq!(count, 3);
    // The driver may write the first request before the others are sent.
    assert!(min >= 0.2 && max >= 0.5 && point.value >= 1.0, "the sum is almost 0.2 + 0.4 + 0.6 s");
    assert!(min < 0.6, "the first request is measured until its own response");
    drop((sleep, client));
    site.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_request_has_the_sqlstate() {
    let site = Site::start("").await;
    let client = site.pool.get().await.expect("a connection is available");
    client.prepare("SELECT nothing FROM nowhere").await.expect_err("the table does not exist");
    assert!(site.points().is_empty(), "a prepared statement was counted");
    client.query("SELECT 1 / $1::int4", &[&0i32]).await.expect_err("division by zero");
    client.simple_query("SELEC 1").await.expect_err("a syntax error");
    client.simple_query("SELECT 1").await.expect("the query succeeds");
    for (error, status) in [("22012", "22012"), ("42601", "42601"), ("", "")] {
        let points = site.points();
        let point = points.iter().find(|point| point.text("error.type") == error).expect("the request is counted");
        assert_eq!((point.count(), &*point.text("db.response.status_code")), (1, status));
    }
    // The server ends the session with an error, or without one.
    let terminate = client.simple_query("SELECT pg_terminate_backend(pg_backend_pid())");
    terminate.await.expect_err("the session ends");
    drop(client);
    until(LIMIT, "the lost request is counted", || site.count("57P01") == 1).await;
    let client = site.pool.get_within(Target::Any, LIMIT).await.expect("a connection is opened");
    let mut sleep = Box::pin(client.simple_query("SELECT pg_sleep(60)"));
    let soon = tokio::time::timeout(Duration::from_millis(200), &mut sleep).await;
    soon.expect_err("the statement is slow");
    site.cluster.kill(0).await.expect("the server is killed");
    sleep.await.expect_err("the connection is lost");
    until(LIMIT, "the lost request is counted", || site.count("connection_lost") == 1).await;
    let points = site.points();
    let lost = points.iter().find(|point| point.text("error.type") == "connection_lost").expect("it was counted");
    assert!(!lost.attributes.contains_key("db.response.status_code"), "{lost:?}");
    drop(client);
    site.pool.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pools_own_statements_are_not_counted() {
    let site = Site::start("&reset=discard&probe_interval=100ms&ping_after=1ms").await;
    let observer = site.cluster.client(0).await.expect("the superuser connects");
    for round in 1..=5u64 {
        let client = site.pool.get_within(Target::Any, LIMIT).await.expect("a connection is available");
        client.batch_execute("BEGIN; SET LOCAL statement_timeout = 0; SELECT 1").await.expect("the queries succeed");
        let process = i64::from(client.process_id().expect("the server has announced it"));
        drop(client); // rolled back and reset in the background
        let is_reset = || site.pool.status().counters.reset == round;
        until(LIMIT, "the session is reset", is_reset).await;
        let probe = "SELECT 1 FROM pg_stat_activity WHERE pid = $1::int8 AND query LIKE '%pg_catalog.pg_control%'";
        let deadline = Instant::now() + LIMIT;
        while observer.query(probe, &[&process]).await.expect("the query succeeds").is_empty() {
            assert!(Instant::now() < deadline, "no probe has used the connection");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert_eq!(site.count(""), 5);
    assert_eq!(site.points().len(), 1, "{:?}", site.points());
    site.end().await;
}
