//! What the directory publishes: the Pods with their candidates, and what a caller who waits must know.

use std::sync::Arc;

use super::Pod;
use crate::{
    endpoint::{Endpoint, Role, snapshot::Snapshot},
    health::{State, fencing::Fence, lag::Lag},
    time::Instant,
};

/// One published state of the pool. Never changed, replaced whole.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) snapshot: Snapshot<Arc<Pod>>,
    /// How each of the snapshot's Pods is, in the same order.
    pub(crate) health: Vec<PodHealth>,
    /// Pods behind the name that this client does not use.
    pub(crate) unused: Arc<[Endpoint]>,
    /// Since when no Pod has passed a probe, while none does.
    pub(crate) silent_since: Option<Instant>,
    /// The pool is closed, or closing.
    pub(crate) closed: bool,
}

/// How one Pod is.
#[derive(Clone, Debug)]
pub(crate) struct PodHealth {
    pub(crate) state: State,
    pub(crate) role: Role,
    pub(crate) fence: Option<Fence>,
    pub(crate) lag: Option<Lag>,
    /// Connections that its server has for roles like ours.
    pub(crate) slots: Option<u32>,
}

impl View {
    /// Returns the view before the first lookup and after the pool has closed: no Pods.
    pub(crate) fn empty() -> Self {
        Self {
            snapshot: Snapshot::empty(),
            health: Vec::new(),
            unused: Arc::from([]),
            silent_since: None,
            closed: false,
        }
    }

    /// The Pods, and how each of them is.
    pub(crate) fn pods(&self) -> impl Iterator<Item = (&Arc<Pod>, &PodHealth)> {
        self.snapshot.pods().map(|(_, pod)| pod).zip(&self.health)
    }
}
