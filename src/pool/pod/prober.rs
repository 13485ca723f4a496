//! The prober of one Pod: a task that probes the Pod periodically and sends each outcome to the directory, the task
//! that maintains the set of Pods.
//!
//! Periodic probes refresh the facts about the server, such as its role. Traffic shows that the Pod is alive, so while
//! callers use all open connections, a periodic probe is postponed instead of opening another connection.

use std::{
    fmt,
    future::{Future, ready},
    pin::{Pin, pin},
    sync::Arc,
};

use tokio::{select, time::sleep};
use tracing::Instrument as _;

use super::{
    Pod,
    connection_probe::ConnectionProbe,
    jitter::{jittered, random},
    message::{Message, Probed},
    test_dials::TestDial,
};
use crate::{
    time::{Duration, Instant},
    trace::{PROBE, endpoint_span},
};

/// The generation of probe connections: the maximum, so that evidence from a probe connection is never discarded as
/// stale.
pub(crate) const PROBE_GENERATION: u64 = u64::MAX;
/// Probe interval of a Pod that is not healthy or whose last probe failed.
pub(crate) const SUSPECT_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum probe interval of a Pod in a slow latency class. Such a Pod gets little traffic, so its recovery is noticed
/// mainly through probes.
pub(crate) const SLOW_INTERVAL: Duration = Duration::from_secs(2);
/// Interval between two bare Syncs to a standby while the application writes. If the former primary was not stopped,
/// the response is the first sign of the promotion. From 500 clients, a standby receives 770 Syncs per second.
const PROMOTION_INTERVAL: Duration = Duration::from_millis(650);
/// Jitter of a probe interval, as a fraction in either direction. Spreads the probes of many clients over time.
const JITTER: f64 = 0.2;

/// Interval at which a postponed probe checks whether a connection is idle.
const POSTPONED_CHECK: Duration = Duration::from_millis(50);

/// Maximum number of clients for which each client redials a lost server without delay.
const SMALL_FLEET: usize = 20;
/// Maximum average rate at which more than [`SMALL_FLEET`] clients together redial a server that they lost at the same
/// moment.
const DIALS_PER_SECOND: f64 = 200.0;

/// A way to probe one Pod.
pub(crate) trait Probe: Send {
    /// Probes the Pod once. An implementation can keep state, such as a connection, for the next probe.
    fn probe<'a>(&'a mut self, pod: &'a Arc<Pod>) -> Pin<Box<dyn Future<Output = Probed> + Send + 'a>>;

    /// Sends a bare Sync if the Pod is a standby, so that the server reports a promotion. Returns false if the server
    /// did not respond, so that a probe is needed.
    fn watch_for_promotion<'a>(&'a mut self, _pod: &'a Arc<Pod>) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(ready(true))
    }

    /// Returns true if the next probe of this Pod opens a connection.
    fn dials(&self, _pod: &Pod) -> bool {
        false
    }

    /// Closes the connection that only probes use, if an idle pooled connection can replace it.
    fn release(&mut self, _pod: &Pod) {}

    /// Tests whether the Pod accepts new connections. The connection is closed immediately.
    fn test_dial<'a>(&'a mut self, _pod: &'a Arc<Pod>) -> Pin<Box<dyn Future<Output = TestDial> + Send + 'a>> {
        Box::pin(ready(TestDial::Accepted))
    }
}

/// Creates a [`Probe`] for each Pod of a pool. The default factory creates probes over the network. Simulations use
/// another factory.
pub(crate) struct ProbeFactory(pub(super) Box<dyn Fn() -> Box<dyn Probe> + Send + Sync>);

impl ProbeFactory {
    pub(crate) fn new(each: impl Fn() -> Box<dyn Probe> + Send + Sync + 'static) -> Self {
        Self(Box::new(each))
    }
}

impl Default for ProbeFactory {
    fn default() -> Self {
        Self::new(|| Box::new(ConnectionProbe::default()))
    }
}

impl fmt::Debug for ProbeFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ProbeFactory")
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
        let reads = pod.connections.totals().reads;
        let mut postponed = Duration::ZERO;
        let unit = random();
        loop {
            // `urgent_began` is enabled before the interval is read, so that a start of urgent probing in between is
            // not missed.
            let mut urgent_began = pin!(shared.urgent_probing.began());
            urgent_began.as_mut().enable();
            let (interval, max_postponed) = match shared.urgent_probing.interval(Instant::now(), unit) {
                Some(interval) => (interval, Duration::ZERO),
                None if failed || !healthy() => (jittered(SUSPECT_INTERVAL, JITTER, unit), Duration::ZERO),
                None => {
                    let slow = pod.slot.load().class > 1;
                    let interval = shared.limits.probe_interval;
                    (jittered(if slow { interval.min(SLOW_INTERVAL) } else { interval }, JITTER, unit), interval)
                }
            };
            select! {
                () = sleep((began + interval + postponed).saturating_duration_since(Instant::now())) => {
                    let responds = || pod.connections.totals().reads != reads;
                    if postponed >= max_postponed || !prober.dials(&pod) || !responds() {
                        break;
                    }
                    postponed += POSTPONED_CHECK;
                }
                () = pod.probe_wanted.notified() => {
                    if prober.dials(&pod) {
                        sleep(reconnect_delay(shared.limits.clients, random())).await;
                    }
                    break;
                }
                // Recomputes the interval, because urgent probing has shortened it.
                () = urgent_began => {}
                () = sleep(jittered(PROMOTION_INTERVAL, JITTER, random())) => {
                    prober.release(&pod);
                    if shared.is_writing() && !prober.watch_for_promotion(&pod).await {
                        break;
                    }
                }
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
