//! What the directory publishes: the Pods with their candidates, and what a caller who waits must know.

use std::sync::Arc;

use super::pod::Pod;
use crate::{
    endpoint::{Role, snapshot::Snapshot},
    health::State,
    time::Instant,
};

/// One published state of the pool. Never changed, replaced whole.
#[derive(Debug)]
pub(crate) struct View {
    pub(crate) snapshot: Snapshot<Arc<Pod>>,
    /// State and role of each of the snapshot's Pods.
    pub(crate) health: Vec<(State, Role)>,
    /// Since when no Pod has passed a probe, while none does.
    pub(crate) silent_since: Option<Instant>,
    pub(crate) resolved: Resolved,
    /// The pool is closed, or closing.
    pub(crate) closed: bool,
}

/// How the name's resolution goes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resolved {
    /// When the name was resolved last.
    pub(crate) at: Option<Instant>,
    /// Failures in a row since.
    pub(crate) failures: u64,
    /// The last failure, if nothing came after it.
    pub(crate) error: Option<Arc<str>>,
}

impl View {
    /// The Pods with state and role.
    pub(crate) fn pods(&self) -> impl Iterator<Item = (&Arc<Pod>, State, Role)> {
        self.snapshot.pods().iter().zip(&self.health).map(|(pod, &(state, role))| (pod, state, role))
    }
}
