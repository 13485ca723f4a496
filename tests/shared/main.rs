//! Tests statements on connections that several callers share: `Pool::shared`.
//!
//! [`statements`] covers the accepted statements and their results, [`slow`] slow and abandoned statements,
//! [`hazards`] callers that could block others, [`lifecycle`] the beginning and the end of connections, and
//! [`outcomes`] the reported outcomes under faults. [`batch`] covers several statements in one round trip.

#![allow(clippy::print_stdout, reason = "tests print their measurements")]
#![allow(unreachable_pub, reason = "a test binary has no public API")]

mod batch;
#[path = "../common/mod.rs"]
mod common;
#[path = "../outcomes/cutting_proxy.rs"]
mod cutting_proxy;
mod hazards;
mod lifecycle;
mod outcomes;
mod slow;
mod statements;

use podpool::{
    Pool, Target,
    testkit::Cluster,
    tokio_postgres::{self, types::ToSql},
};

use self::common::one_pod::{SOON, TIMEOUTS, builder};

async fn cluster(pods: usize) -> Cluster {
    Cluster::start(pods).await.expect("the cluster starts")
}

/// Returns a pool to the first Pod that opens connections only when they are needed.
async fn pool_to_one(cluster: &Cluster, parameters: &str) -> Pool {
    let pool = builder(cluster, &format!("min_idle=0&{TIMEOUTS}{parameters}")).build().expect("the pool is created");
    // Opens the shared connection.
    pool.shared(Target::Any).execute("SELECT 1", &[]).await.expect("the first statement succeeds");
    pool
}

async fn superuser(cluster: &Cluster) -> tokio_postgres::Client {
    cluster.client(0).await.expect("the superuser connects")
}

/// Returns the process IDs of the application's sessions, without those of probes.
async fn sessions(cluster: &Cluster) -> Vec<i32> {
    let sql = "SELECT pid FROM pg_stat_activity WHERE usename = $1 AND backend_type = 'client backend' \
               AND application_name NOT LIKE '%/probe' ORDER BY pid";
    let rows = superuser(cluster).await.query(sql, &[&cluster.user()]).await.expect("the sessions are read");
    rows.iter().map(|row| row.get(0)).collect()
}

/// Waits until this number of sessions runs a statement with this text.
async fn running(cluster: &Cluster, text: &str, count: i64) {
    let admin = superuser(cluster).await;
    let sql = "SELECT count(*) FROM pg_stat_activity WHERE query = $1 AND state = 'active'";
    let reached = async {
        while admin.query_one(sql, &[&text]).await.expect("the query succeeds").get::<_, i64>(0) != count {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, reached).await.expect("the number of running statements is reached");
}

async fn pid(pool: &Pool) -> i32 {
    one(pool, "SELECT pg_backend_pid()", &[]).await
}

/// Returns the first column of the only row.
async fn one<T>(pool: &Pool, text: &str, params: &[&(dyn ToSql + Sync)]) -> T
where
    T: for<'a> tokio_postgres::types::FromSql<'a>,
{
    pool.shared(Target::Any).query_one(text, params).await.expect("the statement succeeds").get(0)
}
