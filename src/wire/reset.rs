//! Resets the state of a session, but keeps the prepared statements of the driver.

use tokio_postgres::{Client, Error, SimpleQueryMessage};

/// The statements that `DISCARD ALL` runs, except for `DEALLOCATE ALL` and `DISCARD PLANS`, which isolates nothing and
/// makes every cached statement be planned again. Among them, `SET SESSION AUTHORIZATION` must come before `RESET
/// ROLE`, because the former also sets the role. The final `SELECT` lists the statements that were prepared with SQL's
/// `PREPARE`.
const DISCARD: &str = "\
CLOSE ALL; \
SET SESSION AUTHORIZATION DEFAULT; \
RESET ROLE; \
RESET ALL; \
UNLISTEN *; \
SELECT pg_catalog.pg_advisory_unlock_all(); \
DISCARD TEMP; \
DISCARD SEQUENCES; \
SELECT pg_catalog.quote_ident(name) AS prepared FROM pg_catalog.pg_prepared_statements WHERE from_sql";

/// Resets the session. Takes one round trip, or two if statements that were prepared with SQL's `PREPARE` must be
/// deallocated.
pub(crate) async fn discard(client: &Client) -> Result<(), Error> {
    let messages = client.simple_query(DISCARD).await?;
    let prepared: String = messages
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.try_get("prepared").ok().flatten(),
            _ => None,
        })
        .map(|name| format!("DEALLOCATE {name};"))
        .collect();
    if prepared.is_empty() { Ok(()) } else { client.batch_execute(&prepared).await }
}
