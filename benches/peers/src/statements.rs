//! `SELECT 1` as fast as it goes, on three real servers that share the machine with the callers.

use std::sync::Arc;

use deadpool::managed::QueueMode;

use crate::{
    pools::{Bb8, Connection, Locked, PODS, RoundRobin, SIZE, Servers},
    rounds::{Case, measure},
    table::Table,
};

const SQL: &str = "SELECT 1";

pub fn compare() {
    let title = "`SELECT 1`, prepared where the pool can (podpool's rate over its rate; above 1 is slower)";
    let mut table = Table::new(title, "kops/s", true);
    let servers = Servers::start(2);
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
        case!("podpool, three Pods", servers.podpool(), async |pool: &podpool::Pool| {
            let client = pool.get().await.expect("a connection");
            let statement = client.prepare_cached(SQL).await.expect("a statement");
            client.query_one(&statement, &[]).await.expect("an answer");
        }),
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
        case!(
            "deadpool-postgres, one Pod",
            servers.deadpool(0, PODS * SIZE, same),
            async |pool: &deadpool_postgres::Pool| { ask_deadpool(pool).await }
        ),
        case!(
            "deadpool-postgres, one Pod, the last used first",
            servers.deadpool(0, PODS * SIZE, |builder| builder.queue_mode(QueueMode::Lifo)),
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

async fn ask_deadpool(pool: &deadpool_postgres::Pool) {
    let client = pool.get().await.expect("a connection");
    let statement = client.prepare_cached(SQL).await.expect("a statement");
    client.query_one(&statement, &[]).await.expect("an answer");
}
