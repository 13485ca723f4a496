//! The prober of one Pod: a task that probes the Pod periodically and sends each outcome to the directory, the task
//! that maintains the set of Pods.
//!
//! Probes use a dedicated connection, so that load on the pooled connections cannot make a healthy Pod look unhealthy.
//! The connection stays open between probes, so that a shutdown of the server is noticed immediately, even if the Pod
//! has no other traffic.

use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
};

use tokio::{
    select,
    time::{sleep, timeout},
};
use tracing::Instrument as _;

use super::{
    Pod,
    connect::{connection_observer, to_attempt},
    jitter::{jittered, random},
    message::{Message, Probed},
};
use crate::{
    endpoint::Role,
    error::{BoxError, Phase},
    time::{Duration, Instant},
    trace::{PROBE, endpoint_span},
    wire::{
        Class, classify,
        dial::Dialled,
        server_facts::{self, FactQuery},
    },
};

/// The generation of probe connections: the maximum, so that evidence from a probe connection is never discarded as
/// stale.
pub(crate) const PROBE_GENERATION: u64 = u64::MAX;
/// Probe interval of a Pod that is not healthy or whose last probe failed.
pub(crate) const SUSPECT_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum probe interval of a Pod in a slow latency class. Such a Pod gets little traffic, so its recovery is noticed
/// mainly through probes.
pub(crate) const SLOW_INTERVAL: Duration = Duration::from_secs(2);
/// Jitter of a probe interval, as a fraction in either direction. Spreads the probes of many clients over time.
const JITTER: f64 = 0.2;

/// Maximum number of clients for which each client redials a lost server without delay.
const SMALL_FLEET: usize = 20;
/// Maximum average rate at which more than [`SMALL_FLEET`] clients together redial a server that they lost at the same
/// moment.
const DIALS_PER_SECOND: f64 = 200.0;

/// A way to probe one Pod.
pub(crate) trait Probe: Send {
    /// Probes the Pod once. An implementation can keep state, such as a connection, for the next probe.
    fn probe<'a>(&'a mut self, pod: &'a Arc<Pod>) -> Pin<Box<dyn Future<Output = Probed> + Send + 'a>>;

    /// Returns true if the next probe opens a connection.
    fn dials(&self) -> bool {
        false
    }
}

/// Creates a [`Probe`] for each Pod of a pool. The default factory creates probes over the network. Simulations use
/// another factory.
pub(crate) struct ProbeFactory(Box<dyn Fn() -> Box<dyn Probe> + Send + Sync>);

impl ProbeFactory {
    pub(crate) fn new(each: impl Fn() -> Box<dyn Probe> + Send + Sync + 'static) -> Self {
        Self(Box::new(each))
    }
}

impl Default for ProbeFactory {
    fn default() -> Self {
        Self::new(|| Box::new(ConnectionProbe(None, FactQuery::default())))
    }
}

impl fmt::Debug for ProbeFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProbeFactory")
    }
}

/// Probes a Pod over a dedicated connection, which stays open between probes.
struct ConnectionProbe(Option<Dialled>, FactQuery);

impl Probe for ConnectionProbe {
    fn probe<'a>(&'a mut self, pod: &'a Arc<Pod>) -> Pin<Box<dyn Future<Output = Probed> + Send + 'a>> {
        Box::pin(probe(pod, &mut self.0, &mut self.1))
    }

    fn dials(&self) -> bool {
        self.0.as_ref().is_none_or(|open| open.record.has_ended())
    }
}

/// Probes the Pod until the task is aborted. `healthy` returns true while the Pod is considered healthy.
pub(crate) async fn run(pod: Arc<Pod>, healthy: impl Fn() -> bool) {
    let shared = pod.shared().clone();
    let mut prober = (shared.probe_factory.0)();
    loop {
        let outcome = prober.probe(&pod).instrument(endpoint_span!(PROBE, pod.endpoint)).await;
        let failed = matches!(outcome, Probed::Failed { .. });
        shared.send(Message::Probed { pod: pod.serial, outcome });
        let began = Instant::now();
        loop {
            // `urgent_began` is enabled before the interval is read, so that a start of urgent probing in between is
            // not missed.
            let mut urgent_began = pin!(shared.urgent_probing.began());
            urgent_began.as_mut().enable();
            let unit = random();
            let interval = match shared.urgent_probing.interval(Instant::now(), unit) {
                Some(interval) => interval,
                None if failed || !healthy() => jittered(SUSPECT_INTERVAL, JITTER, unit),
                None => {
                    let slow = pod.slot.load().class > 1;
                    let interval = shared.limits.probe_interval;
                    jittered(if slow { interval.min(SLOW_INTERVAL) } else { interval }, JITTER, unit)
                }
            };
            select! {
                () = sleep((began + interval).saturating_duration_since(Instant::now())) => break,
                () = pod.probe_wanted.notified() => {
                    if prober.dials() {
                        sleep(reconnect_delay(shared.limits.clients, random())).await;
                    }
                    break;
                }
                // Recomputes the interval, because urgent probing has shortened it.
                () = urgent_began => {}
            }
        }
    }
}

