//! Pods: the object of the API server, and the state of the kubelet that runs it.

use std::{fmt, net::IpAddr, time::Duration};

use tokio::time::Instant;

/// The identity of a Pod. A Pod that is created again under the same name has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uid(pub u64);

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The properties of a Pod that a container runtime receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodInfo {
    /// The identity of this Pod, not of its name.
    pub uid: Uid,
    /// The name of the StatefulSet, a dash, and the ordinal.
    pub name: String,
    /// The place in the StatefulSet, from 0.
    pub ordinal: u32,
    /// The node that runs the Pod.
    pub node: String,
    /// One address for each IP family of the Service, in its order.
    pub addresses: Vec<IpAddr>,
    /// The revision of the StatefulSet's template.
    pub revision: u32,
    /// How often the container was restarted in place.
    pub restarts: u32,
}

/// A Pod.
#[derive(Clone, Debug)]
pub struct Pod {
    /// The properties that do not depend on its health.
    pub info: PodInfo,
    /// The condition `Ready`, as the API server has it.
    pub ready: bool,
    /// The deletion, as the API server has it.
    pub deletion: Option<Deletion>,
    /// Whether the API server does not have the Pod any more, although its process may run.
    pub is_gone: bool,
    /// Whether the Pod has the labels that the Service selects.
    pub is_selected: bool,
    pub(super) container: Container,
}

/// The deletion of a Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// Time from the beginning of the preStop hook to SIGKILL.
    pub grace: Duration,
}

/// The state of a Pod's container on its node.
#[derive(Clone, Debug)]
pub(super) struct Container {
    pub(super) state: State,
    /// The addresses that the node has for the Pod. The API server may still have those of an earlier network.
    pub(super) network: Vec<IpAddr>,
    /// Whether enough probes in a row have succeeded.
    pub(super) passes_probe: bool,
    /// Results of the probe in a row that contradict `passes_probe`.
    pub(super) contradictions: u32,
    /// The readiness that an operator has set, instead of the probe's.
    pub(super) held: Option<bool>,
    /// Distinguishes the timers of this process from those of an earlier one.
    pub(super) run: u32,
    pub(super) back_off: BackOff,
    /// When the kubelet began to end the container.
    pub(super) ending: Option<Instant>,
    /// Whether the stop signal was sent.
    pub(super) is_stopping: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The network and the volumes of the Pod are set up.
    Creating,
    Running,
    /// The process has ended and is started again, if the Pod is not deleted.
    Waiting,
    /// The process has ended for the last time.
    Ended,
}

impl Container {
    pub(super) fn new() -> Self {
        Self {
            state: State::Creating,
            network: Vec::new(),
            passes_probe: false,
            contradictions: 0,
            held: None,
            run: 0,
            back_off: BackOff::default(),
            ending: None,
            is_stopping: false,
        }
    }

    /// Whether the kubelet reports the Pod as ready.
    pub(super) fn is_ready(&self) -> bool {
        self.state == State::Running && self.held.unwrap_or(self.passes_probe)
    }
}

/// The kubelet's back-off of restarts: none for the first, then 10 s, doubled up to 5 min.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct BackOff {
    pause: Duration,
    updated: Option<Instant>,
}

impl BackOff {
    const FIRST: Duration = Duration::from_secs(10);
    const LAST: Duration = Duration::from_secs(300);

    /// Returns the pause before the restart of a process that ends at `now`. A process that ran for more than twice
    /// the longest pause starts again without one.
    pub(super) fn next(&mut self, now: Instant) -> Duration {
        if self.updated.is_none_or(|updated| now - updated > 2 * Self::LAST) {
            *self = Self { pause: Self::FIRST, updated: Some(now) };
            return Duration::ZERO;
        }
        let pause = self.pause;
        *self = Self { pause: (pause * 2).min(Self::LAST), updated: Some(now + pause) };
        pause
    }
}
