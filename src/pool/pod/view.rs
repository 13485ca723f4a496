//! The published state of the pool: an immutable [`View`] of all Pods. Checkouts and waiting callers read it.

use std::sync::Arc;

use super::Pod;
use crate::{
    endpoint::{Endpoint, Role, snapshot::Snapshot},
    health::{State, fencing::Fence},
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
    pub(crate) fence: Option<Fence>,
    /// True for a standby whose replication lag exceeds the limit.
    pub(crate) late: bool,
    /// True if `min_idle` connections to the Pod are kept idle. False if the client uses the Pod only to measure
    /// replication lag.
    pub(crate) warm: bool,
    /// Maximum number of connections that the server allows for this login role and database, over all clients
    /// together.
    pub(crate) slots: Option<u32>,
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
}
