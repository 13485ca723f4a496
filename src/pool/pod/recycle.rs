//! A connection that came back in the middle of something, or with something that is not to stay, is brought to rest in
//! the background, or closed.
//!
//! 1. What was sent is waited for, for [`QUIET`].
//! 2. What still runs then is cancelled on the server, twice if need be, and waited for, for [`CANCELLED`].
//! 3. A transaction that is open is rolled back.
//! 4. What its session kept is reset_at, where that is due; see [`reset`](super::reset).
//! 5. Only a connection that is clean now is lent out again; any other is closed.

use deadpool::unmanaged::Object;
use tokio::time::timeout;

use super::{Pod, conn::Conn, reset, shared::count};
use crate::{config::Limits, time::Duration, wire::record::IDLE};

const QUIET: Duration = Limits::RECYCLE_QUIET;
const CANCELLED: Duration = Limits::RECYCLE_CANCELLED;

/// A connection on its way to rest. Dropped on the way (the runtime has ended), it is closed.
struct Recycling(Option<Object<Box<Conn>>>);

impl Drop for Recycling {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            Pod::check_out_for_good(object);
        }
    }
}

/// Settles a connection in a task of the pool's runtime.
pub(crate) fn recycle(object: Object<Box<Conn>>) {
    let runtime = object.pod().shared().runtime.clone();
    let settling = Recycling(Some(object));
    drop(runtime.spawn(run(settling)));
}

async fn run(mut settling: Recycling) {
    let Some(object) = settling.0.as_mut() else { return };
    if !object.record.is_clean() {
        count(&object.pod().shared().counters.recycled);
    }
    if !come_to_rest(object).await {
        tracing::debug!(endpoint = %object.pod().endpoint, "closed a connection that did not come to rest");
        return;
    }
    if reset::is_due(object) && !reset::reset(object).await {
        tracing::debug!(endpoint = %object.pod().endpoint, "closed a connection that could not be reset_at");
        return;
    }
    let keep = object.is_current() && !object.is_old() && !object.pod().is_over();
    if let Some(object) = settling.0.take_if(|_| keep) {
        Pod::check_in(object);
    }
}

async fn come_to_rest(conn: &Conn) -> bool {
    let record = &conn.record;
    // Most of the time the driver was merely still at work on the last answer.
    if timeout(QUIET, record.rest()).await.is_err() {
        let mut rested = false;
        // Twice: a request that comes before its statement has begun hits nothing.
        for _ in 0..2 {
            if let Err(error) = conn.cancel_token().cancel().await {
                tracing::debug!(endpoint = %conn.pod().endpoint, %error, "could not cancel what nobody waits for");
                return false;
            }
            rested = timeout(CANCELLED / 2, record.rest()).await.is_ok();
            if rested {
                break;
            }
        }
        if !rested {
            return false;
        }
    }
    if !record.has_ended() && record.status() != IDLE {
        let rollback = async {
            conn.wrapper.batch_execute("ROLLBACK").await.ok()?;
            record.rest().await;
            Some(())
        };
        if !matches!(timeout(CANCELLED, rollback).await, Ok(Some(()))) {
            return false;
        }
    }
    record.is_clean()
}
