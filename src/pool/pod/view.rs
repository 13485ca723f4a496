//! The published state of the pool: an immutable [`View`] of all Pods. Checkouts and waiting callers read it.

use std::sync::Arc;

use super::Pod;
use crate::{
    endpoint::{Endpoint, Role, snapshot::Snapshot},
    health::{State, absence::Standing, fencing::Fence},
    time::Instant,
};

/// One published state of the pool. Immutable: after a change, the directory task publishes a new view.
#[derive(Debug)]
pub(crate) struct View {
    /// The Pods in use, and for each target (requested role) the Pods that can serve it.
    pub(crate) snapshot: Snapshot<Arc<Pod>>,
    /// The health of each Pod of the snapshot, in the same order.
    pub(crate) health: Vec<PodHealth>,
    /// Pods behind the Service name that this client does not use, because of `subset_size` or `max_connections`.
    pub(crate) unused: Arc<[Endpoint]>,
    /// Time since which no Pod has been healthy. `None` if a Pod is healthy, or if there are no Pods.
    pub(crate) none_healthy_since: Option<Instant>,
    /// True if the pool is closed or closing.
    pub(crate) closed: bool,
}

/// The health of one Pod.
#[derive(Clone, Debug)]
pub(crate) struct PodHealth {
    pub(crate) state: State,
    pub(crate) role: Role,
    /// The highest timeline that the server is known to have.
    pub(crate) timeline: Option<u32>,
    pub(crate) fence: Option<Fence>,
    /// The use of a Pod that is absent from DNS. `None` if DNS names the Pod.
    pub(crate) absent: Option<Standing>,
    /// The address that is used instead of this one, if both are addresses of the same dual-stack Pod.
    pub(crate) alternative_of: Option<Endpoint>,
    /// True if the Pod passes its probes and claims what the fence rejects. False for a primary that has failed and
    /// whose last known timeline is outdated.
    pub(crate) fence_confirmed: bool,
    /// True for a standby whose replication lag exceeds the limit, or that follows a former primary.
    pub(crate) late: bool,
    /// True if a session of the Pod has ended and the Pod has not responded since then. Other Pods are preferred.
    pub(crate) suspect: bool,
    /// True if `min_idle` connections to the Pod are kept open. False if the client uses the Pod only to measure
    /// replication lag, and for an alternative address.
    pub(crate) warm: bool,
    /// True if the server refuses the logins of the pool, and the pool has no connection to it.
    pub(crate) refused: bool,
    /// Maximum number of connections that the server allows for this login role and database, over all clients
    /// together.
    pub(crate) slots: Option<u32>,
}

impl PodHealth {
    /// Returns true if the Pod is absent from DNS and not used.
    pub(crate) fn is_detached(&self) -> bool {
        self.absent == Some(Standing::Detached)
    }

    /// Returns the value of the label `state` in metrics: the health state, or the standing of a healthy Pod that is
    /// absent from DNS.
    #[cfg(feature = "_metrics")]
    pub(crate) fn state_label(&self) -> &'static str {
        match self.absent {
            Some(standing) if self.state == State::Healthy => standing.as_str(),
            _ => self.state.as_str(),
        }
    }

    /// Returns all values of the label `state` in metrics.
    #[cfg(feature = "_metrics")]
    pub(crate) fn state_labels() -> impl Iterator<Item = &'static str> {
        State::ALL.iter().map(|state| state.as_str()).chain(Standing::ALL.iter().map(|standing| standing.as_str()))
    }

    /// Returns true if the Pod is up, and accepts the logins of the pool.
    pub(crate) fn is_usable(&self) -> bool {
        self.is_up() && !self.refused
    }

    /// Returns true if the Pod is healthy, not fenced, not detached and not an alternative address.
    pub(crate) fn is_up(&self) -> bool {
        self.state == State::Healthy && self.fence.is_none() && !self.is_detached() && self.alternative_of.is_none()
    }

    /// Returns true if the Pod's fence must be reported: it is confirmed, or the Pod is healthy, so that nothing else
    /// explains why it gets no traffic.
    pub(crate) fn reports_fence(&self) -> bool {
        self.fence.is_some() && (self.fence_confirmed || self.state == State::Healthy)
    }
}

impl View {
    /// Returns a view without Pods, as before the first lookup and after the pool has closed.
    pub(crate) fn empty() -> Self {
        Self {
            snapshot: Snapshot::empty(),
            health: Vec::new(),
            unused: Arc::from([]),
            none_healthy_since: None,
            closed: false,
        }
    }

    /// Returns the Pods, each with its health.
    pub(crate) fn pods(&self) -> impl Iterator<Item = (&Arc<Pod>, &PodHealth)> {
        self.snapshot.pods().map(|(_, pod)| pod).zip(&self.health)
    }

    /// Returns the Pods, each with its health, without the alternative addresses of dual-stack Pods.
    pub(crate) fn servers(&self) -> impl Iterator<Item = (&Arc<Pod>, &PodHealth)> {
        self.pods().filter(|(_, health)| health.alternative_of.is_none())
    }
}
