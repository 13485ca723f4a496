//! The prober of one Pod: a task that probes the Pod periodically and sends each outcome to the directory.
//!
//! Probes use a dedicated connection, so that load on the pooled connections cannot make a healthy Pod look unhealthy.
//! The connection stays open between probes: a server that shuts down reports it there immediately, even if the Pod has
//! no other traffic.

use std::{
    fmt,
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
};

use tokio::{
    select,
    time::{sleep, timeout},
};
use tracing::Instrument as _;

use super::{
    Pod,
    connect::{connection_observer, to_attempt},
    message::{Message, Probed},
};
use crate::{
    error::{BoxError, Phase},
    time::{Duration, Instant},
    trace::{PROBE, endpoint_span},
    wire::{Class, classify, dial::Dialled, server_facts},
};

/// The generation of probe connections. Their evidence is never discarded as outdated.
pub(crate) const PROBE_GENERATION: u64 = u64::MAX;
/// Interval between probes of a Pod that is not healthy.
pub(crate) const SUSPECT_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum interval between probes of a Pod in a slow latency class. Such a Pod has little traffic that would show its
/// recovery.
pub(crate) const SLOW_INTERVAL: Duration = Duration::from_secs(2);
/// Jitter of a healthy Pod's interval, as a fraction in either direction: it spreads the probes of many clients.
const JITTER: f64 = 0.2;

/// A way to probe one Pod.
pub(crate) trait Probe: Send {
    /// Probes the Pod once. An implementation can keep state, such as a connection, for the next probe.
    fn probe<'a>(&'a mut self, pod: &'a Arc<Pod>) -> Pin<Box<dyn Future<Output = Probed> + Send + 'a>>;
}

/// Creates a [`Probe`] for each Pod of a pool. The default probes over the network; a simulation has its own.
pub(crate) struct ProbeFactory(Box<dyn Fn() -> Box<dyn Probe> + Send + Sync>);

impl ProbeFactory {
    pub(crate) fn new(each: impl Fn() -> Box<dyn Probe> + Send + Sync + 'static) -> Self {
        Self(Box::new(each))
    }
}

impl Default for ProbeFactory {
    fn default() -> Self {
        Self::new(|| Box::new(ConnectionProbe(None)))
    }
}

impl fmt::Debug for ProbeFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProbeFactory")
    }
}

/// A probe over a dedicated connection.
struct ConnectionProbe(Option<Dialled>);

impl Probe for ConnectionProbe {
    fn probe<'a>(&'a mut self, pod: &'a Arc<Pod>) -> Pin<Box<dyn Future<Output = Probed> + Send + 'a>> {
        Box::pin(probe(pod, &mut self.0))
    }
}

/// Probes the Pod until the task is aborted. `healthy` returns true if the Pod's current state is healthy.
pub(crate) async fn run(pod: Arc<Pod>, healthy: impl Fn() -> bool) {
    let shared = pod.shared().clone();
    let mut prober = (shared.probe_factory.0)();
    loop {
        let outcome = prober.probe(&pod).instrument(endpoint_span!(PROBE, pod.endpoint)).await;
        let failed = matches!(outcome, Probed::Failed { .. });
        shared.send(Message::Probed { pod: pod.serial, outcome });
        let began = Instant::now();
        loop {
            // Enabled before the interval is read, so that a start of urgent probing in between is not missed.
            let mut urgent_began = pin!(shared.urgent_probing.began());
            urgent_began.as_mut().enable();
            let interval = match shared.urgent_probing.interval(Instant::now()) {
                Some(interval) => interval,
                None if failed || !healthy() => SUSPECT_INTERVAL,
                None => {
                    let slow = pod.slot.load().class > 1;
                    let interval = shared.limits.probe_interval;
                    jittered(if slow { interval.min(SLOW_INTERVAL) } else { interval }, rand::random_range(-1.0..1.0))
                }
            };
            select! {
                () = sleep((began + interval).saturating_duration_since(Instant::now())) => break,
                () = pod.probe_wanted.notified() => break,
                // Recompute the interval, which has become shorter.
                () = urgent_began => {}
            }
        }
    }
}

async fn probe(pod: &Arc<Pod>, connection: &mut Option<Dialled>) -> Probed {
    let shared = pod.shared();
    let limit = shared.limits.probe_timeout;
    let began = Instant::now();
    // An ended connection shows nothing about the Pod's current state, so a new one is opened.
    let open = match connection.take_if(|open| !open.record.has_ended()) {
        Some(open) => open,
        None => match shared.dialer.dial(&pod.endpoint, connection_observer(pod, PROBE_GENERATION)).await {
            Ok(open) => open,
            Err(error) => {
                let unresponsive_since = error.unresponsive.then_some(began);
                let (class, attempt) = to_attempt(pod, error);
                return Probed::Failed { conclusive: true, unresponsive_since, class, attempt };
            }
        },
    };
    let reads = pod.connections.totals().reads;
    let sent = Instant::now();
    match timeout(limit, server_facts::probe(&open)).await {
        Ok(Ok((took, facts))) => {
            let read_only = open.record.read_only();
            *connection = Some(open);
            Probed::Passed { facts, read_only, took, sent, received: Instant::now() }
        }
        Ok(Err(error)) => {
            let class = classify(&error).class;
            failed(pod, true, None, class, error.into())
        }
        // A timeout proves that the Pod does not serve only if the pooled connections received nothing either.
        Err(_) => {
            shared.counters.timed_out.increment(Phase::Probe);
            let unresponsive = pod.connections.totals().reads == reads;
            let cause = format!("no answer within {limit:?}").into();
            failed(pod, unresponsive, unresponsive.then_some(sent), Class::NotReady, cause)
        }
    }
}

fn failed(pod: &Pod, conclusive: bool, unresponsive_since: Option<Instant>, class: Class, cause: BoxError) -> Probed {
    let attempt = pod.endpoint.attempt(Phase::Probe, cause);
    Probed::Failed { conclusive, unresponsive_since, class, attempt }
}

/// Varies an interval by [`JITTER`] times `unit`, which is a random number from -1 to 1.
fn jittered(interval: Duration, unit: f64) -> Duration {
    interval.mul_f64(1.0 + JITTER * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_varies_an_interval_by_at_most_a_fifth() {
        let interval = Duration::from_secs(5);
        assert_eq!(jittered(interval, -1.0), Duration::from_secs(4));
        assert_eq!(jittered(interval, 1.0), Duration::from_secs(6));
    }
}
