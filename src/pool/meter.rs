//! Gives what the pool counts to the recorder of the `metrics` facade: once a second, and what is left at the end.

use std::{collections::HashMap, sync::Arc};

use metrics::{Label, SharedString, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::{
    common::{Common, read},
    inner::Inner,
    pod::Pod,
    view::PodHealth,
};
use crate::{
    config::{Config, Host, Target},
    error::Error,
    health::State,
    metrics as names,
    sync::lock,
    time::Duration,
};

/// Records the times that nothing counts.
#[derive(Debug)]
pub(crate) struct Meter {
    service: SharedString,
}

impl Meter {
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
        Self { service: SharedString::from_shared(service.into()) }
    }

    fn service(&self) -> Label {
        Label::new("service", self.service.clone())
    }

    /// A checkout that had to wait is over.
    pub(crate) fn waited<T>(&self, took: Duration, result: &Result<T, Error>) {
        let outcome = result.as_ref().map_or_else(|error| error.kind().as_str(), |_| "ok");
        let labels = vec![self.service(), Label::new("outcome", outcome)];
        histogram!(names::WAIT_SECONDS, labels).record(took);
    }

    /// A connection has been opened.
    pub(crate) fn connected(&self, took: Duration) {
        histogram!(names::CONNECT_SECONDS, vec![self.service()]).record(took);
    }
}

/// Gives the pool's counts to the recorder, the last time when it is dropped.
pub(crate) struct Exporter {
    inner: Arc<Inner>,
    /// What was given so far: of each Pod by its serial number, and of each counter by its name and label.
    pods: HashMap<u64, (Arc<Pod>, u64)>,
    counts: HashMap<(&'static str, &'static str), u64>,
}

impl Exporter {
    pub(crate) fn new(inner: Arc<Inner>) -> Self {
        Self { inner, pods: HashMap::new(), counts: HashMap::new() }
    }

    pub(crate) fn export(&mut self) {
        let inner = self.inner.clone();
        let common = &inner.common;
        let view = inner.published.load();
        let mut picked = 0;
        let mut before = std::mem::take(&mut self.pods);
        for (pod, health) in view.pods() {
            let given = before.remove(&pod.serial).map_or(0, |(_, given)| given);
            picked += gauges(common, pod, given, Some(health));
            self.pods.insert(pod.serial, (pod.clone(), pod.slot.picks()));
        }
        for (pod, given) in before.into_values() {
            picked += gauges(common, &pod, given, None);
        }
        counter!(names::CHECKOUTS, vec![common.meter.service()]).increment(picked);
        self.counters(common);
        if let Some(at) = lock(&common.resolved).at {
            gauge!(names::RESOLVE_AGE_SECONDS, vec![common.meter.service()]).set(at.elapsed());
        }
    }

    fn counters(&mut self, common: &Common) {
        let counters = &common.counters;
        for (name, counter) in [
            (names::WAITS, &counters.waits),
            (names::RETRIES, &counters.retries),
            (names::CONNECTIONS_OPENED, &counters.opened),
            (names::CONNECTIONS_SETTLED, &counters.settled),
            (names::RESOLVE_ANSWERS, &counters.resolve_ok),
            (names::RESOLVE_FAILURES, &counters.resolve_failed),
        ] {
            self.count(common, name, None, read(counter));
        }
        for (phase, count) in counters.timed_out.read() {
            self.count(common, names::TIMEOUTS, Some(("phase", phase)), count);
        }
        for (phase, count) in counters.failed_in.read() {
            self.count(common, names::CONNECTIONS_FAILED, Some(("phase", phase)), count);
        }
        for (cause, count) in counters.ejected.read() {
            self.count(common, names::EJECTIONS, Some(("cause", cause)), count);
        }
        for (reason, count) in counters.closed_for.read() {
            self.count(common, names::CONNECTIONS_CLOSED, Some(("reason", reason)), count);
        }
        for (event, count) in common.events.counts() {
            self.count(common, names::EVENTS, Some(("event", event)), count);
        }
    }

    /// Gives what a counter has grown by. What has never been counted is not given, unless it has no label.
    fn count(&mut self, common: &Common, name: &'static str, label: Option<(&'static str, &'static str)>, now: u64) {
        if now == 0 && label.is_some() {
            return;
        }
        let given = self.counts.entry((name, label.map_or("", |(_, value)| value))).or_default();
        let labels = std::iter::once(common.meter.service()).chain(label.map(|(key, value)| Label::new(key, value)));
        counter!(name, labels.collect::<Vec<_>>()).increment(now.saturating_sub(*given));
        *given = now;
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        self.export();
    }
}

/// One Pod's numbers. All are zero for one that has gone. Gives how many checkouts there were since the last time.
fn gauges(common: &Common, pod: &Pod, given: u64, health: Option<&PodHealth>) -> u64 {
    let address = SharedString::from_shared(pod.endpoint.address().to_string().into());
    let name = pod.endpoint.name().map_or_else(|| address.clone(), |name| SharedString::from_shared(name.into()));
    let labels =
        || vec![common.meter.service(), Label::new("pod", name.clone()), Label::new("address", address.clone())];
    let here = |value: usize| if health.is_some() { value as f64 } else { 0.0 };
    let waiting = || common.waiters.count(|target: Target| pod.slot.serves(target.bit()));
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
    let picked = pod.slot.picks().saturating_sub(given);
    counter!(names::ENDPOINT_PICKS, labels()).increment(picked);
    picked
}
