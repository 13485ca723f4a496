//! Recycles a returned connection that is not clean or needs a reset.
//!
//! A background task performs these steps. If one fails, the connection is closed:
//!
//! 1. Wait for the responses to all outstanding requests, up to [`QUIET`].
//! 2. Cancel a statement that is still in flight, at most twice, and wait up to [`CANCELLED`] for it to end.
//! 3. Roll back an open transaction.
//! 4. Call the application's hook `after_checkin`, if a caller has used the connection. The hook can reject it.
//! 5. Reset the session if needed; see [`reset`].
//! 6. Check the connection in if it is clean, and close it if not.

use deadpool::unmanaged::Object;
use tokio::{sync::oneshot, time::timeout};

use super::{Pod, conn::Conn, reset, shared::count};
use crate::{
    config::Limits, error::Applied, pool::hook::Kind, system::spawn_on, time::Duration, trace::pod_line,
    wire::record::IDLE,
};

const QUIET: Duration = Limits::RECYCLE_GRACE;
const CANCELLED: Duration = Limits::RECYCLE_TIMEOUT;

/// A connection that is being recycled. If the recycling task is dropped, for example because the runtime shuts down,
/// the connection is closed.
struct Recycling {
    object: Option<Object<Box<Conn>>>,
    /// True if a caller has used the connection.
    was_used: bool,
}

impl Drop for Recycling {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            Pod::close_checked_out(object);
        }
    }
}

/// Recycles a connection in a task on the pool's runtime. `was_used` is true if a caller has used the connection.
pub(crate) fn recycle(object: Object<Box<Conn>>, was_used: bool) {
    let runtime = object.pod().shared().runtime.clone();
    let recycling = Recycling { object: Some(object), was_used };
    drop(spawn_on(&runtime, run(recycling)));
}

/// Recycles a connection whose work was interrupted: cancels its statement first. Sends the outcome of the work when
/// all responses have arrived.
pub(crate) fn interrupt(mut object: Object<Box<Conn>>) -> oneshot::Receiver<Applied> {
    object.end_use();
    object.was_used = false;
    let (outcome, receiver) = oneshot::channel();
    let runtime = object.pod().shared().runtime.clone();
    let recycling = Recycling { object: Some(object), was_used: true };
    drop(spawn_on(&runtime, async move {
        if let Some(object) = &recycling.object {
            let settled = end_statement(object, Duration::ZERO).await;
            // The caller may have stopped waiting.
            let _ = outcome.send(object.record.judge_interrupted(object.work_since(), settled));
        }
        run(recycling).await;
    }));
    receiver
}

async fn run(mut recycling: Recycling) {
    let Some(object) = recycling.object.as_mut() else { return };
    if !object.record.is_clean() {
        count(&object.pod().shared().counters.recycled);
    }
    if !clean_up(object).await {
        let pod = object.pod();
        pod_line!(debug, pod, "closed a connection that could not be cleaned up");
        return;
    }
    object.is_committing = false;
    if object.is_rejected || !object.is_current() || recycling.was_used && !is_approved(object).await {
        return;
    }
    if reset::is_due(object) && !reset::reset(object).await {
        let pod = object.pod();
        pod_line!(debug, pod, "closed a connection that could not be reset");
        return;
    }
    let now = object.pod().shared().clock.now();
    let keep = object.is_reusable(now);
    if let Some(mut object) = recycling.object.take_if(|_| keep) {
        object.idle_since = now;
        Pod::check_in(object);
    }
}

/// Calls the application's hook `after_checkin`, if there is one. Returns true if the connection may be used again.
async fn is_approved(conn: &mut Conn) -> bool {
    let (pod, kind) = (conn.pod().clone(), Kind::AfterCheckin);
    let shared = pod.shared();
    if !shared.hooks.has(kind) || !conn.is_current() || pod.slot.is_closed() {
        return true; // a connection that is not current is closed below
    }
    let limit = shared.hook_timeout();
    let called = shared.hooks.call(kind, conn.for_hook(), &shared.events);
    let done = timeout(limit, called).await.unwrap_or_else(|_| {
        shared.counters.timed_out.increment(kind.phase());
        Err(kind.timed_out(limit))
    });
    let Err(error) = done else { return true };
    pod_line!(debug, pod, %error, "connection closed: `after_checkin` has rejected it");
    conn.is_rejected = true;
    false
}

/// Ends an in-flight statement and an open transaction. Returns true if the connection is clean afterwards.
async fn clean_up(conn: &Conn) -> bool {
    let record = &conn.record;
    // In most cases, the driver only has to read the rest of the last response.
    if !end_statement(conn, QUIET).await {
        return false;
    }
    if !record.has_ended() && record.status() != IDLE {
        let rollback = async {
            record.set_rolling_back(true);
            conn.wrapper.batch_execute("ROLLBACK").await.ok()?;
            record.wait_until_idle().await;
            record.set_rolling_back(false);
            Some(())
        };
        if !matches!(timeout(CANCELLED, rollback).await, Ok(Some(()))) {
            return false;
        }
    }
    record.is_clean()
}

/// Waits for the responses to all outstanding requests for the time `quiet`, and then cancels the statement in flight.
/// Returns true if all responses have arrived or the connection has ended.
async fn end_statement(conn: &Conn, quiet: Duration) -> bool {
    let record = &conn.record;
    if timeout(quiet, record.wait_until_idle()).await.is_ok() {
        return true;
    }
    if conn.is_committing {
        return false;
    }
    // Sends the cancel request twice: it has no effect if the server handles it before the statement has started.
    for _ in 0..2 {
        if let Err(error) = conn.cancel_token().cancel().await {
            pod_line!(debug, conn.pod(), %error, "could not cancel the statement of a returned connection");
            return false;
        }
        if timeout(CANCELLED / 2, record.wait_until_idle()).await.is_ok() {
            return true;
        }
    }
    false
}