/// Returns the delay before a probe redials a lost server. Other clients may have lost the server at the same moment,
/// so the delay limits the redials of all clients together to [`DIALS_PER_SECOND`] on average. The delay is zero for up
/// to [`SMALL_FLEET`] clients, or if the number of clients is unknown. `unit` is a random number from 0 to 1.
fn reconnect_delay(clients: Option<usize>, unit: f64) -> Duration {
    let clients = clients.filter(|clients| *clients > SMALL_FLEET).unwrap_or(0);
    Duration::from_secs_f64(clients as f64 / DIALS_PER_SECOND * unit)
}

async fn probe(pod: &Arc<Pod>, connection: &mut Option<Dialled>, query: &mut FactQuery) -> Probed {
    let shared = pod.shared();
    let limit = shared.limits.probe_timeout;
    // Relaxed: a hint, ordered by `probe_wanted`.
    if pod.probe_afresh.swap(false, Ordering::Relaxed) {
        *connection = None;
    }
    // If the previous probe connection has ended, a new one is opened: the end alone proves nothing about the Pod's
    // current state.
    let open = match connection.take_if(|open| !open.record.has_ended()) {
        Some(open) => open,
        None => match dial(pod).await {
            Ok(open) => open,
            Err(failed) => return failed,
        },
    };
    let reads = pod.connections.totals().reads;
    let sent = Instant::now();
    match timeout(limit, server_facts::probe(&open, query)).await {
        Ok(Ok((took, facts))) => {
            let read_only = open.record.read_only();
            // `ALTER DATABASE … SET default_transaction_read_only` affects only new sessions. While a primary is
            // read-only, each probe opens a new session, which has the setting's current value.
            *connection = Some(open).filter(|open| !(read_only && open.record.role() == Role::Primary));
            Probed::Passed { facts, read_only, took, sent, received: Instant::now() }
        }
        Ok(Err(error)) => {
            let class = classify(&error).class;
            failed(pod, true, None, class, error.into())
        }
        // A probe timeout is conclusive only if the pooled connections to the Pod also received nothing during the
        // probe.
        Err(_) => {
            shared.counters.timed_out.increment(Phase::Probe);
            let unresponsive = pod.connections.totals().reads == reads;
            let cause = format!("no answer within {limit:?}").into();
            failed(pod, unresponsive, unresponsive.then_some(sent), Class::NotReady, cause)
        }
    }
}

/// Opens a probe connection. If the maximum number of probe handshakes are in progress, waits until one has finished.
async fn dial(pod: &Arc<Pod>) -> Result<Dialled, Probed> {
    let shared = pod.shared();
    // The semaphore is never closed, so `acquire` cannot fail.
    let _handshake = shared.probe_handshakes.acquire().await;
    let began = Instant::now();
    let Some(dialer) = shared.dialer.get() else {
        return Err(failed(pod, false, None, Class::NotReady, "the pool was dropped".into()));
    };
    dialer.dial(&pod.endpoint, connection_observer(pod, PROBE_GENERATION)).await.map_err(|error| {
        let unresponsive_since = error.unresponsive.then_some(began);
        let (class, attempt) = to_attempt(pod, error);
        Probed::Failed { conclusive: true, unresponsive_since, class, attempt }
    })
}

fn failed(pod: &Pod, conclusive: bool, unresponsive_since: Option<Instant>, class: Class, cause: BoxError) -> Probed {
    let attempt = pod.endpoint.attempt(Phase::Probe, cause);
    Probed::Failed { conclusive, unresponsive_since, class, attempt }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redials_are_delayed_only_with_many_clients() {
        assert_eq!(reconnect_delay(None, 1.0), Duration::ZERO);
        assert_eq!(reconnect_delay(Some(SMALL_FLEET), 1.0), Duration::ZERO);
        assert_eq!(reconnect_delay(Some(500), 0.0), Duration::ZERO);
        assert_eq!(reconnect_delay(Some(500), 1.0), Duration::from_millis(2500));
    }

    #[test]
    fn jitter_varies_an_interval_by_at_most_a_fifth() {
        let interval = Duration::from_secs(5);
        assert_eq!(jittered(interval, JITTER, 0.0), Duration::from_secs(4));
        assert_eq!(jittered(interval, JITTER, 1.0), Duration::from_secs(6));
    }
}
