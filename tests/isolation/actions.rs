//! Actions that a caller performs on its connection, and that the tests interrupt.

use std::pin::pin;

use futures_util::{StreamExt, future::join_all};
use podpool::{Client, tokio_postgres};

/// Number of actions. Some of them take much longer than the time after which the tests interrupt an action.
pub(crate) const ACTIONS: usize = 16;

/// Performs the action with this number and returns the connection to the pool.
pub(crate) async fn run(action: usize, mut client: Client) -> Result<(), tokio_postgres::Error> {
    match action {
        0 => client.batch_execute("BEGIN; SELECT txid_current()").await?,
        1 => client.batch_execute("BEGIN; SELECT 1/0").await?,
        2 => {
            let transaction = client.transaction().await?;
            transaction.execute("SELECT txid_current()", &[]).await?;
            transaction.query_one("SELECT pg_sleep(10)", &[]).await?;
        }
        3 => {
            let mut transaction = client.transaction().await?;
            let savepoint = transaction.savepoint("here").await?;
            savepoint.execute("SELECT txid_current()", &[]).await?;
            savepoint.rollback().await?;
            transaction.commit().await?;
        }
        4 => drop(client.query_one("SELECT pg_sleep(10)", &[]).await?),
        5 => {
            // Pipelines four statements.
            let sql = ["SELECT pg_sleep(0.02)", "BEGIN", "SELECT txid_current()", "SELECT pg_sleep(0.02)"];
            for done in join_all(sql.map(|sql| client.batch_execute(sql))).await {
                done?;
            }
        }
        6 => {
            let statement = client.prepare("SELECT $1::text || pg_sleep(0.001)::text").await?;
            client.query_one(&statement, &[&"x"]).await?;
        }
        7 => {
            client.batch_execute("CREATE TEMP TABLE IF NOT EXISTS copied (x text)").await?;
            let mut sink = pin!(client.copy_in("COPY copied FROM STDIN").await?);
            for _ in 0..3 {
                futures_util::SinkExt::send(&mut sink, bytes::Bytes::from_static(b"line\n")).await?;
                tokio::task::yield_now().await;
            }
            sink.finish().await?;
        }
        8 => {
            let rows = client.copy_out("COPY (SELECT generate_series(1, 100000)) TO STDOUT").await?;
            let mut rows = pin!(rows);
            while rows.next().await.transpose()?.is_some() {}
        }
        9 => {
            let rows = client.query_raw("SELECT generate_series(1, 100000)", Vec::<String>::new()).await?;
            let mut rows = pin!(rows);
            while rows.next().await.transpose()?.is_some() {}
        }
        10 => {
            // The parameter is larger than the socket's send buffer.
            let large = "x".repeat(8 << 20);
            client.query_one("SELECT length($1::text)", &[&large]).await?;
        }
        11 => {
            let transaction = client.transaction().await?;
            let portal = transaction.bind("SELECT generate_series(1, 1000)", &[]).await?;
            while !transaction.query_portal(&portal, 300).await?.is_empty() {}
            transaction.rollback().await?;
        }
        12 => drop(client.simple_query("SELECT 1; BEGIN; SELECT txid_current(); SELECT pg_sleep(0.01)").await?),
        13 => {
            let transaction = client.build_transaction().read_only(true).start().await?;
            transaction.query_one("SELECT 1/0", &[]).await?;
        }
        14 => {
            let statement = client.prepare_cached("SELECT 1").await?;
            client.query_one(&statement, &[]).await?;
        }
        ACTIONS.. => unreachable!("there are {ACTIONS} actions"),
        _ => {
            client.check_connection().await?;
            client.batch_execute("SET application_name = 'isolation'; BEGIN; DECLARE c CURSOR FOR SELECT 1").await?;
            client.query("FETCH c", &[]).await?;
        }
    }
    Ok(())
}
