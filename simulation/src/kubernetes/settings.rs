//! Settings of a cluster: delays of the control plane, and of the kubelets.

use std::{ops::RangeInclusive, time::Duration};

use super::addresses::Reuse;

/// A readiness probe of a container.
#[derive(Clone, Debug)]
pub struct ReadinessProbe {
    /// Time from the start of the process to the first probe.
    pub initial_delay: Duration,
    /// Time between two probes.
    pub period: Duration,
    /// Probes in a row that must fail before the Pod is not ready.
    pub failure_threshold: u32,
    /// Probes in a row that must succeed before the Pod is ready.
    pub success_threshold: u32,
}

/// Settings of a cluster. The default delays are the recorded ones, where the recording has them.
#[derive(Clone, Debug)]
pub struct ClusterSettings {
    /// The names of the nodes.
    pub nodes: Vec<String>,
    /// Endpoints of one EndpointSlice at most.
    pub endpoints_per_slice: usize,
    /// Whether addresses of Pods that are gone are given to new ones.
    pub reuse: Reuse,
    /// Time from a change of a Pod to the action of the StatefulSet controller.
    pub set_delay: RangeInclusive<Duration>,
    /// Time from a change of a Pod to the write of an EndpointSlice, and between two writes.
    pub slice_delay: RangeInclusive<Duration>,
    /// Time from the creation of a Pod to its address and the start of its process.
    pub sandbox_delay: RangeInclusive<Duration>,
    /// Time from the end of a process to the kubelet's reaction.
    pub exit_delay: RangeInclusive<Duration>,
    /// Time until the Pods of a node that does not report are not ready.
    pub node_grace: Duration,
    /// Time from then until they are deleted.
    pub eviction_delay: Duration,
}

impl Default for ClusterSettings {
    fn default() -> Self {
        let millis = |from, to| Duration::from_millis(from)..=Duration::from_millis(to);
        Self {
            nodes: ["node-a", "node-b", "node-c"].map(str::to_owned).to_vec(),
            endpoints_per_slice: 100,
            reuse: Reuse::Never,
            set_delay: millis(3, 10),
            slice_delay: millis(3, 15),
            sandbox_delay: millis(20, 60),
            exit_delay: millis(5, 25),
            node_grace: Duration::from_secs(50),
            eviction_delay: Duration::from_secs(300),
        }
    }
}
