//! Behind a real PgBouncer: session pooling works; under transaction pooling `query_typed` and simple queries do; and the
//! role, which PgBouncer does not pass on, is found by a query.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use podpool::{
    Client, Config, Pool, Role, State, Target,
    testkit::Cluster,
    tokio_postgres::{NoTls, SimpleQueryMessage, types::Type},
};

mod common;
use common::{programs::programs, until};

const LONG: Duration = Duration::from_secs(20);

/// A PgBouncer in front of one Pod. Dropping it ends its process; its files go with the cluster's.
struct Bouncer {
    child: Child,
    address: SocketAddr,
    url: String,
}

impl Bouncer {
    async fn start(program: &Path, cluster: &Cluster, ordinal: usize, mode: &str, size: u32) -> Self {
        for _ in 0..5 {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
            let address = listener.local_addr().expect("an address");
            drop(listener);
            let pod = cluster.pod(ordinal).address();
            // In the cluster's own directory, which nobody else can enter.
            let name = format!("pgbouncer-{}", address.port());
            let [ini, users, log] = ["ini", "users", "log"].map(|e| cluster.directory().join(format!("{name}.{e}")));
            write(&users, &format!("\"{}\" \"{}\"\n", cluster.user(), cluster.password()));
            let text = format!(
                "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = {}\nlisten_port = {}\nunix_socket_dir =\n\
                 auth_type = scram-sha-256\nauth_file = {}\npool_mode = {mode}\ndefault_pool_size = {size}\n",
                pod.ip(),
                pod.port(),
                address.ip(),
                address.port(),
                users.display(),
            );
            write(&ini, &text);
            let log = fs::File::create(log).expect("a log");
            let mut command = Command::new(program);
            command.arg(&ini).stdin(Stdio::null()).stdout(log.try_clone().expect("the log")).stderr(log);
            if rustix::process::geteuid().is_root() {
                // It refuses to run as root.
                command.args(["-u", "postgres"]);
            }
            let child = command.spawn().expect("PgBouncer's program starts");
            let direct = cluster.pod_url(ordinal);
            let (authority, path) = (pod.to_string(), format!("/{}", cluster.database()));
            assert!(direct.contains(&authority), "{direct}");
            let url = direct.replace(&authority, &address.to_string());
            assert!(url.contains(&path), "{url}");
            let mut bouncer = Self { child, address, url };
            if bouncer.comes_up(cluster).await {
                return bouncer;
            }
        }
        panic!("PgBouncer did not come up five times: see {}", cluster.directory().display());
    }

