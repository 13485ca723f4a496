//! Tests the behaviors in which the supported versions of PostgreSQL differ, as listed in `docs/testing.md`, and that
//! the pool works with each of them. `make matrix` runs these tests against every version.

use std::{
    io::{self, Write},
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use podpool::{
    Class, Config, Pool, Role, State, Target, classify,
    testkit::Cluster,
    tokio_postgres::{NoTls, error::SqlState},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

mod common;
use common::{ejections::ejections as ejections_of, until};

const LONG: Duration = Duration::from_secs(20);

/// Parameters that the server reports at connect, and the first version that does.
const REPORTED: [(&str, u32); 6] = [
    ("TimeZone", 13),
    ("session_authorization", 13),
    ("default_transaction_read_only", 14),
    ("in_hot_standby", 14),
    ("scram_iterations", 16),
    ("search_path", 18),
];

/// Settings, and the first version that has them. Minor releases have backported no setting of this list.
const SETTINGS: [(&str, u32); 6] = [
    ("idle_session_timeout", 14),
    ("client_connection_check_interval", 14),
    ("reserved_connections", 16),
    ("transaction_timeout", 17),
    ("idle_replication_slot_timeout", 18),
    ("md5_password_warnings", 18),
];

/// Protocol version 3.2, with a major and a minor part of 16 bits each.
const PROTOCOL_3_2: u32 = 3 << 16 | 2;

/// A buffer for the log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no thread has panicked").extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn pool_of(url: &str) -> Pool {
    let config: Config = url.parse().expect("the URL parses");
    Pool::builder(config).build().expect("the pool is created")
}

/// Sends a startup packet that requests a protocol version. Returns the type of the first response.
async fn first_response(server: SocketAddr, version: u32) -> u8 {
    let mut stream = TcpStream::connect(server).await.expect("the connection opens");
    let body = [&version.to_be_bytes()[..], b"user\0postgres\0database\0postgres\0\0"].concat();
    let length = u32::try_from(body.len() + 4).expect("the length fits in u32");
    stream.write_all(&[&length.to_be_bytes()[..], &body].concat()).await.expect("the packet is sent");
    stream.read_u8().await.expect("the server responds")
}

#[tokio::test]
async fn the_documented_differences_exist() {
    let cluster = Cluster::start(1).await.expect("the cluster starts");
    let version = cluster.postgres_version();
    println!("PostgreSQL {version}");

    let (client, connection) =
        podpool::tokio_postgres::connect(&cluster.pod_url(0), NoTls).await.expect("the connection opens");
    for (name, since) in REPORTED {
        assert_eq!(connection.parameter(name).is_some(), version >= since, "{name} is reported since {since}");
    }
    tokio::spawn(connection);
    for (name, since) in SETTINGS {
        let rows = client.query("SELECT FROM pg_settings WHERE name = $1", &[&name]).await.expect("the query succeeds");
        assert_eq!(rows.len() == 1, version >= since, "{name} exists since {since}");
    }

    // A server that does not support version 3.2 responds with NegotiateProtocolVersion. A server that supports it
    // continues with the authentication.
    let expected = if version >= 18 { b'R' } else { b'v' };
    assert_eq!(first_response(cluster.pod(0).address(), PROTOCOL_3_2).await, expected);
    assert_eq!(first_response(cluster.pod(0).address(), 3 << 16).await, b'R');
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_health_check_gets_all_facts() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).init();
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    let admin = cluster.client(0).await.expect("the connection opens");
    admin.batch_execute("CREATE TABLE t (n int); INSERT INTO t VALUES (1)").await.expect("the table is created");
    cluster.wait_replicated().await.expect("the standby catches up");

    for (ordinal, role) in [(0, Role::Primary), (1, Role::Standby)] {
        let pool = pool_of(&format!("{}?probe_interval=100ms", cluster.pod_url(ordinal)));
        until(LONG, "the server's state is known", || {
            pool.status().endpoints.first().is_some_and(|pod| {
                pod.state == State::Healthy
                    && (pod.role, pod.timeline, pod.server_connections) == (role, Some(1), Some(97))
            })
        })
        .await;
    }
    let pool = pool_of(&format!("{}&probe_interval=100ms", cluster.url()));
    until(LONG, "the lag is known", || pool.status().endpoints.iter().any(|pod| pod.lag_bytes.is_some())).await;

    let log = String::from_utf8(log.0.lock().expect("no thread has panicked").clone()).expect("the log is text");
    assert!(!log.contains("the server refuses a part of the health check"), "{log}");
    cluster.shutdown().await.expect("the cluster shuts down");
}

