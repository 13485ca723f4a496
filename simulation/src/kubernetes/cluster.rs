//! The cluster: all objects, and the timers that change them.

use std::collections::{BTreeMap, BTreeSet};

use tokio::time::Instant;

use super::{
    addresses::Addresses,
    event::{Event, PodEvent},
    nodes::Node,
    pod::{Pod, PodInfo, Uid},
    runtime::ContainerRuntime,
    service::{Family, Service},
    settings::ClusterSettings,
    slice::EndpointSlice,
    statefulset::StatefulSet,
    timers::{Timer, Timers},
};
use crate::random::uniform;

/// A StatefulSet, its headless Service, and the nodes that run its Pods.
///
/// The cluster does nothing by itself: [`Self::step`] runs the timers that are due, and [`Self::next`] returns when
/// that is the case next. Every operation may set timers.
pub struct Cluster<R> {
    pub(super) settings: ClusterSettings,
    pub(super) service: Service,
    pub(super) set: StatefulSet,
    /// Pods of the API server, and those whose process still runs although the API server removed them.
    pub(super) pods: BTreeMap<Uid, Pod>,
    pub(super) slices: BTreeMap<Family, Vec<EndpointSlice>>,
    pub(super) nodes: BTreeMap<String, Node>,
    pub(super) addresses: Addresses,
    pub(super) runtime: R,
    pub(super) timers: Timers,
    pub(super) events: Vec<Event>,
    /// Controllers that have a timer.
    pub(super) pending: Pending,
    /// Whether the API server answers.
    pub(super) is_available: bool,
    pub(super) last_uid: u64,
    pub(super) random: fastrand::Rng,
}

/// Controllers that are about to act.
#[derive(Default)]
pub(super) struct Pending {
    pub(super) set: bool,
    pub(super) slices: BTreeSet<Family>,
    /// When the last write of each family's slices arrives.
    pub(super) written: BTreeMap<Family, Instant>,
}

impl<R: ContainerRuntime> Cluster<R> {
    /// Creates the Service and the StatefulSet at `now`.
    pub fn new(
        now: Instant,
        settings: ClusterSettings,
        service: Service,
        set: StatefulSet,
        runtime: R,
        random: fastrand::Rng,
    ) -> Self {
        let nodes = settings.nodes.iter().map(|node| (node.clone(), Node::default())).collect();
        let mut cluster = Self {
            addresses: Addresses::new(settings.reuse),
            events: vec![Event::Service(service.clone())],
            settings,
            service,
            set,
            pods: BTreeMap::new(),
            slices: BTreeMap::new(),
            nodes,
            runtime,
            timers: Timers::default(),
            pending: Pending::default(),
            is_available: true,
            last_uid: 0,
            random,
        };
        cluster.trigger(now);
        cluster
    }

    /// Returns the time of the next timer.
    pub fn next(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Runs the timers that are due at `now`, and returns what has happened since the last call, in order.
    pub fn step(&mut self, now: Instant) -> Vec<Event> {
        while let Some((at, timer)) = self.timers.take(now) {
            self.run(at, timer);
        }
        std::mem::take(&mut self.events)
    }

    /// Returns the Pods that the API server has, by ordinal.
    pub fn pods(&self) -> Vec<&Pod> {
        let mut pods: Vec<_> = self.pods.values().filter(|pod| !pod.is_gone).collect();
        pods.sort_by_key(|pod| pod.info.ordinal);
        pods
    }

    /// Returns a Pod, also one that the API server has removed while its process runs.
    pub fn pod(&self, pod: Uid) -> Option<&Pod> {
        self.pods.get(&pod)
    }

    /// Returns the Pod of an ordinal that the API server has.
    pub fn ordinal(&self, ordinal: u32) -> Option<&Pod> {
        self.pods.values().find(|pod| !pod.is_gone && pod.info.ordinal == ordinal)
    }

    /// Returns the EndpointSlices, of all families.
    pub fn slices(&self) -> impl Iterator<Item = &EndpointSlice> {
        self.slices.values().flatten()
    }

    /// Returns the Service.
    pub fn service(&self) -> &Service {
        &self.service
    }

    /// Returns the StatefulSet.
    pub fn set(&self) -> &StatefulSet {
        &self.set
    }

    /// Returns the container runtime.
    pub fn runtime(&mut self) -> &mut R {
        &mut self.runtime
    }

    fn run(&mut self, now: Instant, timer: Timer) {
        match timer {
            Timer::Set => self.sync_set(now),
            Timer::Slices(family) => self.sync_slices(now, family),
            Timer::Write(event) => self.events.push(event),
            Timer::Start(pod) => self.start(now, pod),
            Timer::Restart(pod, run) => self.restart(now, pod, run),
            Timer::Probe(pod, run) => self.probe(now, pod, run),
            Timer::End(pod) => self.end(now, pod),
            Timer::Stop(pod, run) => self.stop(now, pod, run),
            Timer::Kill(pod, run) => self.kill(now, pod, run),
            Timer::Remove(pod) => self.remove(now, pod),
            Timer::NodeSilent(node, outage) => self.node_silent(now, &node, outage),
            Timer::Evict(node, outage) => self.evict(now, &node, outage),
        }
    }

    /// Lets the controllers act on a change at `now`.
    pub(super) fn trigger(&mut self, now: Instant) {
        if !self.pending.set {
            self.pending.set = true;
            let at = now + uniform(&mut self.random, &self.settings.set_delay);
            self.timers.set(at, Timer::Set);
        }
        for family in self.service.families.clone() {
            if self.pending.slices.insert(family) {
                let written = self.pending.written.get(&family).copied().unwrap_or(now);
                let at = now.max(written) + uniform(&mut self.random, &self.settings.slice_delay);
                self.timers.set(at, Timer::Slices(family));
            }
        }
    }

    /// Records a step in the life of a Pod.
    pub(super) fn record(&mut self, pod: &PodInfo, event: PodEvent) {
        self.events.push(Event::Pod(pod.clone(), event));
    }
}
