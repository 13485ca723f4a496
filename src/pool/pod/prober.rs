//! The prober of one Pod: a task that probes the Pod periodically and sends each outcome to the directory, the task
//! that maintains the set of Pods. The pools of a group have one prober for each Pod. It probes on behalf of the pool
//! that was built first, of those that still exist.
//!
//! Periodic probes refresh the facts about the server, such as its role. Traffic shows that the Pod is alive, so while
//! callers use all open connections, a periodic probe is postponed instead of opening another connection.

use std::{
    fmt,
    future::{Future, ready},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    select,
    task::AbortHandle,
    time::{sleep, sleep_until},
};
use tracing::Instrument as _;

use super::{
    Pod,
    connection_probe::ConnectionProbe,
    jitter::{jittered, random},
    message::{Message, Probed},
    server::Server,
    test_dials::TestDial,
    urgent_probing::Check,
};
use crate::{
    pool::supervise,
    time::{Duration, Instant},
    trace::{PROBE, endpoint_span},
    unwind::PanicSource,
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
/// the response is the first sign of the promotion. From 500 clients, a standby receives 750 Syncs per second.
const PROMOTION_INTERVAL: Duration = Duration::from_millis(670);
/// Jitter of a probe interval, as a fraction in either direction. Spreads the probes of many clients over time.
const JITTER: f64 = 0.2;

/// Time within which the loss of all connections of a Pod becomes known on each of them.
const LOSS_SHOWS_AFTER: Duration = Duration::from_millis(50);

/// Interval at which a postponed probe checks whether a connection is idle.
const POSTPONED_CHECK: Duration = Duration::from_millis(50);

/// A way to probe one Pod.
pub(crate) trait Probe: Send {
    /// Probes the Pod once. An implementation can keep state, such as a connection, for the next probe.
    fn probe<'a>(&'a mut self, pod: &'a Arc<Pod>) -> Pin<Box<dyn Future<Output = Probed> + Send + 'a>>;

    /// Sends a bare Sync if the Pod is a standby that reports a promotion with its response.
    fn watch_for_promotion<'a>(&'a mut self, _pod: &'a Arc<Pod>) -> Pin<Box<dyn Future<Output = Watched> + Send + 'a>> {
        Box::pin(ready(Watched::NotReported))
    }

    /// Returns true if the next probe of this Pod opens a connection.
    fn dials(&self, _pod: &Pod) -> bool {
        false
    }

    /// Returns true if the next probe opens a connection only because all open ones are in use.
    fn lacks_connection(&self, _pod: &Pod) -> bool {
        false
    }

    /// Closes the connection that only probes use, if an idle pooled connection can replace it.
    fn release(&mut self, _pod: &Pod) {}

    /// Tests whether the Pod accepts new connections. The connection is closed immediately.
    fn test_dial<'a>(&'a mut self, _pod: &'a Arc<Pod>) -> Pin<Box<dyn Future<Output = TestDial> + Send + 'a>> {
        Box::pin(ready(TestDial::Accepted))
    }
}

/// The result of a Sync to a standby.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Watched {
    /// The server has responded. If it was promoted, it has reported its new role.
    Responded,
    /// No Sync was sent, because there is no connection to a standby that reports its role. PostgreSQL 13 reports no
    /// roles.
    NotReported,
    /// The server has not responded, so a probe is needed.
    NoResponse,
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

/// The state of a Pod, as far as its prober needs it. The directory sets it. Relaxed: a stale value only delays or
/// repeats a probe.
#[derive(Debug, Default)]
pub(crate) struct Condition {
    healthy: AtomicBool,
    primary: AtomicBool,
    awaits_promotion: AtomicBool,
    query_requested: AtomicBool,
}

impl Condition {
    pub(crate) fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Relaxed);
    }

    /// Sets whether the Pod is a primary, which needs no check for a promotion.
    pub(crate) fn set_primary(&self, primary: bool) {
        self.primary.store(primary, Ordering::Relaxed);
    }

    /// Makes the next check during urgent probing a probe instead of a Sync.
    pub(crate) fn request_query(&self) {
        self.query_requested.store(true, Ordering::Relaxed);
    }

    /// Sets whether only a promotion can change the targets (requested roles) that the Pod serves. If so, a Sync
    /// detects every relevant change.
    pub(crate) fn set_awaits_promotion(&self, awaits_promotion: bool) {
        self.awaits_promotion.store(awaits_promotion, Ordering::Relaxed);
    }

    fn is_healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    fn is_primary(&self) -> bool {
        self.primary.load(Ordering::Relaxed)
    }

    fn awaits_promotion(&self) -> bool {
        self.awaits_promotion.load(Ordering::Relaxed)
    }

    fn take_query_request(&self) -> bool {
        self.query_requested.swap(false, Ordering::Relaxed)
    }
}

/// Spawns the task that probes a Pod on behalf of its pool.
pub(crate) fn spawn(pod: &Arc<Pod>, condition: &Arc<Condition>) -> AbortHandle {
    let (probed, condition) = (pod.clone(), condition.clone());
    supervise::spawn(pod.shared(), PanicSource::Prober, move || run(probed.clone(), condition.clone()))
}