/// A session that the server ends because of a timeout is no evidence against the Pod.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_timeouts_do_not_eject_the_pod() {
    let builder = Cluster::builder().pods(1).setting("idle_session_timeout", "700ms");
    let cluster = builder.start().await.expect("the cluster starts");
    let pool = pool_of(&format!("{}&pool_size=6&min_idle=6&probe_interval=10s", cluster.url()));
    pool.wait_ready(Target::Primary, LONG).await.expect("the primary becomes ready");
    until(LONG, "the Pod is healthy", || pool.status().endpoints[0].state == State::Healthy).await;
    let ejections = ejections_of(&pool);
    until(LONG, "the server has ended 20 sessions", || pool.status().counters.closed >= 20).await;
    assert_eq!(*ejections.lock().expect("no thread has panicked"), Vec::<String>::new());

    // The sessions of this pool do not end while they are idle.
    let pool = pool_of(&format!("{}&options=-c%20idle_session_timeout%3D0", cluster.url()));
    let ejections = ejections_of(&pool);
    let client = pool.get().await.expect("checkout succeeds");
    let begin = "BEGIN; SET LOCAL idle_in_transaction_session_timeout = '50ms'";
    client.batch_execute(begin).await.expect("the transaction begins");
    until(LONG, "the server has ended the session", || client.is_closed()).await;
    let error = client.batch_execute("COMMIT").await.expect_err("the session has ended");
    assert_eq!(classify(&error).class, Class::Connection, "{error}");
    if cluster.postgres_version() >= 17 {
        let client = pool.get().await.expect("checkout succeeds");
        let sql = "BEGIN; SET LOCAL transaction_timeout = '50ms'; SELECT pg_sleep(20)";
        let error = client.batch_execute(sql).await.expect_err("the session has ended");
        assert_eq!(error.code().map(SqlState::code), Some("25P04"), "{error}");
        assert_eq!(classify(&error).class, Class::Connection, "{error}");
    }
    assert_eq!(*ejections.lock().expect("no thread has panicked"), Vec::<String>::new());
    let client = pool.get().await.expect("checkout succeeds");
    client.batch_execute("SELECT 1").await.expect("the Pod serves");
    drop(client);
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_have_the_same_sqlstates_in_all_versions() {
    let cluster = Cluster::start(2).await.expect("the cluster starts");
    let admin = cluster.client(0).await.expect("the connection opens");
    admin.batch_execute("CREATE TABLE t (n int PRIMARY KEY)").await.expect("the table is created");
    cluster.wait_replicated().await.expect("the standby catches up");
    let pool = pool_of(&cluster.url());

    let standby = pool.get_for(Target::Standby).await.expect("checkout succeeds");
    let error = standby.batch_execute("CREATE TABLE u ()").await.expect_err("the standby is read-only");
    assert_eq!((error.code(), classify(&error).class), (Some(&SqlState::READ_ONLY_SQL_TRANSACTION), Class::ReadOnly));

    let primary = pool.get_for(Target::Primary).await.expect("checkout succeeds");
    let ended = primary.query_one("SELECT pg_terminate_backend(pg_backend_pid())", &[]).await;
    let error = ended.expect_err("the session has ended");
    assert_eq!((error.code(), classify(&error).class), (Some(&SqlState::ADMIN_SHUTDOWN), Class::NotReady));
    cluster.shutdown().await.expect("the cluster shuts down");
}
