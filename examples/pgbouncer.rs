//! PgBouncer between the pool and the servers, for applications with more clients than the servers have connections.
//!
//! `DATABASE_URL="postgres://user:password@pgbouncer-svc.k8s-training.svc.cluster.local:6432/database\
//!     ?sslmode=verify-full&sslrootcert=ca.crt" cargo run --example pgbouncer`, where the host is a headless Service of
//! PgBouncers in `pool_mode=transaction`.
//!
//! In this mode, each transaction may run on a different server connection, so no session state may outlive a
//! transaction:
//!
//! - Before PgBouncer 1.21 (which added `max_prepared_statements`), use no named prepared statements. `query_typed`
//!   does not create any.
//! - Execute statements that depend on each other in one transaction.
//! - Use no `SET`, `LISTEN`, session-level advisory locks or temporary tables. Use `SET LOCAL` and
//!   `pg_advisory_xact_lock`.
//!
//! The pool detects the role of the server behind a PgBouncer, unless that PgBouncer connects to several Pods. To let
//! the pool find the primary, run a PgBouncer as a sidecar in each Pod.

use podpool::{
    Client, Pool, Target,
    tokio_postgres::{Error, types::Type},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::connect(&std::env::var("DATABASE_URL")?).await?;

    // With explicit parameter types, no named statement is prepared, so any server connection can execute the query.
    let sum = |client: Client| async move {
        let row = client.query_typed_one("SELECT $1 + $2", &[(&40i64, Type::INT8), (&2i64, Type::INT8)]).await?;
        row.try_get::<_, i64>(0)
    };
    println!("40 + 2 = {}", pool.retry(Target::Any, sum).await?);

    // A transaction runs on the same server connection from its start to its end.
    let limited = |mut client: Client| async move {
        let transaction = client.transaction().await?;
        transaction.batch_execute("SET LOCAL statement_timeout = '2s'").await?;
        let row = transaction.query_typed_one("SELECT current_setting('statement_timeout')", &[]).await?;
        transaction.commit().await?;
        row.try_get::<_, String>(0)
    };
    println!("statement_timeout within the transaction: {}", pool.retry(Target::Any, limited).await?);

    // Concurrent requests share up to `pool_size` connections to PgBouncer, which multiplexes them onto fewer server
    // connections.
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
    println!("100 requests used {open} connections to PgBouncer and {} server processes", backends.len());
    Ok(())
}
