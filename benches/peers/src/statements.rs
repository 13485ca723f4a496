//! Compares the throughput of `SELECT 1`, with three real servers on the same machine as the callers.

use std::sync::Arc;

use deadpool::managed::QueueMode;
use rustix::thread::{self, CpuSet};

use crate::{
    pools::{Bb8, Connection, Locked, RoundRobin, Servers},
    rounds::{Case, measure},
    table::Table,
};

const SQL: &str = "SELECT 1";

pub fn compare(size: usize) {
    // Use two worker threads, which is tokio's default on the two-processor machine of docs/benchmarks.md.
    table(Servers::start(2, size), "callers and servers share all processors");
    pin_to_one_processor();
    table(Servers::start(1, size), "callers and servers share one processor");
}

/// Pins this thread and all threads and processes that it starts afterwards, including the servers, to one processor.
/// On one processor, the rate depends only on the CPU time of a statement. On several processors, the rate also depends
/// on the assignment of threads to processors, and on the wake-up time of idle processors. On a virtual machine, this
/// wake-up time is most of the latency of a single caller.
fn pin_to_one_processor() {
    let allowed = thread::sched_getaffinity(None).expect("the CPU affinity of this thread is readable");
    let last =
        (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu)).expect("the thread may run on some processor");
    let mut one = CpuSet::new();
    one.set(last);
    thread::sched_setaffinity(None, &one).expect("the CPU affinity is set");
}

fn table(servers: Servers, processors: &str) {
    let title = format!(
        "`SELECT 1`, prepared if the pool has a statement cache, {processors}, {} connections to each Pod (podpool's \
         rate relative to the rate of each; above 1 is slower)",
        servers.size
    );
    let mut table = Table::new(title, "kops/s", true);
    for tasks in [1, 4, 16, 64] {
        let mut cases = cases(&servers, tasks);
        let names: Vec<_> = cases.iter().map(|case| case.name).collect();
        let rates: Vec<_> = measure(&mut cases).iter().map(|each| tasks as f64 * 1e6 / each).collect();
        let title = if tasks == 1 { "1 task".to_owned() } else { format!("{tasks} tasks") };
        table.column(title, &names, &rates);
    }
    servers.end();
    table.print();
}

fn cases(servers: &Servers, tasks: u64) -> Vec<Case> {
    let runtime = servers.runtime;
    macro_rules! case {
        ($name:expr, $pool:expr, $query:expr) => {{
            let pool = $pool;
            Case::timed($name, runtime, tasks, move || {
                let pool = pool.clone();
                async move { $query(&pool).await }
            })
        }};
    }
    let unchanged = |builder| builder;
    let locked = || Arc::new(Locked::new(servers.deadpools()));
    let query_locked = async |pools: &Arc<Locked>| query_deadpool(&pools.next()).await;
    vec![
        case!("podpool, three Pods", servers.podpool(), query_podpool),
        case!(
            "Vec<Pool>, round robin, three Pods",
            Arc::new(RoundRobin::new(servers.deadpools())),
            async |pools: &Arc<RoundRobin>| query_deadpool(pools.next()).await
        ),
        case!("RwLock<Vec<Pool>>, round robin, three Pods", locked(), query_locked),
        case!("the same, repeated", locked(), query_locked),
        case!("deadpool-postgres, multi-host", servers.multi_host(), async |pool: &deadpool_postgres::Pool| {
            query_deadpool(pool).await
        }),
        case!("podpool, one Pod", servers.podpool_to_one(), query_podpool),
        case!(
            "deadpool-postgres, one Pod",
            servers.deadpool(0, servers.total(), unchanged),
            async |pool: &deadpool_postgres::Pool| { query_deadpool(pool).await }
        ),
        case!(
            "deadpool-postgres, LIFO, one Pod",
            servers.deadpool(0, servers.total(), |builder| builder.queue_mode(QueueMode::Lifo)),
            async |pool: &deadpool_postgres::Pool| { query_deadpool(pool).await }
        ),
        case!("bb8-postgres (no statement cache), one Pod", servers.bb8(true), async |pool: &Bb8| {
            let client = pool.get().await.expect("checkout succeeds");
            client.query_one(SQL, &[]).await.expect("the query returns a row");
        }),
        case!("sqlx, one Pod", servers.sqlx(true), async |pool: &sqlx::PgPool| {
            sqlx::query(SQL).fetch_one(pool).await.expect("the query returns a row");
        }),
        case!("qorb (no statement cache), three Pods", servers.qorb(), async |pool: &Arc<
            qorb::pool::Pool<Connection>,
        >| {
            let connection = pool.claim().await.expect("checkout succeeds");
            connection.client.query_one(SQL, &[]).await.expect("the query returns a row");
        }),
    ]
}

async fn query_podpool(pool: &podpool::Pool) {
    let client = pool.get().await.expect("checkout succeeds");
    let statement = client.prepare_cached(SQL).await.expect("the statement is prepared");
    client.query_one(&statement, &[]).await.expect("the query returns a row");
}

async fn query_deadpool(pool: &deadpool_postgres::Pool) {
    let client = pool.get().await.expect("checkout succeeds");
    let statement = client.prepare_cached(SQL).await.expect("the statement is prepared");
    client.query_one(&statement, &[]).await.expect("the query returns a row");
}
