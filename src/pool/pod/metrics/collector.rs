//! The source of all counters and gauges of a pool.

use std::{collections::HashMap, mem, sync::Arc};

use super::{
    CollectedTimes,
    sink::{Label, Sink, Value},
};
use crate::{
    endpoint::Role,
    error::Phase,
    metrics::{self as names, ADDRESS_LABELS, POD_LABELS},
    pool::pod::{
        Pod,
        counters::ejections,
        requirement,
        shared::{Shared, read},
        view::{PodHealth, View},
    },
    sync::{Mutex, lock},
    time::{Duration, Instant},
};

/// The number of ejections, by Pod and cause.
type Ejections = HashMap<(Arc<str>, &'static str), u64>;

/// The part of the group's counters that was already exported, by any of its pools.
#[derive(Debug, Default)]
pub(crate) struct Exported(Mutex<GroupTotals>);

/// Values of the counters of a group.
#[derive(Debug, Default)]
struct GroupTotals {
    answers: u64,
    failures: u64,
    ejections: Ejections,
}

/// The totals of the counters that have no total elsewhere, and the Pods that they include.
#[derive(Debug, Default)]
pub(crate) struct Collector {
    /// The Pods of the last update, by serial number, each with its number of checkouts at that time.
    pods: HashMap<u64, (Arc<Pod>, u64)>,
    /// The Pods that have left since the last export.
    departed: Vec<Arc<Pod>>,
    /// The number of checkouts, over all Pods.
    checkouts: u64,
    /// The number of checkouts, by Pod. Pods that have left are kept, like the series of a counter.
    checkouts_of: HashMap<Arc<str>, u64>,
    /// The part of the group's counters that this pool has exported.
    group: GroupTotals,
    /// The last time at which a Pod served as the primary.
    primary_at: Option<Instant>,
}

impl Collector {
    /// Updates the totals.
    pub(crate) fn update(&mut self, shared: &Shared, view: &View) {
        let mut before = mem::take(&mut self.pods);
        for (pod, _) in view.servers() {
            let exported = before.remove(&pod.serial).map_or(0, |(_, exported)| exported);
            let now = self.add_checkouts(pod, exported);
            self.pods.insert(pod.serial, (pod.clone(), now));
        }
        for (pod, exported) in before.into_values() {
            self.add_checkouts(&pod, exported);
            self.departed.push(pod);
        }
        if view.servers().any(|(_, health)| is_primary(health)) {
            self.primary_at = Some(Instant::now());
        }
        if shared.exports_health() {
            self.update_group(shared);
        }
    }

    /// Adds a Pod's checkouts since the last update. Returns its number of checkouts.
    fn add_checkouts(&mut self, pod: &Pod, before: u64) -> u64 {
        let now = pod.slot.checkouts();
        let more = now.saturating_sub(before);
        self.checkouts += more;
        *self.checkouts_of.entry(ejections::label(&pod.endpoint)).or_default() += more;
        now
    }

    /// Adds the increase of the group's counters since the last update by any of its pools.
    fn update_group(&mut self, shared: &Shared) {
        let (counters, own) = (&shared.group.counters, &mut self.group);
        let mut exported = lock(&shared.group.exported.0);
        let increase = |exported: &mut u64, now: u64| {
            let increase = now.saturating_sub(*exported);
            *exported = now.max(*exported);
            increase
        };
        own.answers += increase(&mut exported.answers, read(&counters.resolve_ok));
        own.failures += increase(&mut exported.failures, read(&counters.resolve_failed));
        for (key, count) in counters.ejected.read() {
            let increase = increase(exported.ejections.entry(key.clone()).or_default(), count);
            *own.ejections.entry(key).or_default() += increase;
        }
    }

    /// Removes and returns the use times of all connections. Forgets the Pods that have left.
    pub(super) fn take_use_times(&mut self) -> CollectedTimes {
        let departed = mem::take(&mut self.departed);
        let pods = self.pods.values().map(|(pod, _)| pod).chain(&departed);
        pods.map(|pod| (ejections::label(&pod.endpoint), pod.use_times.drain())).collect()
    }

    /// Passes all counters and gauges. Call [`update`](Self::update) before.
    pub(crate) fn pass<S: Sink>(&self, shared: &Shared, view: &View, sink: &mut S) {
        // Pods that are used come last: if a Pod has moved, its old and its new address have the same label.
        let mut current: Vec<_> = view.servers().collect();
        current.sort_by_key(|(_, health)| health.is_usable());
        if S::KEEPS_SERIES {
            self.departed.iter().for_each(|pod| self.pass_pod(shared, pod, None, sink));
        }
        for (pod, health) in &current {
            self.pass_pod(shared, pod, Some(health), sink);
        }
        sink.counter(names::CHECKOUTS, &[], self.checkouts);
        sink.gauge(names::CONNECTION_PENDING_REQUESTS, &[], shared.waiters.count(requirement::ALL_BITS) as f64);
        pass_counters(shared, sink);
        if shared.exports_health() {
            self.pass_group(shared, &current, sink);
        }
    }

    /// Passes the metrics of one Pod. `health` is `None` for a Pod that is no longer in use, or has become an
    /// alternative address: its gauges become zero.
    fn pass_pod<S: Sink>(&self, shared: &Shared, pod: &Pod, health: Option<&PodHealth>, sink: &mut S) {
        let name = ejections::label(&pod.endpoint);
        let of_pod = || Label::shared(POD_LABELS[0], name.clone());
        let here = |value: usize| if health.is_some() { value as f64 } else { 0.0 };
        let address = pod.endpoint.address();
        let host = Label::shared(ADDRESS_LABELS[0], address.host_text().into());
        let port = Label(ADDRESS_LABELS[1], Value::Port(address.port()));
        sink.gauge(names::POD_INFO, &[of_pod(), host, port], here(1));
        for (state, count) in [("idle", pod.idle()), ("used", pod.slot.in_use() as usize)] {
            let labels = [Label::fixed("db_client_connection_state", state), of_pod()];
            sink.gauge(names::CONNECTION_COUNT, &labels, here(count));
        }
        let labels = [of_pod()];
        let kept = if health.is_some_and(|health| health.warm) { shared.limits.min_idle } else { 0 };
        sink.gauge(names::CONNECTION_IDLE_MAX, &labels, here(pod.size()));
        sink.gauge(names::CONNECTION_IDLE_MIN, &labels, here(kept));
        sink.gauge(names::CONNECTION_MAX, &labels, here(pod.size()));
        sink.gauge(names::ENDPOINT_WAITING, &labels, here(shared.waiters.count(requirement::served(&pod.slot))));
        let (connections, statements) = pod.shared_connections.counts();
        sink.gauge(names::SHARED_CONNECTIONS, &labels, here(connections));
        sink.gauge(names::SHARED_IN_FLIGHT, &labels, here(statements));
        if let (Some(latency), Some(_)) = (pod.slot.latency(), health) {
            sink.gauge(names::ENDPOINT_LATENCY_SECONDS, &labels, latency.as_secs_f64());
        }
        let checkouts = self.checkouts_of.get(&name).copied().unwrap_or_default();
        sink.counter(names::ENDPOINT_CHECKOUTS, &labels, checkouts);
        if shared.exports_health() {
            pass_health(pod, &name, health, sink);
        }
    }

    /// Passes the metrics that are the same for all pools of the group.
    fn pass_group<S: Sink>(&self, shared: &Shared, current: &[(&Arc<Pod>, &PodHealth)], sink: &mut S) {
        for &role in Role::ALL {
            for state in PodHealth::state_labels() {
                let fits = |health: &PodHealth| health.role == role && health.state_label() == state;
                let count = current.iter().filter(|(_, health)| fits(health)).count();
                let labels = [Label::fixed("role", role.as_str()), Label::fixed("state", state)];
                sink.gauge(names::PODS, &labels, count as f64);
            }
        }
        let built = shared.metrics.built;
        // Exactly 0 while a primary serves, whatever time has passed since the last update.
        let serves = current.iter().any(|(_, health)| is_primary(health));
        let without_primary = if serves { Duration::ZERO } else { self.primary_at.unwrap_or(built).elapsed() };
        sink.gauge(names::NO_PRIMARY_SECONDS, &[], without_primary.as_secs_f64());
        let resolved_at = lock(&shared.group.resolved).at().unwrap_or(built);
        sink.gauge(names::RESOLVE_AGE_SECONDS, &[], resolved_at.elapsed().as_secs_f64());
        sink.counter(names::RESOLVE_ANSWERS, &[], self.group.answers);
        sink.counter(names::RESOLVE_FAILURES, &[], self.group.failures);
        let mut of_known = Ejections::new();
        for (pod, _) in current {
            let label = ejections::label(&pod.endpoint);
            of_known.extend(ejections::CAUSES.map(|cause| ((label.clone(), cause), 0)));
        }
        for (key, count) in &self.group.ejections {
            match of_known.get_mut(key) {
                Some(known) => *known = *count,
                None if S::KEEPS_SERIES => drop(of_known.insert(key.clone(), *count)),
                None => {}
            }
        }
        for ((pod, cause), count) in of_known {
            sink.counter(names::EJECTIONS, &[Label::fixed("cause", cause), Label::shared(POD_LABELS[0], pod)], count);
        }
    }
}

/// Passes the counters of the pool.
pub(super) fn pass_counters<S: Sink>(shared: &Shared, sink: &mut S) {
    let counters = &shared.counters;
    for (name, counter) in [
        (names::WAITS, &counters.waits),
        (names::RETRIES, &counters.retries),
        (names::CONNECTIONS_OPENED, &counters.opened),
        (names::CONNECTIONS_RECYCLED, &counters.recycled),
        (names::CONNECTIONS_RESET, &counters.reset),
        (names::STATEMENT_CACHES_CLEARED, &counters.cache_cleared),
    ] {
        sink.counter(name, &[], read(counter));
    }
    sink.counter(names::CONNECTION_TIMEOUTS, &[], counters.timed_out.get(Phase::Wait));
    for (name, counter) in [
        (names::TIMEOUTS, &counters.timed_out),
        (names::CONNECTIONS_FAILED, &counters.failed_in),
        (names::ABANDONED, &counters.abandoned),
    ] {
        for (phase, count) in counter.read() {
            sink.counter(name, &[Label::fixed("phase", phase)], count);
        }
    }
    for (reason, count) in counters.closed_for.read() {
        sink.counter(names::CONNECTIONS_CLOSED, &[Label::fixed("reason", reason)], count);
    }
    for (source, count) in shared.events.panics() {
        sink.counter(names::PANICS, &[Label::fixed("source", source)], count);
    }
    for (event, count) in shared.events.counts() {
        sink.counter(names::EVENTS, &[Label::fixed("event", event)], count);
    }
}

/// Passes the metrics of one Pod that are the same for all pools of the group.
fn pass_health<S: Sink>(pod: &Pod, name: &Arc<str>, health: Option<&PodHealth>, sink: &mut S) {
    let of_pod = || Label::shared(POD_LABELS[0], name.clone());
    let flag = |is: bool| f64::from(u8::from(is && health.is_some()));
    let labels = [of_pod()];
    sink.gauge(names::ENDPOINT_UP, &labels, flag(health.is_some_and(PodHealth::is_up)));
    let current = health.map(PodHealth::state_label);
    for state in PodHealth::state_labels() {
        sink.gauge(names::ENDPOINT_STATE, &[Label::fixed("state", state), of_pod()], flag(current == Some(state)));
    }
    for &role in Role::ALL {
        let is = health.is_some_and(|health| health.role == role);
        sink.gauge(names::ENDPOINT_ROLE, &[Label::fixed("role", role.as_str()), of_pod()], flag(is));
    }
    sink.gauge(names::ENDPOINT_FENCED, &labels, flag(health.is_some_and(PodHealth::reports_fence)));
    sink.gauge(names::ENDPOINT_LATE, &labels, flag(health.is_some_and(|health| health.late)));
    if let Some(timeline) = health.and_then(|health| health.timeline) {
        sink.gauge(names::ENDPOINT_TIMELINE, &labels, f64::from(timeline));
    }
    if let Some(bytes) = health.and_then(|_| pod.server.lag.bytes()) {
        sink.gauge(names::ENDPOINT_LAG_BYTES, &labels, bytes as f64);
    }
    if let Some(time) = health.and_then(|_| pod.server.lag.time()) {
        sink.gauge(names::ENDPOINT_LAG_SECONDS, &labels, time.as_secs_f64());
    }
}

/// Returns true if a Pod serves as the primary.
fn is_primary(health: &PodHealth) -> bool {
    health.is_up() && health.role == Role::Primary
}
