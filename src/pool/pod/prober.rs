//! Probes one Pod, on a connection of its own: what the application does with the pool's connections cannot make a
//! healthy Pod look sick. The connection stays open between probes, because it is also how an idle Pod tells at once
//! that it shuts down.

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
    connect::{connection_observer, failed},
    message::{Message, Probed},
};
use crate::{
    error::{BoxError, Phase},
    time::{Duration, Instant},
    trace::{PROBE, endpoint_span},
    wire::{Class, classify, dial::Dialled, facts},
};

/// The generation of the probes' connections: what they see always counts.
pub(crate) const PROBES: u64 = u64::MAX;
/// Between probes of a Pod that is not healthy.
pub(crate) const SUSPECT_INTERVAL: Duration = Duration::from_secs(1);
/// Between probes of a Pod that counts as slower than the others: it gets little else that would tell when it has
/// healed.
pub(crate) const SLOW_INTERVAL: Duration = Duration::from_secs(2);
/// The interval of a healthy Pod varies by this much either way, so that the probes of many clients spread out.
const JITTER: f64 = 0.2;

/// ProbeFactory one Pod how it is.
pub(crate) trait Probe: Send {
    /// ProbeFactory once. Keeps what it needs for the next time.
    fn ask<'a>(&'a mut self, pod: &'a Arc<Pod>) -> Pin<Box<dyn Future<Output = Probed> + Send + 'a>>;
}

/// How the Pods of a pool are asked: over the network, but in a simulation.
pub(crate) struct ProbeFactory(Box<dyn Fn() -> Box<dyn Probe> + Send + Sync>);

impl ProbeFactory {
    pub(crate) fn new(each: impl Fn() -> Box<dyn Probe> + Send + Sync + 'static) -> Self {
        Self(Box::new(each))
    }
}

impl Default for ProbeFactory {
    fn default() -> Self {
        Self::new(|| Box::new(OnConnection(None)))
    }
}

impl fmt::Debug for ProbeFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProbeFactory")
    }
}

/// ProbeFactory on a connection of its own.
struct OnConnection(Option<Dialled>);

impl Probe for OnConnection {
    fn ask<'a>(&'a mut self, pod: &'a Arc<Pod>) -> Pin<Box<dyn Future<Output = Probed> + Send + 'a>> {
        Box::pin(probe(pod, &mut self.0))
    }
}

/// Probes until cut short. `healthy` says what the directory thinks of the Pod at the moment.
pub(crate) async fn run(pod: Arc<Pod>, healthy: impl Fn() -> bool) {
    let shared = pod.shared().clone();
    let mut prober = (shared.probe_factory.0)();
    loop {
        let outcome = prober.ask(&pod).instrument(endpoint_span!(PROBE, pod.endpoint)).await;
        let failed = matches!(outcome, Probed::Failed { .. });
        shared.tell(Message::Probed { pod: pod.serial, outcome });
        let began = Instant::now();
        loop {
            // Before the pace is read, or a beginning in between would be missed.
            let mut begun = pin!(shared.urgent_probing.begun());
            begun.as_mut().enable();
            let interval = match shared.urgent_probing.pace(Instant::now()) {
                Some(pace) => pace,
                None if failed || !healthy() => SUSPECT_INTERVAL,
                None => {
                    let slow = pod.slot.load().class > 1;
                    let interval = shared.limits.probe_interval;
                    jittered(if slow { interval.min(SLOW_INTERVAL) } else { interval }, rand::random_range(-1.0..1.0))
                }
            };
            select! {
                () = sleep((began + interval).saturating_duration_since(Instant::now())) => break,
                () = pod.suspect.notified() => break,
                // Reckon again: the interval has become shorter.
                () = begun => {}
            }
        }
    }
}

async fn probe(pod: &Arc<Pod>, connection: &mut Option<Dialled>) -> Probed {
    let shared = pod.shared();
    let limit = shared.limits.probe_timeout;
    let asked = Instant::now();
    // A connection that has ended says nothing about the Pod now; a new one does.
    let open = match connection.take_if(|open| !open.record.has_ended()) {
        Some(open) => open,
        None => match shared.dialer.dial(&pod.endpoint, connection_observer(pod, PROBES)).await {
            Ok(open) => open,
            Err(error) => {
                let silent = error.silent.then_some(asked);
                let (class, attempt) = failed(pod, error);
                return Probed::Failed { proven: true, silent, class, attempt };
            }
        },
    };
    let reads = pod.totals().reads;
    let asked = Instant::now();
    match timeout(limit, facts::probe(&open)).await {
        Ok(Ok((took, facts))) => {
            let read_only = open.record.read_only();
            *connection = Some(open);
            Probed::Passed { facts, read_only, took, asked, at: Instant::now() }
        }
        Ok(Err(error)) => {
            let class = classify(&error).class;
            told(pod, true, None, class, error.into())
        }
        // Unresponsive on this connection proves something only if nothing else was reads from the Pod meanwhile.
        Err(_) => {
            shared.counters.timed_out.count(Phase::Probe);
            let silent = pod.totals().reads == reads;
            told(pod, silent, silent.then_some(asked), Class::NotReady, format!("no answer within {limit:?}").into())
        }
    }
}

fn told(pod: &Pod, proven: bool, silent: Option<Instant>, class: Class, cause: BoxError) -> Probed {
    let attempt = pod.endpoint.attempt(Phase::Probe, cause);
    Probed::Failed { proven, silent, class, attempt }
}

fn jittered(interval: Duration, unit: f64) -> Duration {
    interval.mul_f64(1.0 + JITTER * unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_varies_by_a_fifth_either_way() {
        let interval = Duration::from_secs(5);
        assert_eq!(jittered(interval, -1.0), Duration::from_secs(4));
        assert_eq!(jittered(interval, 1.0), Duration::from_secs(6));
    }
}
