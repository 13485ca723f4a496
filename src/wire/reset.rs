//! Resets the state of a session, except for the statements that the driver has prepared.

use tokio_postgres::{Client, Error, SimpleQueryMessage};

/// The statements that `DISCARD ALL` runs, except for `DEALLOCATE ALL`. `SET SESSION AUTHORIZATION` comes before
/// `RESET ROLE`, because it also sets the role. The last statement lists the statements that were prepared with SQL's
/// `PREPARE`.
const DISCARD: &str = "\
CLOSE ALL; \
SET SESSION AUTHORIZATION DEFAULT; \
RESET ROLE; \
RESET ALL; \
UNLISTEN *; \
SELECT pg_catalog.pg_advisory_unlock_all(); \
DISCARD PLANS; \
DISCARD TEMP; \
DISCARD SEQUENCES; \
SELECT pg_catalog.quote_ident(name) AS prepared FROM pg_catalog.pg_prepared_statements WHERE from_sql";

/// Resets the session. Takes one round trip, or two if statements were prepared with SQL's `PREPARE`.
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