/// Probes the Pod until the task is aborted.
pub(crate) async fn run(pod: Arc<Pod>, condition: Arc<Condition>) {
    let shared = pod.shared().clone();
    let mut prober = (shared.group.probe_factory.0)();
    loop {
        let span = endpoint_span!(PROBE, shared.name(), pod.endpoint);
        let outcome = prober.probe(&pod).instrument(span).await;
        let failed = matches!(outcome, Probed::Failed { .. });
        shared.send(Message::Probed { pod: pod.serial, outcome });
        until_next_probe(&pod, &condition, &mut *prober, failed).await;
    }
}

/// Waits until the next probe is due. In between, sends Syncs to a standby that may be promoted. `failed` is true if
/// the last probe has failed.
async fn until_next_probe(pod: &Arc<Pod>, condition: &Condition, prober: &mut dyn Probe, failed: bool) {
    let (server, group, clock) = (&*pod.server, &*pod.shared().group, &pod.shared().clock);
    let (fleet, limits) = (group.fleet, &group.limits);
    let (began, unit) = (Instant::now(), random());
    let reads = server.reads();
    let mut postponed = Duration::ZERO;
    // Time of the last probe or Sync, and the random number for the time of the next one.
    let (mut checked, mut check_unit) = (began, random());
    // Time of the last Sync, or of the decision that none was needed.
    let mut watched = began;
    loop {
        // `urgent_began` is enabled before the state of urgent probing is read, so that a start in between is not
        // missed.
        let mut urgent_began = pin!(group.urgent_probing.began());
        urgent_began.as_mut().enable();
        let dials = prober.dials(pod);
        let is_sound = !failed && condition.is_healthy();
        let syncs = is_sound && !dials && condition.awaits_promotion();
        let check = match dials {
            true if failed => Check::Redial,
            true => Check::Dial,
            false => Check::OnConnection,
        };
        let urgent = group.urgent_probing.next_check(checked, Instant::now(), check, check_unit);
        let interval = match is_sound {
            false if dials => fleet.until_next_dial(SUSPECT_INTERVAL, unit),
            false => jittered(SUSPECT_INTERVAL, JITTER, unit),
            true if server.is_slow() => jittered(limits.probe_interval.min(SLOW_INTERVAL), JITTER, unit),
            true => jittered(limits.probe_interval, JITTER, unit),
        };
        let for_lag = group.lag_demand.interval(clock.now()).filter(|_| is_sound);
        let interval =
            for_lag.map_or(interval, |most| interval.min(jittered(most.max(fleet.sync_interval()), JITTER, unit)));
        let periodic = began + interval + postponed;
        let probe_at = urgent.filter(|_| !syncs).map_or(periodic, |urgent| urgent.min(periodic));
        let sync_at = match urgent {
            Some(at) if syncs => at,
            _ => watched + jittered(PROMOTION_INTERVAL, JITTER, check_unit),
        };
        select! {
            () = sleep_until(probe_at) => {
                let responds = || server.reads() != reads;
                let is_urgent = urgent.is_some() || for_lag.is_some();
                let may_wait = is_sound && !is_urgent && postponed < limits.probe_interval;
                if may_wait && prober.lacks_connection(pod) && responds() {
                    postponed += POSTPONED_CHECK;
                    continue;
                }
                return;
            }
            () = server.probe_wanted.notified() => {
                // The reason may be that all connections have ended. Then the probe dials.
                server.discard_ended();
                if prober.dials(pod) {
                    if failed {
                        let delay = fleet.until_next_dial(Duration::ZERO, random());
                        sleep(delay.saturating_sub(began.elapsed())).await;
                    } else {
                        delay_first_dial(server, fleet.first_dial_delay(random())).await;
                    }
                }
                return;
            }
            // Recomputes the times, because urgent probing has made the next check earlier.
            () = urgent_began => {}
            () = sleep_until(sync_at) => {
                prober.release(pod);
                let is_urgent = urgent.is_some();
                // A query never opens a connection: the dials of a fleet are limited.
                if !prober.dials(pod) && condition.take_query_request() {
                    return;
                }
                if is_urgent && syncs || !is_urgent && group.is_writing(clock.now()) && !condition.is_primary() {
                    let result = select! {
                        result = prober.watch_for_promotion(pod) => result,
                        // For example, the Pod has not responded to callers for some time.
                        () = server.probe_wanted.notified() => return,
                    };
                    match result {
                        Watched::Responded => checked = Instant::now(),
                        Watched::NotReported if !is_urgent => {}
                        Watched::NotReported | Watched::NoResponse => return,
                    }
                }
                (watched, check_unit) = (Instant::now(), random());
            }
        }
    }
}

/// Waits for `delay` if all connections to the Pod have ended, because other clients may have lost theirs at the same
/// moment. Waits only for [`LOSS_SHOWS_AFTER`] if a connection is still open then: either the server does not respond,
/// or it has ended only some sessions.
async fn delay_first_dial(server: &Server, delay: Duration) {
    let first = delay.min(LOSS_SHOWS_AFTER);
    sleep(first).await;
    if !server.has_live() {
        sleep(delay - first).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_varies_an_interval_by_at_most_a_fifth() {
        let interval = Duration::from_secs(5);
        assert_eq!(jittered(interval, JITTER, 0.0), Duration::from_secs(4));
        assert_eq!(jittered(interval, JITTER, 1.0), Duration::from_secs(6));
    }
}
