//! Opens connections in background tasks of the pool.
//!
//! A caller never dials. A cancelled call therefore wastes no handshake, and a new connection goes to the caller that
//! is first in the queue when the connection is ready. Each task holds a permit, waits for its turn among the
//! concurrent handshakes, dials, and parks the connection. A failed dial starts the Pod's back-off; see
//! [`last_failure`](super::last_failure).

use std::sync::Arc;

use tracing::Instrument as _;

use super::{
    Pod,
    conn::{Conn, Permit},
    message::Message,
    shared::count,
};
use crate::{
    error::{Attempt, Phase},
    event::Event,
    sync::lock,
    time::{Duration, Instant},
    trace::{CONNECT, endpoint_span},
    wire::{Class, connection_observer::ConnectionObserver, dial::DialError},
};

/// Divisor of `max_lifetime` for its jitter: each lifetime is shortened at random by up to a tenth, so that connections
/// opened together do not expire together.
const JITTER: u32 = 10;

/// Counts a connection as being opened, until dropped.
struct Opening(Arc<Pod>);

impl Opening {
    fn begin(pod: &Arc<Pod>) -> Self {
        pod.begin_opening();
        Self(pod.clone())
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.end_opening();
    }
}

/// Starts to open a connection. Returns false if the Pod is at its maximum, is being drained, or is in back-off.
pub(crate) fn open(pod: &Arc<Pod>) -> bool {
    if pod.slot.is_closed() || lock(&pod.last_failure).not_before(Instant::now()).is_some() {
        return false;
    }
    let Some(permit) = Permit::take(pod) else { return false };
    let opening = Opening::begin(pod);
    drop(pod.shared().runtime.spawn(run(permit, opening)));
    true
}

/// Starts to open a connection to a Pod that was picked and had none idle, within the limit of concurrent handshakes.
///
/// The number of connections to each Pod, a new Pod included, thus follows its share of the traffic, while idle
/// connections to other Pods serve the callers.
#[cold]
pub(crate) fn grow(pod: &Arc<Pod>) {
    if pod.opening() < pod.shared().limits.handshakes_per_pod && pod.has_permit() {
        open(pod);
    }
}

/// Opens connections until `min_idle` of them are idle or being opened.
pub(crate) fn warm(pod: &Arc<Pod>) {
    let wanted = pod.shared().limits.min_idle.saturating_sub(pod.idle() + pod.opening());
    for _ in 0..wanted {
        if !open(pod) {
            break;
        }
    }
}

async fn run(permit: Permit, opening: Opening) {
    let pod = Arc::clone(&permit);
    let shared = pod.shared().clone();
    // The Pod's own semaphore first: a task that waits for a busy Pod holds no permit of the pool-wide semaphore.
    // `acquire` fails only on a closed semaphore, and these are never closed.
    let Ok(_pod_turn) = pod.handshakes.acquire().await else { return };
    let Ok(_pool_turn) = shared.handshakes.acquire().await else { return };
    // Another dial may have failed while this task was waiting.
    let in_backoff = lock(&pod.last_failure).not_before(Instant::now()).is_some();
    if pod.slot.is_closed() || in_backoff {
        return;
    }
    let generation = pod.generation();
    let began = Instant::now();
    let dial = shared.dialer.dial(&pod.endpoint, connection_observer(&pod, generation));
    match dial.instrument(endpoint_span!(CONNECT, pod.endpoint)).await {
        Ok(dialled) => {
            count(&shared.counters.opened);
            dialled.record.set_in_service();
            shared.metrics.connected(began.elapsed());
            let lifetime = jittered(shared.limits.max_lifetime, rand::random_range(0.0..1.0));
            let lifetime = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
            let expires_at = shared.clock.now().saturating_add(lifetime);
            let conn = Conn::new(dialled, permit, generation, expires_at);
            pod.connections.add(conn.handle());
            drop(opening);
            if conn.is_current() {
                lock(&pod.last_failure).clear();
                pod.park(conn);
            } else if conn.record.has_ended() {
                let attempt = pod.endpoint.attempt(Phase::Startup, "the session ended immediately after start-up");
                lock(&pod.last_failure).dial_failed(Class::NotReady, attempt, Instant::now());
            }
        }
        Err(error) => {
            shared.counters.failed_in.increment(error.phase);
            // A dial that reaches its deadline ends there, and any other failure ends before it.
            if began.elapsed() >= shared.limits.connect_timeout {
                shared.counters.timed_out.increment(error.phase);
            }
            let (class, attempt) = to_attempt(&pod, error);
            tracing::debug!(endpoint = %pod.endpoint, error = %attempt, "could not open a connection");
            if lock(&pod.last_failure).dial_failed(class, attempt.clone(), Instant::now()) {
                emit_refusal(&pod, class, &attempt);
            }
            shared.send(Message::DialFailed { pod: pod.serial, class });
            drop((opening, permit)); // releasing the permit makes waiters look again
        }
    }
}

/// Emits the event for a Pod that refuses all new connections.
pub(crate) fn emit_refusal(pod: &Pod, class: Class, attempt: &Attempt) {
    let (endpoint, cause) = (pod.endpoint.clone(), attempt.reason().into());
    pod.shared().events.emit(match class {
        Class::Tls => Event::TlsFailed { endpoint, cause },
        _ => Event::LoginFailed { endpoint, cause },
    });
}

/// Converts a dial error to its class and an [`Attempt`] that names the Pod.
pub(crate) fn to_attempt(pod: &Pod, error: DialError) -> (Class, Attempt) {
    let (class, phase) = (error.class, error.phase);
    (class, pod.endpoint.attempt(phase, error.into_cause()))
}

/// Returns an observer that forwards a connection's evidence to the directory.
pub(crate) fn connection_observer(pod: &Pod, generation: u64) -> ConnectionObserver {
    let (shared, serial) = (pod.shared().clone(), pod.serial);
    ConnectionObserver::new(move |evidence| shared.send(Message::Observed { pod: serial, generation, evidence }))
}

/// Shortens a lifetime by a tenth times `unit`, which is a random number from 0 to 1.
fn jittered(lifetime: Duration, unit: f64) -> Duration {
    lifetime - (lifetime / JITTER).mul_f64(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_shortens_a_lifetime_by_at_most_a_tenth() {
        let lifetime = Duration::from_secs(1800);
        assert_eq!(jittered(lifetime, 0.0), lifetime);
        assert_eq!(jittered(lifetime, 1.0), Duration::from_secs(1620));
    }
}
