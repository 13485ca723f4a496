//! The published state of the pool: an immutable [`View`] of all Pods that checkouts and waiters read.

use std::sync::Arc;

use super::Pod;
use crate::{
    endpoint::{Endpoint, Role, snapshot::Snapshot},
    health::{State, fencing::Fence, lag::Lag},
    time::Instant,
};

/// One published state of the pool. Immutable; the directory replaces it as a whole.
#[derive(Debug)]
pub(crate) struct View {
    /// The Pods in use and the candidates for each target.
    pub(crate) snapshot: Snapshot<Arc<Pod>>,
    /// The health of each Pod of the snapshot, in the same order.
    pub(crate) health: Vec<PodHealth>,
    /// Pods behind the name that this client does not use.
    pub(crate) unused: Arc<[Endpoint]>,
    /// Start of the time without a healthy Pod, while there are Pods and none is healthy.
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
    pub(crate) lag: Option<Lag>,
    /// Connections that the server allows for sessions of this role and database, all clients together.
    pub(crate) slots: Option<u32>,
}

impl View {
    /// Returns the view before the first lookup and after the pool has closed: no Pods.
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
