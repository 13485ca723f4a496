//! PgBouncer between the pool and the servers: for more clients than the servers have connections.
//!
//! `DATABASE_URL=postgres://user:password@pgbouncer-svc.k8s-training.svc.cluster.local:6432/database \
//!     cargo run --example pgbouncer`, where the name is a headless Service of PgBouncers in `pool_mode=transaction`.
//!
//! Each transaction may then run on another server connection, so nothing may be left on one in between:
//!
//! - no named statements before PgBouncer 1.21 (`max_prepared_statements` since then): `query_typed` has none;
//! - what belongs together is one transaction;
//! - no `SET`, `LISTEN`, session-level advisory locks or temporary tables: `SET LOCAL`, `pg_advisory_xact_lock`.
//!
//! A PgBouncer has the role of the server behind it. One whose database is a list of Pods cannot be told apart by role:
//! give each Pod a PgBouncer of its own, as a sidecar, and the pool sees who is primary.

use podpool::{
    Client, Pool, Target,
    tokio_postgres::{Error, types::Type},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::connect(&std::env::var("DATABASE_URL")?).await?;

    // Parameters with their types: no statement is prepared, so it does not matter which server connection it meets.
    let sum = |client: Client| async move {
        let row = client.query_typed_one("SELECT $1 + $2", &[(&40i64, Type::INT8), (&2i64, Type::INT8)]).await?;
        row.try_get::<_, i64>(0)
    };
    println!("40 and 2 are {}", pool.retry(Target::Any, sum).await?);

    // One transaction, hence one server connection from its beginning to its end.
    let limited = |mut client: Client| async move {
        let transaction = client.transaction().await?;
        transaction.batch_execute("SET LOCAL statement_timeout = '2s'").await?;
        let row = transaction.query_typed_one("SELECT current_setting('statement_timeout')", &[]).await?;
        transaction.commit().await?;
        row.try_get::<_, String>(0)
    };
    println!("within a transaction the limit is {}", pool.retry(Target::Any, limited).await?);

    // Many at once: as many connections to PgBouncer as `pool_size` says, fewer from there on.
    let mut all = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let pool = pool.clone();
        all.spawn(async move {
            let backend = |client: Client| async move {
                let row = client.query_typed_one("SELECT pg_backend_pid() FROM pg_sleep(0.01)", &[]).await?;
                row.try_get::<_, i32>(0)
            };
            pool.retry::<i32, Error, _, _>(Target::Any, backend).await
        });
    }
    let mut backends = std::collections::BTreeSet::new();
    while let Some(backend) = all.join_next().await {
        backends.insert(backend??);
    }
    let open: usize = pool.status().endpoints.iter().map(|pod| pod.open).sum();
    println!("100 requests on {open} connections, by {} server processes", backends.len());
    Ok(())
}
