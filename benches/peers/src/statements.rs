//! `SELECT 1` as fast as it goes, on three real servers that share the machine with the callers.

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
    // As many workers as Tokio starts by itself on so many processors; two are what README's figures were taken on.
    table(Servers::start(2, size), "callers and servers share all processors");
    on_one_processor();
    table(Servers::start(1, size), "callers and servers share one processor");
}

/// Keeps this thread and whatever it starts from now on, servers too, on one processor. Nobody waits there for a
/// processor that sleeps to wake, which is most of what one caller waits for on a virtual machine, and it does not matter
/// which of them is woken on which: the rate is what the processor time of a statement allows.
fn on_one_processor() {
    let allowed = thread::sched_getaffinity(None).expect("the processors that are allowed");
    let last = (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu)).expect("one processor at least");
    let mut one = CpuSet::new();
    one.set(last);
    thread::sched_setaffinity(None, &one).expect("one of the processors that are allowed");
}

fn table(servers: Servers, stage: &str) {
    let title = format!(
        "`SELECT 1`, prepared where the pool can, {stage}, {} connections to each Pod (podpool's rate over its rate; above \
         1 is slower)",
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
        ($name:expr, $pool:expr, $ask:expr) => {{
            let pool = $pool;
            Case::for_a_while($name, runtime, tasks, move || {
                let pool = pool.clone();
                async move { $ask(&pool).await }
            })
        }};
    }
    let same = |builder| builder;
    let locked = || Arc::new(Locked::new(servers.deadpools()));
    let ask_locked = async |pools: &Arc<Locked>| ask_deadpool(&pools.next()).await;
    vec![
        case!("podpool, three Pods", servers.podpool(), ask_podpool),
        case!(
            "Vec<Pool>, round robin, three Pods",
            Arc::new(RoundRobin::new(servers.deadpools())),
            async |pools: &Arc<RoundRobin>| ask_deadpool(pools.next()).await
        ),
        case!("RwLock<Vec<Pool>>, round robin, three Pods", locked(), ask_locked),
        case!("the same again", locked(), ask_locked),
        case!("deadpool-postgres, multi-host", servers.multi_host(), async |pool: &deadpool_postgres::Pool| {
            ask_deadpool(pool).await
        }),
        case!("podpool, one Pod", servers.podpool_to_one(), ask_podpool),
        case!(
            "deadpool-postgres, one Pod",
            servers.deadpool(0, servers.whole(), same),
            async |pool: &deadpool_postgres::Pool| { ask_deadpool(pool).await }
        ),
        case!(
            "deadpool-postgres, one Pod, the last used first",
            servers.deadpool(0, servers.whole(), |builder| builder.queue_mode(QueueMode::Lifo)),
            async |pool: &deadpool_postgres::Pool| { ask_deadpool(pool).await }
        ),
        case!("bb8-postgres (no statement cache), one Pod", servers.bb8(true), async |pool: &Bb8| {
            let client = pool.get().await.expect("a connection");
            client.query_one(SQL, &[]).await.expect("an answer");
        }),
        case!("sqlx, one Pod", servers.sqlx(true), async |pool: &sqlx::PgPool| {
            sqlx::query(SQL).fetch_one(pool).await.expect("an answer");
        }),
        case!("qorb (no statement cache), three Pods", servers.qorb(), async |pool: &Arc<
            qorb::pool::Pool<Connection>,
        >| {
            let connection = pool.claim().await.expect("a connection");
            connection.client.query_one(SQL, &[]).await.expect("an answer");
        }),
    ]
}

async fn ask_podpool(pool: &podpool::Pool) {
    let client = pool.get().await.expect("a connection");
    let statement = client.prepare_cached(SQL).await.expect("a statement");
    client.query_one(&statement, &[]).await.expect("an answer");
}

async fn ask_deadpool(pool: &deadpool_postgres::Pool) {
    let client = pool.get().await.expect("a connection");
    let statement = client.prepare_cached(SQL).await.expect("a statement");
    client.query_one(&statement, &[]).await.expect("an answer");
}
