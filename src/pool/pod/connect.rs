//! New connections are opened in tasks of the pool, never in a caller: a caller who gives up wastes no handshake, and a
//! connection that is ready goes to whoever is first in the queue by then.

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

/// The most that a connection's life is shortened by, at random, so that those opened together do not end together:
/// a tenth.
const JITTER: u32 = 10;

/// Counts a connection that is being opened, until dropped.
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

/// Opens one more connection, unless the Pod is full, is being drained, or has failed just now. Says whether it does.
pub(crate) fn open(pod: &Arc<Pod>) -> bool {
    if pod.slot.is_closed() || lock(&pod.last_failure).not_before(Instant::now()).is_some() {
        return false;
    }
    let Some(permit) = Permit::take(pod) else { return false };
    let opening = Opening::begin(pod);
    drop(pod.shared().runtime.spawn(run(permit, opening)));
    true
}

/// Lets a Pod that was picked, and had nothing idle, grow by one, within the limit of handshakes at once. So each Pod
/// comes to hold what its share of the traffic needs, a new one too, while the others' idle connections serve.
#[cold]
pub(crate) fn grow(pod: &Arc<Pod>) {
    if pod.opening() < pod.shared().limits.handshakes_per_pod && pod.has_permit() {
        open(pod);
    }
}

/// Keeps `min_idle` connections ready.
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
    // Never closed, so the only error there is cannot come. The Pod's own first: who waits for a Pod that is busy takes
    // nothing from the others.
    let Ok(_permit) = pod.handshakes.acquire().await else { return };
    let Ok(_of_all) = shared.handshakes.acquire().await else { return };
    // While it stood in handle, another may have been refused.
    let not_now = lock(&pod.last_failure).not_before(Instant::now()).is_some();
    if pod.slot.is_closed() || not_now {
        return;
    }
    let generation = pod.generation();
    let began = Instant::now();
    let dial = shared.dialer.dial(&pod.endpoint, connection_observer(&pod, generation));
    match dial.instrument(endpoint_span!(CONNECT, pod.endpoint)).await {
        Ok(dialled) => {
            count(&shared.counters.opened);
            dialled.record.trust();
            shared.metrics.connected(began.elapsed());
            let life = jittered(shared.limits.max_lifetime, rand::random_range(0.0..1.0));
            let dies = shared.clock.now().saturating_add(u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
            let conn = Conn::new(dialled, permit, generation, dies);
            pod.track(conn.handle());
            drop(opening);
            if conn.is_current() {
                lock(&pod.last_failure).clear();
                pod.park(conn);
            } else if conn.record.has_ended() {
                let cause = "the session ended as soon as it had begun";
                let attempt = pod.endpoint.attempt(Phase::Startup, cause);
                lock(&pod.last_failure).dial_failed(Class::NotReady, attempt, Instant::now());
            }
        }
        Err(error) => {
            count(&shared.counters.open_failed);
            shared.counters.failed_in.count(error.phase);
            // It ends at its deadline and not a moment later.
            if began.elapsed() >= shared.limits.connect_timeout {
                shared.counters.timed_out.count(error.phase);
            }
            let (class, attempt) = failed(&pod, error);
            tracing::debug!(endpoint = %pod.endpoint, error = %attempt, "could not open a connection");
            if lock(&pod.last_failure).dial_failed(class, attempt.clone(), Instant::now()) {
                shut_out(&pod, class, &attempt);
            }
            shared.tell(Message::DialFailed { pod: pod.serial, class });
            drop((opening, permit)); // whoever waits looks again when the permit is free
        }
    }
}

/// Says that a Pod lets nobody in.
pub(crate) fn shut_out(pod: &Pod, class: Class, attempt: &Attempt) {
    let (endpoint, cause) = (pod.endpoint.clone(), attempt.reason().into());
    pod.shared().events.emit(match class {
        Class::Tls => Event::TlsFailed { endpoint, cause },
        _ => Event::LoginFailed { endpoint, cause },
    });
}

/// A dial's error, with the Pod's name on it.
pub(crate) fn failed(pod: &Pod, error: DialError) -> (Class, Attempt) {
    let (class, phase) = (error.class, error.phase);
    (class, pod.endpoint.attempt(phase, error.into_cause()))
}

/// Sends what a connection of this Pod sees to the directory.
pub(crate) fn connection_observer(pod: &Pod, generation: u64) -> ConnectionObserver {
    let (shared, serial) = (pod.shared().clone(), pod.serial);
    ConnectionObserver::new(move |evidence| shared.tell(Message::Seen { pod: serial, generation, evidence }))
}

fn jittered(life: Duration, unit: f64) -> Duration {
    life - (life / JITTER).mul_f64(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_shortened_by_a_tenth_at_most() {
        let life = Duration::from_secs(1800);
        assert_eq!(jittered(life, 0.0), life);
        assert_eq!(jittered(life, 1.0), Duration::from_secs(1620));
    }
}
