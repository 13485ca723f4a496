//! Broken servers: no primary, two primaries, no free slot, a lagging standby, and PgBouncer in between.

use podpool::{
    testkit::{Cluster, Shutdown},
    tokio_postgres::{Config, NoTls},
};

use crate::{assert_explains, assert_good, bouncer::Bouncer, cluster, common::programs::programs};

async fn execute(cluster: &Cluster, ordinal: usize, sql: &str) {
    let client = cluster.client(ordinal).await.expect("the superuser connects");
    client.batch_execute(sql).await.expect("the statement succeeds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explains_a_lagging_standby_and_a_missing_primary() {
    let cluster = cluster(3).start().await.expect("the cluster starts");
    let url = cluster.url();

    execute(&cluster, 1, "SELECT pg_wal_replay_pause()").await;
    execute(&cluster, 0, "CREATE TABLE late (id int); INSERT INTO late SELECT generate_series(1, 1000)").await;
    let cause = "bytes behind the primary";
    let run = assert_explains(&url, 3, "lag", cause, "SELECT pg_wal_replay_resume()").await;
    assert!(run.stdout.contains("its replay is paused"), "{}", run.stdout);
    assert!(run.stdout.contains(&format!("- {}", cluster.pod(1).address())), "{}", run.stdout);
    execute(&cluster, 1, "SELECT pg_wal_replay_resume()").await;
    cluster.wait_replicated().await.expect("the standby catches up");
    assert_good(&url).await;

    cluster.stop(0, Shutdown::Fast).await.expect("the primary stops");
    let run = assert_explains(&url, 1, "role", "is the primary: 2 are standbys, and 1 cannot be used", "repair").await;
    assert!(run.stdout.contains("no server listens on the port of this Pod"), "{}", run.stdout);
    cluster.unpublish(0).expect("the Pod leaves DNS");
    assert_explains(&url, 1, "role", "no Pod is the primary: 2 of 2 are standbys", "pg_promote()").await;

    // The former primary returns as a second primary.
    cluster.promote(1).await.expect("the standby is promoted");
    cluster.start_pod(0).await.expect("the former primary starts");
    cluster.publish(0).expect("the Pod returns to DNS");
    let cause = "2 primaries run at the same time (split brain)";
    assert_explains(&url, 1, "role", cause, "keep the one with the highest timeline").await;
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explains_a_full_server() {
    let cluster = cluster(1).setting("max_connections", "10").start().await.expect("the cluster starts");
    let url = format!("{}&pool_size=4", cluster.url());
    assert_good(&url).await;
    let cause = "the clients may open more connections than a server accepts: clients=3 × (pool_size=4 + 1 probe) = 15";
    assert_explains(&format!("{url}&clients=3"), 3, "slots", cause, "set pool_size to at most 1").await;

    let pod = cluster.pod(0).address();
    let mut config = Config::new();
    config.host(pod.ip().to_string()).port(pod.port()).user(cluster.user()).password(cluster.password());
    config.dbname(cluster.database());
    let mut held = Vec::new();
    loop {
        match config.connect(NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                held.push(client);
            }
            Err(error) => {
                assert_eq!(error.code().map(|code| code.code()), Some("53300"), "{error}");
                break;
            }
        }
        assert!(held.len() < 10, "the server accepts more connections than max_connections");
    }
    assert_explains(&url, 1, "slots", "the server is full", "FROM pg_stat_activity").await;
    cluster.shutdown().await.expect("the cluster shuts down");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn explains_pgbouncer_in_between() {
    let Some([program]) = programs(["pgbouncer"]) else { return };
    let cluster = cluster(1).start().await.expect("the cluster starts");
    for mode in ["session", "transaction"] {
        let bouncer = Bouncer::start(&program, &cluster, 0, mode, 10).await;
        let cause = "a connection pooler such as PgBouncer is between the client and the server";
        assert_explains(&bouncer.url, 3, "proxy", cause, "name the headless Service").await;
    }
    cluster.shutdown().await.expect("the cluster shuts down");
}
