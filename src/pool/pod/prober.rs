//! The prober of one Pod: a task that probes the Pod periodically and sends each outcome to the directory, the task
//! that maintains the set of Pods.
//!
//! Probes use a dedicated connection, so that load on the pooled connections cannot make a healthy Pod look unhealthy.
//! The connection stays open between probes, so that a shutdown of the server is noticed immediately, even if the Pod
//! has no other traffic. If the connection has ended, the probe uses an idle pooled connection, and dials only if there
//! is none.

use std::{
    fmt,
    future::{Future, ready},
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
    borrowed::Borrowed,
    connect::{connection_observer, to_attempt},
    jitter::{jittered, random},
    message::{Message, Probed},
    shared::Shared,
    test_dials::TestDial,
};
use crate::{
    endpoint::Role,
    error::{BoxError, Phase},
    sync::lock,
    time::{Duration, Instant},
    trace::{PROBE, endpoint_span},
    wire::{
        Class, classify,
        connection_observer::ConnectionObserver,
        dial::Dialled,
        server_facts::{self, FactQuery, Session},
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
/// Interval between two bare Syncs to a standby while the application writes. If the former primary was not stopped,
/// the response is the first sign of the promotion. From 500 clients, a standby receives 770 Syncs per second.
const PROMOTION_INTERVAL: Duration = Duration::from_millis(650);
/// Jitter of a probe interval, as a fraction in either direction. Spreads the probes of many clients over time.
const JITTER: f64 = 0.2;

/// Maximum number of times for which the timeout of a probe is extended while this client is late.
const EXTENSIONS: u32 = 2;

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

    /// Tests whether the Pod accepts new connections. The connection is closed immediately.
    fn test_dial<'a>(&'a mut self, pod: &'a Arc<Pod>) -> Pin<Box<dyn Future<Output = TestDial> + Send + 'a>> {
        Box::pin(test_dial(pod))
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

    fn watch_for_promotion<'a>(&'a mut self, pod: &'a Arc<Pod>) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(watch_for_promotion(pod, self.0.as_ref()))
    }

    fn dials(&self, pod: &Pod) -> bool {
        // An idle connection may have ended too. Borrowing discards such connections.
        self.0.as_ref().is_none_or(|open| open.record.has_ended())
            && pod.borrow_idle().map(Borrowed::give_back).is_none()
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
        let unit = random();
        loop {
            // `urgent_began` is enabled before the interval is read, so that a start of urgent probing in between is
            // not missed.
            let mut urgent_began = pin!(shared.urgent_probing.began());
            urgent_began.as_mut().enable();
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
                    if prober.dials(&pod) {
                        sleep(reconnect_delay(shared.limits.clients, random())).await;
                    }
                    break;
                }
                // Recomputes the interval, because urgent probing has shortened it.
                () = urgent_began => {}
                () = sleep(jittered(PROMOTION_INTERVAL, JITTER, random())) => {
                    if shared.is_writing() && !prober.watch_for_promotion(&pod).await {
                        break;
                    }
                }
            }
        }
    }
}

