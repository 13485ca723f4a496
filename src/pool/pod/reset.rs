//! What a session keeps beyond its transactions, put right before the connection is lent out again. Nobody waits for
//! it: a connection that wants it goes through [`recycle`](super::recycle).
//!
//! # Prepared statements
//!
//! The cache of a connection is bounded: one that comes back with more than `statement_cache_size` statements is
//! cache_cleared of them all. So is one whose server has found a statement outdated (0A000), has forgotten them all
//! (`DEALLOCATE ALL`, `DISCARD ALL`), or does not know one (26000). The driver keeps statements of its own, to look up
//! types, which nobody can make it forget; so a connection on which one is missing a second time is closed.
//!
//! To count a cache, one walks through it. It can only have grown by what was parsed since it was counted last, so as
//! long as that leaves it under its bound nobody looks.
//!
//! # Reset
//!
//! With [`Reset::Discard`] everything that `DISCARD ALL` discards (PostgreSQL manual, "DISCARD"), but for the driver's
//! prepared statements. Those that SQL's own `PREPARE` made are looked up, and deallocated one by one.

use tokio::time::timeout;

use super::{conn::Conn, shared::count};
use crate::{
    config::{Limits, Reset},
    wire::{record::Doubt, reset},
};

/// Whether there is anything to put right on a connection that is clean.
#[inline]
pub(crate) fn is_due(conn: &Conn) -> bool {
    conn.record.parsed() > conn.uncounted || conn.record.doubts_statements() || wants_reset(conn)
}

#[inline]
fn wants_reset(conn: &Conn) -> bool {
    conn.pod().shared().limits.reset == Reset::Discard && conn.record.sent() != conn.reset_at
}

/// Puts it right. Says whether the connection can be lent out again. Cancelled, it can not.
pub(crate) async fn reset(conn: &mut Conn) -> bool {
    if !clear_cache(conn) {
        return false;
    }
    let record = &conn.record;
    let work = async {
        let mut done = Ok(());
        if wants_reset(conn) {
            done = reset::discard(&conn.wrapper).await;
            count(&conn.pod().shared().counters.reset);
        }
        record.rest().await;
        done
    };
    match timeout(Limits::RECYCLE_CANCELLED, work).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(endpoint = %conn.pod().endpoint, %error, "could not reset a session");
            return false;
        }
        Err(_) => return false,
    }
    conn.reset_at = conn.record.sent();
    conn.record.is_clean()
}

/// Empties the statement cache, where that is due. Says whether the connection is good for more.
fn clear_cache(conn: &mut Conn) -> bool {
    let bound = conn.pod().shared().limits.statement_cache_size;
    let doubt = conn.record.take_doubt();
    if doubt == Some(Doubt::Missing) && std::mem::replace(&mut conn.cache_cleared, true) {
        return false;
    }
    let mut size = conn.wrapper.statement_cache.size();
    if size > bound || doubt.is_some() {
        // Each statement is closed on the server when it is dropped.
        conn.wrapper.statement_cache.clear();
        conn.wrapper.clear_type_cache();
        count(&conn.pod().shared().counters.cache_cleared);
        size = 0;
    }
    conn.uncounted = conn.record.parsed() + (bound - size) as u64;
    true
}
