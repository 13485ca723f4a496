//! Forgetting what a session keeps beyond its transactions, but for the statements that the driver prepared.

use tokio_postgres::{Client, Error, SimpleQueryMessage};

/// `SET SESSION AUTHORIZATION` goes first, for it takes the role along. The last statement names what SQL's own
/// `PREPARE` made.
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

/// Discards it all, in one round trip, or two where SQL's own `PREPARE` was used.
pub(crate) async fn discard(client: &Client) -> Result<(), Error> {
    let answer = client.simple_query(DISCARD).await?;
    let prepared: String = answer
        .iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => row.try_get("prepared").ok().flatten(),
            _ => None,
        })
        .map(|name| format!("DEALLOCATE {name};"))
        .collect();
    if prepared.is_empty() { Ok(()) } else { client.batch_execute(&prepared).await }
}
