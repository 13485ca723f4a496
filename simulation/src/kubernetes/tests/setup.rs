//! A container runtime of the tests, and a cluster that runs on it.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::super::{Cluster, ClusterSettings, ContainerRuntime, Event, PodInfo, Service, Signal, StatefulSet, Uid};

/// Processes that end a fixed time after their stop signal.
pub(super) struct Runtime {
    pub(super) running: BTreeMap<Uid, PodInfo>,
    /// What happened, in order: the Pod's name and what.
    pub(super) log: Vec<(Instant, String, String)>,
    /// Processes whose end has to be reported.
    pub(super) ending: BTreeMap<Uid, Instant>,
    /// Time from the stop signal to the end; `None` for a process that ignores it.
    pub(super) stops_after: Option<Duration>,
    /// When a Pod becomes ready or not, by its name, or by its name and the number of its predecessors, as in `db-0/1`.
    /// Without an entry, a Pod is ready as soon as its process runs.
    pub(super) readiness: BTreeMap<String, Vec<(Instant, bool)>>,
    /// The Pods of each name, in the order of their first start.
    known: BTreeMap<String, Vec<Uid>>,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            running: BTreeMap::new(),
            log: Vec::new(),
            ending: BTreeMap::new(),
            stops_after: Some(Duration::from_millis(10)),
            readiness: BTreeMap::new(),
            known: BTreeMap::new(),
        }
    }
}

impl Runtime {
    fn note(&mut self, now: Instant, pod: Uid, what: String) {
        let name = self.running.get(&pod).map_or_else(|| format!("{pod}"), |pod| pod.name.clone());
        self.log.push((now, name, what));
    }
}

impl ContainerRuntime for Runtime {
    fn start(&mut self, now: Instant, pod: &PodInfo) {
        assert!(self.running.insert(pod.uid, pod.clone()).is_none(), "{} runs twice", pod.name);
        let known = self.known.entry(pod.name.clone()).or_default();
        if !known.contains(&pod.uid) {
            known.push(pod.uid);
        }
        self.note(now, pod.uid, "start".to_owned());
    }

    fn signal(&mut self, now: Instant, pod: Uid, signal: Signal) {
        self.note(now, pod, format!("{signal:?}"));
        if signal == Signal::Kill {
            self.running.remove(&pod);
            self.ending.remove(&pod);
        } else if let Some(after) = self.stops_after {
            self.ending.entry(pod).or_insert(now + after);
        }
    }

    fn is_ready(&mut self, now: Instant, pod: Uid) -> bool {
        let name = &self.running[&pod].name;
        let predecessors = self.known[name].iter().position(|known| *known == pod).expect("it has started");
        let own = self.readiness.get(&format!("{name}/{predecessors}"));
        let changes = own.or_else(|| self.readiness.get(name));
        let last = changes.and_then(|changes| changes.iter().rfind(|(from, _)| *from <= now));
        changes.is_none() || last.is_some_and(|(_, ready)| *ready)
    }

    fn remove(&mut self, now: Instant, pod: Uid) {
        assert!(!self.running.contains_key(&pod), "the addresses of a running process are removed");
        self.note(now, pod, "remove".to_owned());
    }
}

/// A cluster, and the time.
pub(super) struct World {
    pub(super) cluster: Cluster<Runtime>,
    pub(super) now: Instant,
    /// All events, with the time at which they happened.
    pub(super) events: Vec<(Instant, Event)>,
}

impl World {
    pub(super) fn new(settings: ClusterSettings, set: StatefulSet, seed: u64) -> Self {
        let service = Service::headless("k8s-training", "postgresql-svc", "postgresql-port", 5432);
        Self::with_service(settings, service, set, seed)
    }

    pub(super) fn with_service(settings: ClusterSettings, service: Service, set: StatefulSet, seed: u64) -> Self {
        let now = Instant::now();
        let random = fastrand::Rng::with_seed(seed);
        let cluster = Cluster::new(now, settings, service, set, Runtime::default(), random);
        Self { cluster, now, events: Vec::new() }
    }

    /// Creates a cluster with the default settings and runs it for a minute.
    pub(super) fn ready(set: StatefulSet) -> Self {
        let mut world = Self::new(ClusterSettings::default(), set, 1);
        world.run(Duration::from_secs(60));
        world.events.clear();
        world
    }

    /// Runs the cluster for some time, timer by timer.
    pub(super) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let ending = self.cluster.runtime().ending.iter().map(|(pod, at)| (*at, *pod)).min();
            let next = [self.cluster.next(), ending.map(|(at, _)| at)].into_iter().flatten().min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if let Some((_, pod)) = ending.filter(|(at, _)| *at <= next) {
                self.exit(pod);
            }
            let events = self.cluster.step(self.now);
            self.events.extend(events.into_iter().map(|event| (self.now, event)));
        }
        self.now = end;
    }

    /// Ends the process of a Pod, and reports it.
    pub(super) fn exit(&mut self, pod: Uid) {
        let runtime = self.cluster.runtime();
        runtime.ending.remove(&pod);
        runtime.running.remove(&pod);
        self.cluster.exited(self.now, pod);
    }

    pub(super) fn uid(&self, ordinal: u32) -> Uid {
        self.cluster.ordinal(ordinal).unwrap_or_else(|| panic!("no Pod {ordinal}")).info.uid
    }

    /// Returns the ordinals of the Pods that are ready.
    pub(super) fn ready_ordinals(&self) -> Vec<u32> {
        self.cluster.pods().iter().filter(|pod| pod.ready).map(|pod| pod.info.ordinal).collect()
    }

    /// Returns the names of the Pods that name servers name.
    pub(super) fn named(&self) -> Vec<String> {
        let endpoints = self.cluster.slices().flat_map(|slice| &slice.endpoints);
        let mut named: Vec<_> =
            endpoints.filter(|endpoint| endpoint.conditions.ready).map(|endpoint| endpoint.pod.clone()).collect();
        named.sort();
        named
    }
}