/// Sends a bare Sync to a standby. PostgreSQL 14 and later report a promotion with the response (the parameter
/// `in_hot_standby`).
async fn watch_for_promotion(pod: &Pod, connection: Option<&Dialled>) -> bool {
    let limit = pod.shared().limits.probe_timeout;
    match connection.filter(|open| !open.record.has_ended()) {
        Some(open) if open.record.role() != Role::Standby => true,
        Some(open) => matches!(timeout(limit, open.client.check_connection()).await, Ok(Ok(()))),
        None => match pod.borrow_idle() {
            Some(idle) if idle.record.role() == Role::Standby => {
                let responded = matches!(timeout(limit, idle.wrapper.check_connection()).await, Ok(Ok(())));
                if responded {
                    idle.give_back();
                }
                responded
            }
            Some(idle) => {
                idle.give_back();
                true
            }
            None => true,
        },
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
    // Relaxed: a hint, ordered by `probe_wanted`.
    let afresh = pod.probe_afresh.swap(false, Ordering::Relaxed);
    if afresh {
        *connection = None;
    }
    let open = match connection.take_if(|open| !open.record.has_ended()) {
        Some(open) => open,
        // If the previous probe connection has ended, the probe uses another one: the end of a session alone proves
        // nothing about the Pod. An idle connection is used first, because other clients may have lost their probe
        // connections at the same moment and dial too.
        None => match if afresh { None } else { pod.borrow_idle() } {
            Some(idle) => {
                let outcome = probe_on(pod, Session { client: &idle.wrapper, record: &idle.record }, query).await;
                if matches!(outcome, Probed::Passed { .. }) {
                    idle.give_back();
                }
                return outcome;
            }
            None => match dial(pod).await {
                Ok(open) => open,
                Err(failed) => return failed,
            },
        },
    };
    let outcome = probe_on(pod, Session { client: &open.client, record: &open.record }, query).await;
    if matches!(outcome, Probed::Passed { .. }) {
        *connection = Some(open);
    }
    outcome
}

/// Probes the Pod on an open connection.
async fn probe_on(pod: &Pod, session: Session<'_>, query: &mut FactQuery) -> Probed {
    let record = session.record;
    let shared = pod.shared();
    let reads = || pod.connections.totals().reads + record.reads();
    let before = reads();
    let sent = Instant::now();
    match with_timeout(shared, shared.limits.probe_timeout, server_facts::probe(session, query)).await {
        Ok(Ok((took, facts))) => {
            let read_only = record.read_only();
            // `ALTER DATABASE … SET default_transaction_read_only` affects only new sessions. While a primary is
            // read-only, each probe opens a new session, which has the setting's current value.
            if read_only && record.role() == Role::Primary {
                pod.probe_afresh.store(true, Ordering::Relaxed); // read by the next probe, in the same task
            }
            Probed::Passed { facts, read_only, took, sent, received: Instant::now() }
        }
        Ok(Err(error)) => {
            let class = classify(&error).class;
            failed(pod, true, None, class, error.into())
        }
        // A timeout is conclusive only if no connection to the Pod, including the probe's own, received anything during
        // the probe, and if this client was not starved of CPU.
        Err(TimedOut { conclusive }) => {
            shared.counters.timed_out.increment(Phase::Probe);
            let unresponsive = conclusive && reads() == before;
            let cause = format!("no answer within {:?}", sent.elapsed()).into();
            failed(pod, unresponsive, unresponsive.then_some(sent), Class::NotReady, cause)
        }
    }
}

/// A probe has timed out. The timeout is conclusive unless this client itself was late.
#[derive(Debug)]
struct TimedOut {
    conclusive: bool,
}

/// Waits for the response to a probe. If this client was late while it waited, because it was stopped or starved of
/// CPU, waits again, for a longer time, up to [`EXTENSIONS`] times.
async fn with_timeout<T>(shared: &Shared, limit: Duration, response: impl Future<Output = T>) -> Result<T, TimedOut> {
    let mut response = pin!(response);
    let mut limit = limit;
    for extensions in 0.. {
        let since = Instant::now();
        if let Ok(done) = timeout(limit, response.as_mut()).await {
            return Ok(done);
        }
        let late = lock(&shared.local_health).was_late(since, since + limit, Instant::now());
        if !late || extensions == EXTENSIONS {
            return Err(TimedOut { conclusive: !late });
        }
        tracing::debug!("a probe's timeout is extended, because this process did not get enough CPU time");
        limit *= 2;
    }
    unreachable!("the loop ends after the last extension")
}

/// Opens a probe connection. If the maximum number of probe handshakes are in progress, waits until one has finished.
async fn dial(pod: &Arc<Pod>) -> Result<Dialled, Probed> {
    let shared = pod.shared();
    // The semaphore is never closed, so `acquire` cannot fail.
    let _handshake = shared.probe_handshakes.acquire().await;
    let mut began = Instant::now();
    let Some(dialer) = shared.dialer.get() else {
        return Err(failed(pod, false, None, Class::NotReady, "the pool was dropped".into()));
    };
    let mut dialled = dialer.dial(&pod.endpoint, connection_observer(pod, PROBE_GENERATION)).await;
    for _ in 0..EXTENSIONS {
        // A dial that has timed out while this client was late proves nothing and is repeated.
        if !matches!(&dialled, Err(error) if error.unresponsive && shared.was_late_since(began)) {
            break;
        }
        began = Instant::now();
        dialled = dialer.dial(&pod.endpoint, connection_observer(pod, PROBE_GENERATION)).await;
    }
    dialled.map_err(|error| {
        let unresponsive_since = error.unresponsive.then_some(began);
        let (class, attempt) = to_attempt(pod, error);
        Probed::Failed { conclusive: true, unresponsive_since, class, attempt }
    })
}

/// Opens and closes a connection to test whether the server accepts new ones. Obeys the same limit as [`dial`].
async fn test_dial(pod: &Arc<Pod>) -> TestDial {
    let shared = pod.shared();
    // The semaphore is never closed, so `acquire` cannot fail.
    let _handshake = shared.probe_handshakes.acquire().await;
    let Some(dialer) = shared.dialer.get() else { return TestDial::Accepted };
    // The connection reports no evidence, because its end proves nothing.
    match dialer.dial(&pod.endpoint, ConnectionObserver::new(|_| {})).await {
        Err(error) if error.is_refusal() => TestDial::Refused(to_attempt(pod, error).1),
        Err(error) if error.unresponsive => TestDial::TimedOut,
        Ok(_) | Err(_) => TestDial::Accepted,
    }
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
