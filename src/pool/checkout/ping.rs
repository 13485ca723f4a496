//! Overdue pings: a background task waits for the response, so that no caller waits for an unresponsive Pod.
//!
//! A connection must respond to a ping before a caller gets it if it was idle for longer than `ping_after`, or if its
//! server's last known role does not fit the caller's target (the requested role). If there is no response within
//! [`HEDGE_AFTER`], the caller tries another Pod, and a background task keeps waiting for the response. If the response
//! arrives, the connection is checked in and so goes to the oldest waiter that it can serve, unless the role still does
//! not fit. If the ping times out or the role does not fit, the connection is closed and the Pod is probed. Until then
//! the Pod has a [pending ping](Pod::has_pending_ping), and callers prefer other Pods.

use std::sync::{Arc, atomic::Ordering};

use deadpool::unmanaged::Object;
use tokio::time::timeout_at;

use super::fits;
use crate::{
    config::Target,
    error::Phase,
    pool::pod::{Pod, client::Client, conn::Conn},
    system::spawn_on,
    time::{Duration, Instant},
    trace::pod_line,
    wire::record::Record,
};

/// Time after which a ping is overdue and the caller tries another Pod.
///
/// The value is long enough for several round trips within a zone. Even if a second Pod is also slow and the timer's
/// resolution is 1 ms, the delay stays below 5 ms. If a round trip takes longer than this value, several Pods are
/// pinged and the first response wins.
pub(crate) const HEDGE_AFTER: Duration = Duration::from_millis(1);

/// Grace period that starts when a ping is overdue. No new connection to the Pod is opened in this period, because the
/// response may still arrive.
pub(crate) const OPEN_AFTER: Duration = Duration::from_millis(100);

/// An overdue ping and its connection. Dropping it counts one overdue ping less, even if a panic of a waiter's waker
/// ends the check-in. A connection that was not checked in before, for example because the runtime shuts down, is
/// closed.
struct PendingPing {
    pod: Arc<Pod>,
    object: Option<Object<Box<Conn>>>,
}

impl Drop for PendingPing {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            Pod::close_checked_out(object);
        }
        self.pod.end_pending_ping();
    }
}

/// Requests a probe of a Pod after a response to a ping did not correct a role that does not fit. The probe uses a new
/// session, because an older one may have the old role or the old `default_transaction_read_only`.
pub(crate) fn probe_misfit(pod: &Pod, record: &Record) {
    pod.report_session(record);
    pod.server.probe_afresh.store(true, Ordering::Relaxed); // read by the prober
    pod.server.probe_wanted.notify_one();
}

/// Starts a task on the pool's runtime that waits until `limit` for the response to the ping sent on this connection
/// for a caller with this target.
pub(crate) fn finish_in_background(client: Client, target: Target, limit: Instant) {
    let object = client.into_object();
    let pod = object.pod().clone();
    pod.pending_pings.begin(Instant::now());
    let runtime = pod.shared().runtime.clone();
    drop(spawn_on(&runtime, run(PendingPing { pod, object: Some(object) }, target, limit)));
}

async fn run(mut pending: PendingPing, target: Target, limit: Instant) {
    let PendingPing { pod, object: Some(object) } = &pending else { return };
    let finished = timeout_at(limit, object.record.wait_until_idle()).await.is_ok();
    if !finished {
        pod.shared().counters.timed_out.increment(Phase::Ping);
        pod_line!(debug, pod, "closed an idle connection that did not respond to a ping");
    }
    if !finished || object.record.has_ended() {
        pod.server.probe_wanted.notify_one();
        return;
    }
    if !fits(&pod.shared().limits, &object.record, target) {
        // Servers before PostgreSQL 14 report their role only when a connection is opened. If the connection were
        // checked in, the caller would get it again and again.
        return probe_misfit(pod, &object.record);
    }
    let now = pod.shared().clock.now();
    let keep = object.record.is_clean() && object.is_reusable(now);
    if let Some(mut object) = pending.object.take_if(|_| keep) {
        object.idle_since = now;
        Pod::check_in(object);
    }
}
