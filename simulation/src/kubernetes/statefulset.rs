//! The StatefulSet controller's decision.

use std::{collections::BTreeMap, time::Duration};

use super::{
    pod::{Pod, Uid},
    runtime::Signal,
    settings::ReadinessProbe,
};

/// Whether Pods are created and deleted one by one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// A Pod is created or deleted once its predecessors are ready.
    OrderedReady,
    /// All Pods are created or deleted at once.
    Parallel,
}

/// A StatefulSet and the parts of its template that matter here.
#[derive(Clone, Debug)]
pub struct StatefulSet {
    /// The name of the StatefulSet.
    pub name: String,
    /// The number of Pods.
    pub replicas: u32,
    /// The order of creation and deletion.
    pub policy: Policy,
    /// Pods of lower ordinals are not updated.
    pub partition: u32,
    /// The revision of the template.
    pub revision: u32,
    /// The revision before the update, which Pods below the partition have.
    pub current: u32,
    /// `terminationGracePeriodSeconds`.
    pub grace: Duration,
    /// How long the preStop hook sleeps.
    pub pre_stop: Duration,
    /// The stop signal of the image.
    pub stop: Signal,
    /// The readiness probe of the container.
    pub probe: ReadinessProbe,
}

impl StatefulSet {
    /// Creates a StatefulSet as the example manifests have it: `Parallel`, a preStop hook of 20 s, a grace period of
    /// 80 s, and a fast shutdown.
    pub fn new(name: &str, replicas: u32) -> Self {
        Self {
            name: name.to_owned(),
            replicas,
            policy: Policy::Parallel,
            partition: 0,
            revision: 1,
            current: 1,
            grace: Duration::from_secs(80),
            pre_stop: Duration::from_secs(20),
            stop: Signal::Interrupt,
            probe: ReadinessProbe {
                initial_delay: Duration::ZERO,
                period: Duration::from_secs(5),
                failure_threshold: 2,
                success_threshold: 1,
            },
        }
    }

    /// Decides what the controller does with these Pods of the API server.
    pub(super) fn decide<'a>(&self, pods: impl IntoIterator<Item = &'a Pod>) -> Vec<Action> {
        let pods: BTreeMap<u32, &Pod> = pods.into_iter().map(|pod| (pod.info.ordinal, pod)).collect();
        let ordered = self.policy == Policy::OrderedReady;
        let is_healthy = |pod: &Pod| pod.ready && pod.deletion.is_none();
        let mut actions = Vec::new();

        for ordinal in 0..self.replicas {
            match pods.get(&ordinal) {
                None => actions.push(Action::Create(ordinal, self.revision_of(ordinal))),
                Some(pod) if is_healthy(pod) || !ordered => continue,
                Some(_) => {}
            }
            if ordered {
                return actions;
            }
        }
        for (_, pod) in pods.range(self.replicas..).rev() {
            if pod.deletion.is_none() {
                actions.push(Action::Delete(pod.info.uid));
            }
            if ordered {
                return actions;
            }
        }
        if !actions.is_empty() {
            return actions;
        }
        // An update deletes the Pod with the highest ordinal that is outdated, once those above are healthy.
        for ordinal in (self.partition..self.replicas).rev() {
            let Some(pod) = pods.get(&ordinal) else { return actions };
            if pod.info.revision != self.revision && pod.deletion.is_none() {
                return vec![Action::Delete(pod.info.uid)];
            }
            if !is_healthy(pod) {
                return actions;
            }
        }
        actions
    }

    fn revision_of(&self, ordinal: u32) -> u32 {
        if ordinal < self.partition { self.current } else { self.revision }
    }
}

/// An action of the StatefulSet controller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Create the Pod of this ordinal with this revision.
    Create(u32, u32),
    Delete(Uid),
}
