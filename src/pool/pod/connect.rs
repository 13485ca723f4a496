//! Opens a connection in a background task.
//!
//! Callers never dial. A cancelled checkout therefore wastes no handshake, and a new connection goes to the oldest
//! waiter that it can serve. The [opener](crate::pool::opener) decides when to open a connection, and to which Pod. The
//! background task holds a permit, dials, calls the application's hook `after_connect`, and adds the new connection to
//! the Pod's idle connections or hands it to a waiter. A failed dial starts the Pod's backoff; see
//! [`last_failure`](super::last_failure).

use std::sync::Arc;

use tracing::Instrument as _;

use super::{
    Pod,
    conn::{Conn, Permit},
    jitter::random,
    message::Message,
    setup,
};
use crate::{
    error::{Attempt, Phase},
    event::Event,
    sync::lock,
    system::spawn_on,
    time::{Duration, Instant},
    trace::{CONNECT, endpoint_span, pod_line},
    wire::{Class, connection_observer::ConnectionObserver, dial::DialError},
};

/// Each connection's lifetime is `max_lifetime` minus a random part of up to `max_lifetime / JITTER`, so that
/// connections that were opened together do not expire together.
const JITTER: u32 = 10;

/// A connection that is being opened. The Pod counts it until it is dropped. The drop wakes the opener.
struct Opening {
    pod: Arc<Pod>,
    start: Instant,
}

impl Opening {
    fn begin(pod: &Arc<Pod>) -> Self {
        let start = Instant::now();
        pod.begin_opening(start);
        Self { pod: pod.clone(), start }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.pod.end_opening(self.start);
        self.pod.shared().waiters.wake_opener();
    }
}

/// Starts a task that opens a connection. Returns false if the Pod has no permit left or is being drained. Only the
/// opener calls this function.
pub(crate) fn open(pod: &Arc<Pod>) -> bool {
    if pod.slot.is_closed() {
        return false;
    }
    let Some(permit) = Permit::take(pod) else { return false };
    let opening = Opening::begin(pod);
    drop(spawn_on(&pod.shared().runtime, run(permit, opening)));
    true
}

async fn run(permit: Permit, opening: Opening) {
    let pod = Arc::clone(&permit);
    let shared = pod.shared().clone();
    let generation = pod.generation();
    let began = Instant::now();
    let Some(dialer) = shared.dialer.get() else { return };
    let endpoint = pod.current_endpoint();
    let observer = connection_observer(&pod, generation).with_operations(shared.metrics.operations(&pod));
    let dial = dialer.dial(&endpoint, observer);
    let span = endpoint_span!(CONNECT, shared.name(), pod.endpoint);
    shared.waiting_spans.link(&span);
    match dial.instrument(span).await {
        Ok(dialled) => {
            dialled.record.set_in_service();
            pod.record_login(dialled.security, began);
            pod.report_session(&dialled.record);
            let lifetime = shortened(shared.limits.max_lifetime, random());
            let lifetime = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
            let expires_at = shared.clock.now().saturating_add(lifetime);
            let mut conn = Conn::new(dialled, dialer.clone(), permit, generation, expires_at);
            // Before the setup, so that a connection on which it hangs can be observed and closed.
            pod.connections.add(conn.handle());
            if let Err(cause) = setup::set_up(&mut conn).await {
                failed(&pod, Class::NotReady, pod.endpoint.attempt(Phase::AfterConnect, cause), began);
                return drop((conn, opening)); // in this order: `conn` has the permit
            }
            conn.count_opened();
            shared.metrics.connected(began.elapsed());
            if conn.is_current() {
                lock(&pod.last_failure).clear();
                pod.park(conn);
            } else if conn.record.has_ended() {
                let attempt = pod.endpoint.attempt(Phase::Startup, "the session ended immediately after startup");
                lock(&pod.last_failure).dial_failed(
                    Class::NotReady,
                    attempt,
                    began,
                    Instant::now(),
                    shared.group.fleet,
                    random(),
                );
            }
            // Last: dropping `opening` wakes the opener, which must see the connection or the failure.
            drop(opening);
        }
        Err(error) => {
            // Every dial ends by its deadline, so a dial that took this long has timed out.
            if began.elapsed() >= shared.limits.connect_timeout {
                shared.counters.timed_out.increment(error.phase);
            }
            let inconclusive = error.timed_out && shared.was_late_since(began);
            let (class, attempt) = to_attempt(&pod, error);
            if inconclusive {
                // The dial has timed out because this process was stopped or did not get enough CPU time. The opener
                // dials again without a backoff.
                shared.counters.failed_in.increment(attempt.phase());
                pod_line!(debug, pod, error = %attempt, "could not open a connection");
            } else {
                failed(&pod, class, attempt, began);
            }
            drop((permit, opening)); // in this order: dropping `opening` wakes the opener, which needs the permit
        }
    }
}

/// Records and reports that a connection could not be opened, and starts the backoff of further dials.
pub(crate) fn failed(pod: &Pod, class: Class, attempt: Attempt, began: Instant) {
    let (shared, phase) = (pod.shared(), attempt.phase());
    shared.counters.failed_in.increment(phase);
    pod_line!(debug, pod, error = %attempt, "could not open a connection");
    let now = Instant::now();
    if lock(&pod.last_failure).dial_failed(class, attempt.clone(), began, now, shared.group.fleet, random()) {
        emit_refusal(pod, class, &attempt);
    }
    // A failed hook is no evidence against the Pod.
    if phase != Phase::AfterConnect {
        shared.send(Message::DialFailed { pod: pod.serial, pool: shared.id, class });
    }
}

/// Emits the event for a Pod that refuses all new connections, because of TLS or because of the login, or whose new
/// connections the hook `after_connect` refuses.
pub(crate) fn emit_refusal(pod: &Pod, class: Class, attempt: &Attempt) {
    let (endpoint, cause) = (pod.endpoint.clone(), attempt.reason().into());
    pod.shared().events.emit(match class {
        _ if attempt.phase() == Phase::AfterConnect => Event::SetupFailed { endpoint, cause },
        Class::Tls => Event::TlsFailed { endpoint, cause },
        _ => Event::LoginFailed { endpoint, cause },
    });
}

/// Splits a dial error into its class and an [`Attempt`] that names the Pod.
pub(crate) fn to_attempt(pod: &Pod, error: DialError) -> (Class, Attempt) {
    let (class, phase) = (error.class, error.phase);
    (class, pod.endpoint.attempt(phase, error.into_cause()))
}

/// Returns an observer that forwards evidence of the Pod's role or health from a connection to the directory, the task
/// that maintains the set of Pods.
pub(crate) fn connection_observer(pod: &Pod, generation: u64) -> ConnectionObserver {
    let (group, pool, pod) = (pod.shared().group.clone(), pod.shared().id, pod.serial);
    ConnectionObserver::new(move |evidence| group.send(Message::Observed { pod, pool, generation, evidence }))
}

/// Shortens a lifetime by `unit` times a tenth of it. `unit` is a random number from 0 to 1.
pub(crate) fn shortened(lifetime: Duration, unit: f64) -> Duration {
    lifetime - (lifetime / JITTER).mul_f64(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_shortens_a_lifetime_by_at_most_a_tenth() {
        let lifetime = Duration::from_secs(1800);
        assert_eq!(shortened(lifetime, 0.0), lifetime);
        assert_eq!(shortened(lifetime, 1.0), Duration::from_secs(1620));
    }
}
