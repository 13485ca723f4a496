//! Nodes: they stop to report, crash, and come back.

use tokio::time::Instant;

use super::{
    cluster::Cluster,
    event::{Event, PodEvent},
    pod::{Deletion, State, Uid},
    runtime::{ContainerRuntime, Signal},
    timers::Timer,
};
use crate::random::uniform;

/// A node.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Whether its kubelet reaches the API server.
    pub(super) is_reporting: bool,
    /// Whether it has power. A node without it does not report either.
    pub(super) is_running: bool,
    /// Distinguishes the timers of this outage from those of an earlier one.
    outage: u32,
}

impl Default for Node {
    fn default() -> Self {
        Self { is_reporting: true, is_running: true, outage: 0 }
    }
}

impl<R: ContainerRuntime> Cluster<R> {
    /// Separates a node from the API server at `now`. Its containers go on.
    pub fn lose_node(&mut self, now: Instant, name: &str) {
        let Some(node) = self.nodes.get_mut(name).filter(|node| node.is_reporting) else { return };
        node.is_reporting = false;
        self.events.push(Event::Node(name.to_owned(), false));
        self.wait_for_node(now, name);
    }

    /// Starts to wait for a report of a silent node.
    pub(super) fn wait_for_node(&mut self, now: Instant, name: &str) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.outage += 1;
        let timer = Timer::NodeSilent(name.to_owned(), node.outage);
        self.timers.set(now + self.settings.node_grace, timer);
    }

    /// Cuts the power of a node at `now`: its processes end.
    pub fn crash_node(&mut self, now: Instant, name: &str) {
        self.lose_node(now, name);
        let Some(node) = self.nodes.get_mut(name).filter(|node| node.is_running) else { return };
        node.is_running = false;
        for pod in self.on_node(name) {
            let container = &mut self.pods.get_mut(&pod).expect("it is on the node").container;
            if container.state == State::Running {
                container.run += 1;
                container.passes_probe = false;
                self.runtime.signal(now, pod, Signal::Kill);
                let info = self.pods[&pod].info.clone();
                self.record(&info, PodEvent::Exited);
            }
            let container = &mut self.pods.get_mut(&pod).expect("it is on the node").container;
            if matches!(container.state, State::Running | State::Waiting) {
                container.state = State::Creating;
                self.released(now, pod);
            }
        }
    }

    /// Connects a node again at `now`, with power: Pods that lost their processes get new addresses.
    pub fn return_node(&mut self, now: Instant, name: &str) {
        let Some(node) = self.nodes.get_mut(name).filter(|node| !node.is_reporting) else { return };
        let was_running = std::mem::replace(&mut node.is_running, true);
        node.is_reporting = true;
        node.outage += 1;
        self.events.push(Event::Node(name.to_owned(), true));
        for pod in self.on_node(name) {
            let is_creating = self.pods[&pod].container.state == State::Creating;
            if is_creating && !was_running {
                let at = now + uniform(&mut self.random, &self.settings.sandbox_delay);
                self.timers.set(at, Timer::Start(pod));
            }
        }
        self.reconnect(now, name);
        self.trigger(now);
    }

    /// Applies what a node and the API server have missed of each other.
    pub(super) fn reconnect(&mut self, now: Instant, name: &str) {
        for pod in self.on_node(name) {
            self.report(now, pod);
            let pod = &self.pods[&pod];
            let uid = pod.info.uid;
            match pod.container.state {
                State::Ended => self.timers.set(now, Timer::Remove(uid)),
                _ if pod.deletion.is_some() || pod.is_gone => self.timers.set(now, Timer::End(uid)),
                _ => {}
            }
        }
    }

    /// Marks the Pods of a node that has not reported as not ready.
    pub(super) fn node_silent(&mut self, now: Instant, name: &str, outage: u32) {
        if self.nodes[name].outage != outage || !self.is_available {
            return;
        }
        for pod in self.on_node(name) {
            let pod = self.pods.get_mut(&pod).expect("it is on the node");
            if pod.ready && !pod.is_gone {
                pod.ready = false;
                let info = pod.info.clone();
                self.record(&info, PodEvent::Ready(false));
            }
        }
        self.timers.set(now + self.settings.eviction_delay, Timer::Evict(name.to_owned(), outage));
        self.trigger(now);
    }

    /// Deletes the Pods of a silent node. They stay terminating until the node is back or they are deleted by force.
    pub(super) fn evict(&mut self, now: Instant, name: &str, outage: u32) {
        if self.nodes[name].outage != outage || !self.is_available {
            return;
        }
        for pod in self.on_node(name) {
            self.begin_deletion(now, pod, Deletion { grace: self.set.grace });
        }
    }

    fn on_node(&self, name: &str) -> Vec<Uid> {
        self.pods.values().filter(|pod| pod.info.node == name).map(|pod| pod.info.uid).collect()
    }
}
