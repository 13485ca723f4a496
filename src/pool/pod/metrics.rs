//! Gives what the pool counts to the recorder of the `metrics` facade: once a second, when it has closed, and what is
//! left when the last of its connections has gone.

use std::{collections::HashMap, sync::Arc};

use metrics::{Label, SharedString, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::{
    Pod,
    shared::{Shared, read},
    view::{PodHealth, View},
};
use crate::{
    config::{Config, Host, Target},
    error::Error,
    health::State,
    metrics as names,
    sync::{Mutex, lock},
    time::{Duration, Instant},
};

/// Records the times that nothing counts, and knows how much of each count was given.
#[derive(Debug)]
pub(crate) struct PoolMetrics {
    service: SharedString,
    /// Of each counter, by its name and label, what was given so far.
    given: Mutex<HashMap<(&'static str, &'static str), u64>>,
}

impl PoolMetrics {
    pub(crate) fn new(config: &Config) -> Self {
        let service = match config.host() {
            Host::Address(address) => address.to_string(),
            Host::Service(name) => name.as_str().to_owned(),
        };
        for metric in names::ALL {
            match metric.kind {
                names::MetricKind::Counter => describe_counter!(metric.name, metric.help),
                names::MetricKind::Gauge => describe_gauge!(metric.name, metric.help),
                names::MetricKind::Histogram => describe_histogram!(metric.name, metric.help),
            }
        }
        Self { service: SharedString::from_shared(service.into()), given: Mutex::default() }
    }

    fn service(&self) -> Label {
        Label::new("service", self.service.clone())
    }

    /// A checkout that had to wait since then is over.
    pub(crate) fn waited<T>(&self, since: Instant, result: &Result<T, Error>) {
        let outcome = result.as_ref().map_or_else(|error| error.kind().as_str(), |_| "ok");
        let labels = vec![self.service(), Label::new("outcome", outcome)];
        histogram!(names::WAIT_SECONDS, labels).record(since.elapsed());
    }

    /// A connection has been opened.
    pub(crate) fn connected(&self, took: Duration) {
        histogram!(names::CONNECT_SECONDS, vec![self.service()]).record(took);
    }

    /// Gives what the counters have grown by.
    pub(crate) fn counters(&self, shared: &Shared) {
        let counters = &shared.counters;
        for (name, counter) in [
            (names::WAITS, &counters.waits),
            (names::RETRIES, &counters.retries),
            (names::CONNECTIONS_OPENED, &counters.opened),
            (names::CONNECTIONS_SETTLED, &counters.recycled),
            (names::CONNECTIONS_RESET, &counters.reset),
            (names::CONNECTIONS_RELIEVED, &counters.cache_cleared),
            (names::RESOLVE_ANSWERS, &counters.resolve_ok),
            (names::RESOLVE_FAILURES, &counters.resolve_failed),
        ] {
            self.count(name, None, read(counter));
        }
        for (phase, count) in counters.timed_out.read() {
            self.count(names::TIMEOUTS, Some(("phase", phase)), count);
        }
        for (phase, count) in counters.failed_in.read() {
            self.count(names::CONNECTIONS_FAILED, Some(("phase", phase)), count);
        }
        for (cause, count) in counters.ejected.read() {
            self.count(names::EJECTIONS, Some(("cause", cause)), count);
        }
        for (reason, count) in counters.closed_for.read() {
            self.count(names::CONNECTIONS_CLOSED, Some(("reason", reason)), count);
        }
        for (event, count) in shared.events.counts() {
            self.count(names::EVENTS, Some(("event", event)), count);
        }
    }

    /// Gives what a counter has grown by. What has never been counted is not given, unless it has no label.
    fn count(&self, name: &'static str, label: Option<(&'static str, &'static str)>, now: u64) {
        if now == 0 && label.is_some() {
            return;
        }
        let grown = {
            let mut given = lock(&self.given);
            let given = given.entry((name, label.map_or("", |(_, value)| value))).or_default();
            now.saturating_sub(std::mem::replace(given, now))
        };
        let labels = std::iter::once(self.service()).chain(label.map(|(key, value)| Label::new(key, value)));
        counter!(name, labels.collect::<Vec<_>>()).increment(grown);
    }
}

/// Gives the pool's numbers to the recorder.
#[derive(Debug, Default)]
pub(crate) struct Exporter {
    /// Of each Pod, by its serial number, how many checkouts were given so far.
    pods: HashMap<u64, (Arc<Pod>, u64)>,
}

impl Exporter {
    pub(crate) fn export(&mut self, shared: &Shared, view: &View) {
        let mut picked = 0;
        let mut before = std::mem::take(&mut self.pods);
        for (pod, health) in view.pods() {
            let (now, given) = (pod.slot.picks(), before.remove(&pod.serial).map_or(0, |(_, given)| given));
            picked += gauges(shared, pod, now.saturating_sub(given), Some(health));
            self.pods.insert(pod.serial, (pod.clone(), now));
        }
        for (pod, given) in before.into_values() {
            picked += gauges(shared, &pod, pod.slot.picks().saturating_sub(given), None);
        }
        counter!(names::CHECKOUTS, vec![shared.metrics.service()]).increment(picked);
        shared.metrics.counters(shared);
        if let Some(at) = lock(&shared.resolved).at {
            gauge!(names::RESOLVE_AGE_SECONDS, vec![shared.metrics.service()]).set(at.elapsed());
        }
    }
}

/// One Pod's numbers, and how many checkouts there were since the last time, which it gives back. All gauges are zero for
/// a Pod that has gone.
fn gauges(shared: &Shared, pod: &Pod, picked: u64, health: Option<&PodHealth>) -> u64 {
    let address = SharedString::from_shared(pod.endpoint.address().to_string().into());
    let name = pod.endpoint.name().map_or_else(|| address.clone(), |name| SharedString::from_shared(name.into()));
    let labels =
        || vec![shared.metrics.service(), Label::new("pod", name.clone()), Label::new("address", address.clone())];
    let here = |value: usize| if health.is_some() { value as f64 } else { 0.0 };
    let waiting = || shared.waiters.count(|target: Target| pod.slot.serves(target.bit()));
    let up = health.is_some_and(|health| health.state == State::Healthy && health.fence.is_none());
    gauge!(names::ENDPOINT_UP, labels()).set(f64::from(u8::from(up)));
    gauge!(names::ENDPOINT_OPEN, labels()).set(here(pod.open()));
    gauge!(names::ENDPOINT_IDLE, labels()).set(here(pod.idle()));
    gauge!(names::ENDPOINT_IN_USE, labels()).set(here(pod.slot.in_flight() as usize));
    gauge!(names::ENDPOINT_WAITING, labels()).set(here(waiting()));
    if let Some(bytes) = health.and_then(|health| health.lag?.bytes) {
        gauge!(names::ENDPOINT_LAG_BYTES, labels()).set(bytes as f64);
    }
    if let (Some(latency), Some(_)) = (pod.slot.latency(), health) {
        gauge!(names::ENDPOINT_LATENCY_SECONDS, labels()).set(latency);
    }
    counter!(names::ENDPOINT_PICKS, labels()).increment(picked);
    picked
}
