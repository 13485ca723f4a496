//! Tests pools that share their Pods (`Builder::share_with`), on real servers.
//!
//! - [`cost`]: a group has one resolver, and at most one probe connection to each Pod.
//! - [`failover`]: all pools of a group follow a failover, also after the first one was dropped or closed.
//! - [`logins`]: the refusal of one pool's user, database or sessions does not affect the others.
//! - [`reports`]: events reach every pool, and are logged, counted and exported once.
#![allow(clippy::print_stdout, reason = "tests print their measurements")]

#[path = "../common/mod.rs"]
mod common;

mod cost;
mod failover;
mod logins;
mod reports;

use std::time::Duration;

use podpool::{Builder, Config, Event, Events, Pool, Target, testkit::Cluster};

/// Time limit for each condition that a test waits for.
const LIMIT: Duration = Duration::from_secs(30);

/// Returns the configuration of a tenant: its user, and a database of the cluster, with parameters for the URL.
fn config(cluster: &Cluster, user: &str, database: &str, parameters: &str) -> Config {
    let (host, port, dns) = (cluster.service(), cluster.port(), cluster.dns().address());
    let url = format!("postgres://{user}:secret@{host}:{port}/{database}?nameservers={dns}{parameters}");
    url.parse().expect("the URL parses")
}

/// Returns a builder of a pool with short probe intervals.
fn tenant(cluster: &Cluster, user: &str) -> Builder {
    tenant_with(cluster, user, cluster.database(), "")
}

fn tenant_with(cluster: &Cluster, user: &str, database: &str, parameters: &str) -> Builder {
    Pool::builder(config(cluster, user, database, &format!("&probe_interval=1s{parameters}")))
}

/// Starts a cluster with these users, whose password is `secret`.
async fn start(users: impl IntoIterator<Item = String>) -> Cluster {
    let cluster = Cluster::builder().setting("max_connections", "200").start().await.expect("the cluster starts");
    for user in users {
        create_user(&cluster, &user, "").await;
    }
    cluster.wait_replicated().await.expect("the standbys have the users");
    cluster
}

async fn create_user(cluster: &Cluster, user: &str, options: &str) {
    run(cluster, &format!("CREATE ROLE {user} LOGIN PASSWORD 'secret' IN ROLE pg_read_all_stats; {options}")).await;
}

/// Executes statements on the primary as the superuser.
async fn run(cluster: &Cluster, statements: &str) {
    let primary = cluster.primary().expect("there is a primary");
    let client = cluster.client(primary).await.expect("the superuser connects");
    client.batch_execute(statements).await.expect("the statements succeed");
}

/// Returns the users of all connections that only probes use, on all running Pods.
async fn probe_users(cluster: &Cluster, pods: impl IntoIterator<Item = usize>) -> Vec<String> {
    let mut users = Vec::new();
    for pod in pods {
        let client = cluster.client(pod).await.expect("the superuser connects");
        let sessions = "SELECT usename::text FROM pg_stat_activity WHERE application_name LIKE '%/probe'";
        let rows = client.query(sessions, &[]).await.expect("the query succeeds");
        users.extend(rows.iter().map(|row| row.get::<_, String>(0)));
    }
    users
}

/// Waits until each pool serves the target.
async fn ready(pools: &[&Pool], target: Target) {
    for pool in pools {
        pool.wait_ready(target, LIMIT).await.unwrap_or_else(|error| panic!("{} serves: {error}", pool.name()));
    }
}

/// Returns the user and the database of a new session of the pool.
async fn identity(pool: &Pool) -> (String, String) {
    let client = pool.get().await.expect("a connection");
    let row = client.query_one("SELECT current_user::text, current_database()::text", &[]).await.expect("a row");
    (row.get(0), row.get(1))
}

/// Returns the events that a subscriber has received so far.
async fn received(events: &mut Events) -> Vec<Event> {
    let mut received = Vec::new();
    while let Ok(Some(event)) = tokio::time::timeout(Duration::from_millis(50), events.next()).await {
        received.push(event.expect("no event is lost"));
    }
    received
}

fn is_ejection(event: &Event) -> bool {
    matches!(event, Event::StateChanged { to: "ejected", .. })
}
