//! Passes the pool's metrics to the recorder of the `metrics` facade.
//!
//! [`Exporter::export`] exports counters and gauges. The upkeep task calls it once a second, and it runs twice while
//! the pool closes. [`PoolMetrics`] records the durations of waits and of successful dials when they end. Use times
//! (how long callers hold connections) are collected in [`UseTimes`] until the next export. In builds without the
//! feature `metrics`, the module `metrics_noop` replaces this module.

use std::{collections::HashMap, mem, sync::Arc};

use metrics::{Label, SharedString, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::{
    Pod, requirement,
    shared::{Shared, read},
    view::{PodHealth, View},
};
use crate::{
    config::{Config, Host, HostEntry},
    endpoint::Role,
    error::{Error, Phase},
    metrics::{self as names, MetricKind, POD_LABELS, POOL_LABELS},
    sync::{Mutex, lock},
    time::{Duration, Instant},
    trace::SYSTEM,
    unwind::catch,
};

/// Maximum number of use times that one Pod keeps until the next export. Further use times are dropped.
const USE_TIMES: usize = 1024;

/// The pool's label and the last exported value of each counter.
#[derive(Debug)]
pub(crate) struct PoolMetrics {
    name: SharedString,
    /// Last exported value of each counter, by metric name and label value.
    exported: Mutex<HashMap<(&'static str, &'static str), u64>>,
}

impl PoolMetrics {
    /// Describes every metric to the installed recorder.
    pub(crate) fn new(config: &Config) -> Self {
        let name = |entry: &HostEntry| match entry.host() {
            Host::Address(address) => format!("{address}:{}", entry.port()),
            Host::Directory(path) => format!("{}:{}", path.display(), entry.port()),
            Host::Service(name) => format!("{}:{}", name.as_str(), entry.port()),
        };
        let hosts: Vec<_> = config.hosts().iter().map(name).collect();
        for metric in names::ALL {
            // A panic of the application's metrics recorder must not make `build` fail.
            let _ = catch(|| match metric.kind {
                MetricKind::Counter => describe_counter!(metric.name, metric.help),
                MetricKind::Gauge => describe_gauge!(metric.name, metric.help),
                MetricKind::Histogram => describe_histogram!(metric.name, metric.help),
            });
        }
        let name = format!("{}/{}", hosts.join(","), config.dbname());
        Self { name: SharedString::from_shared(name.into()), exported: Mutex::default() }
    }

    /// Returns the pool's labels, followed by `label` if there is one.
    fn labels(&self, label: Option<(&'static str, &'static str)>) -> Vec<Label> {
        let [name, system] = POOL_LABELS else { unreachable!("the pool has two labels") };
        let mut labels = vec![Label::new(*name, self.name.clone()), Label::new(*system, SYSTEM)];
        labels.extend(label.map(|(key, value)| Label::new(key, value)));
        labels
    }

    /// Records the wait time of a checkout: from `since` until now.
    pub(crate) fn waited<T>(&self, since: Instant, result: &Result<T, Error>) {
        let outcome = result.as_ref().map_or_else(|error| error.kind().as_str(), |_| "ok");
        let labels = self.labels(Some(("outcome", outcome)));
        histogram!(names::CONNECTION_WAIT_TIME, labels).record(since.elapsed());
    }

    /// Records the duration of a successful dial.
    pub(crate) fn connected(&self, took: Duration) {
        histogram!(names::CONNECTION_CREATE_TIME, self.labels(None)).record(took);
    }

    /// Exports the increase of every counter since its last export.
    pub(crate) fn counters(&self, shared: &Shared) {
        let counters = &shared.counters;
        for (name, counter) in [
            (names::WAITS, &counters.waits),
            (names::RETRIES, &counters.retries),
            (names::CONNECTIONS_OPENED, &counters.opened),
            (names::CONNECTIONS_RECYCLED, &counters.recycled),
            (names::CONNECTIONS_RESET, &counters.reset),
            (names::STATEMENT_CACHES_CLEARED, &counters.cache_cleared),
            (names::RESOLVE_ANSWERS, &counters.resolve_ok),
            (names::RESOLVE_FAILURES, &counters.resolve_failed),
        ] {
            self.count(name, None, read(counter));
        }
        self.count(names::CONNECTION_TIMEOUTS, None, counters.timed_out.get(Phase::Wait));
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
        for (source, count) in shared.events.panics() {
            self.count(names::PANICS, Some(("source", source)), count);
        }
        for (event, count) in shared.events.counts() {
            self.count(names::EVENTS, Some(("event", event)), count);
        }
    }

    /// Exports the increase of one counter since its last export. A counter with a label is not exported while it is
    /// zero.
    fn count(&self, name: &'static str, label: Option<(&'static str, &'static str)>, now: u64) {
        if now == 0 && label.is_some() {
            return;
        }
        let increase = {
            let mut exported = lock(&self.exported);
            let exported = exported.entry((name, label.map_or("", |(_, value)| value))).or_default();
            now.saturating_sub(mem::replace(exported, now))
        };
        counter!(name, self.labels(label)).increment(increase);
    }
}

/// Exports all counters and gauges. Remembers the exported Pods, so that the gauges of a removed Pod can be set to
/// zero.
#[derive(Debug, Default)]
pub(crate) struct Exporter {
    /// The Pods of the last export, by serial number, each with its number of checkouts at that time.
    pods: HashMap<u64, (Arc<Pod>, u64)>,
}

impl Exporter {
    pub(crate) fn export(&mut self, shared: &Shared, view: &View) {
        let mut checkouts = 0;
        let mut before = mem::take(&mut self.pods);
        for (pod, health) in view.servers() {
            let (now, exported) =
                (pod.slot.checkouts(), before.remove(&pod.serial).map_or(0, |(_, exported)| exported));
            checkouts += export_pod(shared, pod, now.saturating_sub(exported), Some(health));
            self.pods.insert(pod.serial, (pod.clone(), now));
        }
        for (pod, exported) in before.into_values() {
            checkouts += export_pod(shared, &pod, pod.slot.checkouts().saturating_sub(exported), None);
        }
        let pool = || shared.metrics.labels(None);
        counter!(names::CHECKOUTS, pool()).increment(checkouts);
        gauge!(names::CONNECTION_PENDING_REQUESTS, pool()).set(shared.waiters.count(requirement::ALL_BITS) as f64);
        shared.metrics.counters(shared);
        if let Some(at) = lock(&shared.resolved).at() {
            gauge!(names::RESOLVE_AGE_SECONDS, pool()).set(at.elapsed());
        }
    }
}

/// Exports the metrics of one Pod and returns `checkouts`, the number of its checkouts since the last export. `health`
/// is `None` for a Pod that is no longer in use, or has become an alternative address: its gauges become zero.
fn export_pod(shared: &Shared, pod: &Pod, checkouts: u64, health: Option<&PodHealth>) -> u64 {
    let address = pod.endpoint.address();
    let text = |text: String| SharedString::from_shared(text.into());
    let name = pod.endpoint.name().map_or_else(|| text(address.to_string()), |name| text(name.to_owned()));
    let port = address.port().map(|port| port.to_string()).unwrap_or_default();
    let values = [name, text(address.host_text()), text(port)];
    let labels = |label: Option<(&'static str, &'static str)>| {
        let of_pod = POD_LABELS.iter().zip(&values).map(|(key, value)| Label::new(*key, value.clone()));
        shared.metrics.labels(label).into_iter().chain(of_pod).collect::<Vec<_>>()
    };
    let here = |value: usize| if health.is_some() { value as f64 } else { 0.0 };
    let flag = |is: bool| f64::from(u8::from(is && health.is_some()));
    for (state, count) in [("idle", pod.idle()), ("used", pod.slot.in_flight() as usize)] {
        gauge!(names::CONNECTION_COUNT, labels(Some(("db_client_connection_state", state)))).set(here(count));
    }
    gauge!(names::CONNECTION_MAX, labels(None)).set(here(pod.size()));
    let up = health.is_some_and(PodHealth::is_usable);
    gauge!(names::ENDPOINT_UP, labels(None)).set(flag(up));
    let current = health.map(PodHealth::state_label);
    for state in PodHealth::state_labels() {
        gauge!(names::ENDPOINT_STATE, labels(Some(("state", state)))).set(flag(current == Some(state)));
    }
    for &role in Role::ALL {
        let is = health.is_some_and(|health| health.role == role);
        gauge!(names::ENDPOINT_ROLE, labels(Some(("role", role.as_str())))).set(flag(is));
    }
    let waiting = shared.waiters.count(requirement::served(&pod.slot));
    gauge!(names::ENDPOINT_WAITING, labels(None)).set(here(waiting));
    gauge!(names::ENDPOINT_FENCED, labels(None)).set(flag(health.is_some_and(PodHealth::reports_fence)));
    gauge!(names::ENDPOINT_LATE, labels(None)).set(flag(health.is_some_and(|health| health.late)));
    if let Some(timeline) = health.and_then(|health| health.timeline) {
        gauge!(names::ENDPOINT_TIMELINE, labels(None)).set(f64::from(timeline));
    }
    if let Some(bytes) = health.and_then(|_| pod.lag.bytes()) {
        gauge!(names::ENDPOINT_LAG_BYTES, labels(None)).set(bytes as f64);
    }
    if let Some(time) = health.and_then(|_| pod.lag.time()) {
        gauge!(names::ENDPOINT_LAG_SECONDS, labels(None)).set(time);
    }
    if let (Some(latency), Some(_)) = (pod.slot.latency(), health) {
        gauge!(names::ENDPOINT_LATENCY_SECONDS, labels(None)).set(latency);
    }
    counter!(names::ENDPOINT_CHECKOUTS, labels(None)).increment(checkouts);
    let use_time = histogram!(names::CONNECTION_USE_TIME, labels(None));
    for time in pod.use_times.drain() {
        use_time.record(time);
    }
    checkouts
}

/// The use times of one Pod's connections that have not been exported yet.
#[derive(Debug)]
pub(crate) struct UseTimes(Mutex<Vec<Duration>>);

impl UseTimes {
    /// Allocates capacity for one second's use times, so that returning a connection never allocates.
    pub(crate) fn new(pool_size: usize) -> Self {
        Self(Mutex::new(Vec::with_capacity((10 * pool_size).min(USE_TIMES))))
    }

    fn add(&self, time: Duration) {
        let mut times = lock(&self.0);
        if times.len() < times.capacity() {
            times.push(time);
        }
    }

    /// Removes and returns the collected use times. Swaps in a new buffer, so that the lock is not held while they are
    /// exported.
    fn drain(&self) -> Vec<Duration> {
        let mut times = lock(&self.0);
        let empty = Vec::with_capacity(times.capacity());
        mem::replace(&mut times, empty)
    }
}

/// Measures the use time of one connection. To keep checkouts cheap, measures at most one use per tick of the pool's
/// clock.
#[derive(Debug, Default)]
pub(crate) struct UseTimer {
    /// The pool's clock at the start of the last measured use.
    tick: u64,
    /// Start of the current use, if it is measured.
    since: Option<Instant>,
}

impl UseTimer {
    /// Begins a use. `tick` is the current value of the pool's clock.
    #[inline]
    pub(crate) fn begin(&mut self, tick: u64) {
        if self.tick != tick {
            self.tick = tick;
            self.since = Some(Instant::now());
        }
    }

    /// Ends a use, and stores its duration if the use was measured.
    #[inline]
    pub(crate) fn end(&mut self, times: &UseTimes) {
        if let Some(since) = self.since.take() {
            times.add(since.elapsed());
        }
    }
}
