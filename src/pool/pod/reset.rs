//! Cleans up session state that outlives a transaction, before a returned connection is used again.
//!
//! The cleanup runs in the background, in [`recycle`](super::recycle), so no caller waits for it.
//!
//! # Prepared statements
//!
//! The statement cache is cleared if a connection is returned with more than `statement_cache_size` statements. It is
//! also cleared if the server has reported a cached plan as stale (0A000), has dropped all statements (`DEALLOCATE
//! ALL`, `DISCARD ALL`), or has reported a statement as missing (26000). The driver also caches its own statements for
//! type lookups, and these cannot be cleared. If a statement is reported as missing a second time, the connection is
//! therefore closed.
//!
//! Computing the cache's size walks the whole cache. Since the last walk, the cache has grown by at most the number of
//! statements that were parsed since then. The walk is skipped while the last size plus this number is within the
//! limit.
//!
//! # Session reset
//!
//! [`Reset::Discard`] discards the same state as `DISCARD ALL` (PostgreSQL manual, "DISCARD"), except for the driver's
//! prepared statements and for cached plans. Statements prepared with SQL's `PREPARE` are looked up and deallocated one
//! by one.
//!
//! With [`Reset::Auto`], the same reset runs if the tap has recorded a change of session state since the last reset.
//! The tap does not record the requests of the reset itself. The connection is closed if the tap can no longer
//! recognize all changes, or if the reset leaves a reported parameter with another value than after the startup: behind
//! a connection pooler, `RESET ALL` restores the values of the pooler's login.
//!
//! After a reset, the application's hook `after_connect` sets up the session again. The connection is closed if the
//! hook fails.

use tokio::time::timeout;

use super::{conn::Conn, connect, setup, shared::count};
use crate::{
    config::{Limits, Reset},
    error::Phase,
    sync::lock,
    trace::pod_line,
    wire::{
        Class,
        record::{SessionChange, StaleStatements},
        reset,
    },
};

/// Returns true if a clean connection needs a check of its statement cache or a session reset.
pub(crate) fn is_due(conn: &Conn) -> bool {
    has_changed(conn) || was_used_with_discard(conn)
}

/// Returns true if the statements of a caller make a check of the statement cache or a session reset necessary.
#[inline]
pub(crate) fn has_changed(conn: &Conn) -> bool {
    conn.record.parsed() > conn.cache_fits_until || conn.record.needs_cleanup()
}

/// Returns true if a request was sent since the last reset, and the session is reset after each use.
pub(crate) fn was_used_with_discard(conn: &Conn) -> bool {
    conn.pod().shared().limits.reset == Reset::Discard && conn.record.sent() != conn.sent_at_reset
}

/// Clears the statement cache and resets the session, if needed. Returns true if the connection is clean afterwards.
///
/// If the future is cancelled, the connection must be closed.
pub(crate) async fn reset(conn: &mut Conn) -> bool {
    if !clear_cache(conn) {
        return false;
    }
    let record = &conn.record;
    let change = record.session_change();
    if change == Some(SessionChange::Unknown) {
        return false;
    }
    let resets = change.is_some() || was_used_with_discard(conn);
    let pod = conn.pod().clone();
    let work = async {
        let mut done = Ok(());
        if resets {
            pod_line!(debug, pod, ?change, "resetting the session of a returned connection");
            record.begin_reset();
            done = reset::discard(&conn.wrapper).await;
        }
        record.wait_until_idle().await;
        done
    };
    match timeout(Limits::RECYCLE_TIMEOUT, work).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            pod_line!(warn, pod, %error, "connection closed: its session could not be reset");
            return false;
        }
        Err(_) => {
            pod_line!(warn, pod, "connection closed: its cleanup did not end in time");
            return false;
        }
    }
    if resets && record.has_changed_parameter() {
        pod_line!(debug, pod, "connection closed: its parameters differ from those after the startup");
        return false;
    }
    if resets && let Err(cause) = setup::set_up(conn).await {
        let attempt = pod.endpoint.attempt(Phase::AfterConnect, cause);
        pod_line!(debug, pod, %attempt, "connection closed: its session could not be set up again");
        if lock(&pod.last_failure).report_refusal(Class::NotReady, &attempt) {
            connect::emit_refusal(&pod, Class::NotReady, &attempt);
        }
        return false;
    }
    if resets {
        count(&conn.pod().shared().counters.reset);
    }
    conn.sent_at_reset = conn.record.sent();
    conn.record.end_reset();
    conn.record.is_clean()
}

/// Clears the statement cache if needed. Returns false if the connection must be closed.
fn clear_cache(conn: &mut Conn) -> bool {
    let limit = conn.pod().shared().limits.statement_cache_size;
    let stale = conn.record.take_stale_statements();
    if stale == Some(StaleStatements::Missing) && std::mem::replace(&mut conn.cleared_for_missing, true) {
        return false;
    }
    let mut size = conn.wrapper.statement_cache.size();
    if size > limit || stale.is_some() {
        // Dropping a statement closes it on the server.
        conn.wrapper.statement_cache.clear();
        conn.wrapper.clear_type_cache();
        count(&conn.pod().shared().counters.cache_cleared);
        size = 0;
    }
    conn.cache_fits_until = conn.record.parsed() + (limit - size) as u64;
    true
}