    async fn comes_up(&mut self, cluster: &Cluster) -> bool {
        let deadline = Instant::now() + LONG;
        let mut config = podpool::tokio_postgres::Config::new();
        config.host(self.address.ip().to_string()).port(self.address.port());
        config.user(cluster.user()).password(cluster.password()).dbname(cluster.database());
        while Instant::now() < deadline {
            if self.child.try_wait().expect("its state").is_some() {
                return false;
            }
            if config.connect(NoTls).await.is_ok() {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    fn pool(&self, parameters: &str) -> Pool {
        let config: Config = format!("{}?{parameters}", self.url).parse().expect("a URL");
        Pool::builder(config).build().expect("a pool")
    }
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("PgBouncer's process {} is not ended: {error}", self.child.id());
        }
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("its mode");
}

/// Something with a parameter and a row, in one round trip and without a name.
async fn doubled(client: &Client, number: i32) -> i32 {
    let rows = client.query_typed("SELECT $1 * 2", &[(&number, Type::INT4)]).await.expect("an answer");
    rows[0].get(0)
}

async fn open_transaction(client: &Client) -> bool {
    let sql = "SELECT pg_current_xact_id_if_assigned() IS NOT NULL OR now() <> statement_timestamp()";
    let answer = client.simple_query(sql).await.expect("an answer");
    answer.iter().any(|message| matches!(message, SimpleQueryMessage::Row(row) if row.get(0) == Some("t")))
}

/// What a borrower leaves in the middle is settled behind PgBouncer too, and nothing of it is handed on.
async fn leaves_nothing_open(pool: &Pool) {
    for round in 0..12 {
        let client = pool.get().await.expect("a connection");
        match round % 2 {
            0 => client.batch_execute("BEGIN; SELECT 1").await.expect("a transaction"),
            _ => drop(client.batch_execute("BEGIN; SELECT 1/0").await),
        }
        drop(client);
        let client = pool.get().await.expect("a connection");
        let began = Instant::now();
        assert!(!open_transaction(&client).await, "round {round}");
        assert!(began.elapsed() < Duration::from_secs(1), "round {round}: {:?}", began.elapsed());
    }
    let counters = pool.status().counters;
    assert!(counters.recycled >= 12, "{counters:?}");
    // Settled, not thrown away.
    assert_eq!(counters.discarded, 0, "{counters:?}");
}

/// Probes go on passing, by a Sync and a query.
async fn is_probed(pool: &Pool, role: Role) {
    let (picked, since) = (pool.status().endpoints[0].slots, Instant::now());
    assert!(picked.is_some());
    until(LONG, "the role is known", || pool.status().endpoints[0].role == role).await;
    while since.elapsed() < Duration::from_secs(1) {
        let pod = &pool.status().endpoints[0];
        assert_eq!((pod.state, &pod.last_failure), (State::Healthy, &None));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_pooling_works_and_the_role_is_found_by_a_query() {
    let Some([program]) = programs(["pgbouncer"]) else { return };
    let cluster = Cluster::start(2).await.expect("a cluster");
    for (ordinal, role, target) in [(0, Role::Primary, Target::Primary), (1, Role::Standby, Target::Standby)] {
        let bouncer = Bouncer::start(&program, &cluster, ordinal, "session", 20).await;
        let pool = bouncer.pool("reset=discard&statement_cache_size=8&probe_interval=100ms");
        let mut client = pool.get_for(target).await.expect("a connection");
        assert_eq!(client.role(), role);

        // Everything that belongs to a session stays with it: statements, settings, transactions.
        for number in 0..20 {
            let statement = client.prepare_cached("SELECT $1::int4 * 2").await.expect("a statement");
            assert_eq!(client.query_one(&statement, &[&number]).await.expect("an answer").get::<_, i32>(0), number * 2);
        }
        client.batch_execute("SET work_mem = '123MB'").await.expect("a setting");
        let transaction = client.transaction().await.expect("a transaction");
        let row = transaction.query_one("SHOW work_mem", &[]).await.expect("an answer");
        assert_eq!(row.get::<_, &str>(0), "123MB");
        transaction.commit().await.expect("its end");
        drop(client);
        let client = pool.get().await.expect("a connection");
        assert_ne!(client.query_one("SHOW work_mem", &[]).await.expect("an answer").get::<_, &str>(0), "123MB");
        drop(client);

        let other = if role == Role::Primary { Target::Standby } else { Target::Primary };
        pool.wait_ready(other, Duration::from_millis(300)).await.expect_err("it is not that");
        is_probed(&pool, role).await;
        leaves_nothing_open(&bouncer.pool("pool_size=1")).await;
    }
    cluster.shutdown().await.expect("an orderly end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_transaction_pooling_query_typed_and_simple_queries_work() {
    let Some([program]) = programs(["pgbouncer"]) else { return };
    let cluster = Cluster::start(1).await.expect("a cluster");
    // Three sessions on the server for eight connections and a probe.
    let bouncer = Bouncer::start(&program, &cluster, 0, "transaction", 3).await;
    let pool = bouncer.pool("probe_interval=100ms");
    pool.wait_ready(Target::Primary, LONG).await.expect("the role is found by a query");

    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for number in 0..100 {
                    let client = pool.get().await.expect("a connection");
                    assert_eq!(doubled(&client, number).await, number * 2);
                    let begin = format!("BEGIN; SELECT set_config('my.own', '{task}', true)");
                    client.batch_execute(&begin).await.expect("a transaction");
                    // Every statement of a transaction meets the same session.
                    let answer = client.simple_query("SELECT current_setting('my.own')").await.expect("an answer");
                    let own = answer.iter().find_map(|message| match message {
                        SimpleQueryMessage::Row(row) => row.get(0),
                        _ => None,
                    });
                    assert_eq!(own, Some(task.to_string().as_str()));
                    client.batch_execute("COMMIT").await.expect("its end");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("every answer is right");
    }
    let status = pool.status();
    println!("800 rounds: {:?}", status.counters);
    assert!(status.endpoints[0].open > 3, "more connections than sessions: {status:?}");
    assert_eq!((status.counters.open_failed, status.counters.discarded), (0, 0), "{:?}", status.counters);
    is_probed(&pool, Role::Primary).await;
    leaves_nothing_open(&bouncer.pool("pool_size=1")).await;
    drop(pool);
    cluster.shutdown().await.expect("an orderly end");
}
