//! Pings without a response: a background task waits for them, so that a caller does not wait for an unresponsive Pod.
//!
//! A connection that was idle for longer than `ping_after` must respond to a ping before a caller gets it. If there is
//! no response within [`HEDGE_AFTER`], the caller tries another Pod and a background task keeps waiting. On a response
//! the connection is checked in, and thus goes to the first caller in the queue. On a timeout the connection is closed
//! and the Pod is probed. Until then the Pod has a [pending ping](Pod::has_pending_ping), and callers prefer other
//! Pods.

use deadpool::unmanaged::Object;
use tokio::time::timeout_at;

use crate::{
    error::Phase,
    pool::pod::{Pod, client::Client, conn::Conn},
    time::{Duration, Instant},
};

/// Time after which a caller that waits for the response to a ping tries another Pod.
///
/// Covers several round trips within a zone. With the timer's resolution of 1 ms and a second Pod that is also slow,
/// the delay stays below 5 ms. Where a round trip takes longer, several Pods are pinged and the first response wins.
pub(crate) const HEDGE_AFTER: Duration = Duration::from_millis(1);

/// Time after which a caller without an alternative Pod has a new connection opened in addition to the pinged one.
pub(crate) const OPEN_AFTER: Duration = Duration::from_millis(100);

/// A connection with a pending ping. Closed on drop unless it was taken, for example when the runtime shuts down.
struct PendingPing(Option<Object<Box<Conn>>>);

impl Drop for PendingPing {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            object.pod().end_pending_ping();
            Pod::close_checked_out(object);
        }
    }
}

/// Waits until `limit` for the response to a ping that was sent on this connection, in a task on the pool's runtime.
pub(crate) fn finish_in_background(client: Client, limit: Instant) {
    let object = client.into_object();
    object.pod().begin_pending_ping();
    let runtime = object.pod().shared().runtime.clone();
    drop(runtime.spawn(run(PendingPing(Some(object)), limit)));
}

async fn run(mut pending: PendingPing, limit: Instant) {
    let Some(object) = pending.0.as_ref() else { return };
    let finished = timeout_at(limit, object.record.wait_until_idle()).await.is_ok();
    if !finished {
        object.pod().shared().counters.timed_out.increment(Phase::Ping);
        tracing::debug!(endpoint = %object.pod().endpoint, "closed an idle connection that did not respond to a ping");
    }
    if !finished || object.record.has_ended() {
        object.pod().probe_wanted.notify_one();
        return;
    }
    let keep = object.record.is_clean() && object.is_current() && !object.is_expired() && !object.pod().is_over_size();
    if let Some(object) = pending.0.take_if(|_| keep) {
        let pod = object.pod().clone();
        Pod::check_in(object);
        pod.end_pending_ping();
    }
}
