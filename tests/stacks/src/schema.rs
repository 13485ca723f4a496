//! Migrations by refinery, on a connection that belongs to the application.

use std::error::Error;

use podpool::{OwnedConnection, Pool, Target};
use refinery::Report;

refinery::embed_migrations!("migrations");

/// The number of an advisory lock that only the migrations take.
const LOCK: i64 = 4_117_690;

/// Applies all migrations that the database lacks. If the primary fails, the call returns an error and can be repeated,
/// because a migration that was not committed leaves no trace.
pub async fn migrate(pool: &Pool) -> Result<Report, Box<dyn Error + Send + Sync>> {
    let OwnedConnection { mut client, .. } = pool.connect_owned(Target::Primary).await?;
    // Only one process migrates at a time. The lock is released at the end of the session.
    client.query_one("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
    Ok(migrations::runner().run_async(&mut client).await?)
}
