//! Sets up the session of a pooled connection with the application's hook `after_connect`: after it was opened, and
//! after each reset.

use tokio::time::timeout;

use super::conn::Conn;
use crate::{error::BoxError, pool::hook::Kind};

/// Calls the hook, if there is one. If it fails or the future is dropped, the connection must be closed.
pub(crate) async fn set_up(conn: &mut Conn) -> Result<(), BoxError> {
    let (pod, kind) = (conn.pod().clone(), Kind::AfterConnect);
    let shared = pod.shared();
    if !shared.hooks.has(kind) {
        return Ok(());
    }
    conn.record.begin_setup();
    let limit = shared.hook_timeout();
    let called = shared.hooks.call(kind, conn.for_hook(), &shared.events);
    timeout(limit, called).await.unwrap_or_else(|_| {
        shared.counters.timed_out.increment(kind.phase());
        Err(kind.timed_out(limit))
    })?;
    conn.sent_at_reset = conn.record.sent();
    conn.record.end_setup();
    Ok(())
}
