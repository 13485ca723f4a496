//! One Pod as the directory knows it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::task::AbortHandle;

use super::{pod::Pod, prober, roster::Member};
use crate::{
    endpoint::{Endpoint, Role, slot::SlotHandle},
    health::{
        State,
        candidates::Facts,
        state::{Fact, Health},
    },
    time::Instant,
};

/// One Pod, its health, and the task that probes it.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) pod: Arc<Pod>,
    pub(crate) health: Health,
    pub(crate) role: Role,
    pub(crate) read_only: bool,
    /// When a probe passed last.
    pub(crate) passed: Option<Instant>,
    /// What the prober reads to choose its pace. Relaxed: a hint.
    healthy: Arc<AtomicBool>,
    prober: AbortHandle,
}

impl Entry {
    /// A new Pod, and its prober.
    pub(crate) fn new(pod: Arc<Pod>) -> Self {
        let healthy = Arc::new(AtomicBool::new(false));
        let is_healthy = {
            let healthy = healthy.clone();
            move || healthy.load(Ordering::Relaxed)
        };
        let prober = pod.common().runtime.spawn(prober::run(pod.clone(), is_healthy)).abort_handle();
        Self { pod, health: Health::new(), role: Role::Unknown, read_only: false, passed: None, healthy, prober }
    }

    /// Takes a fact in. Gives the state before, if it changed.
    pub(crate) fn apply(&mut self, fact: Fact, now: Instant) -> Option<State> {
        let before = self.health.apply(fact, now);
        self.healthy.store(self.health.state() == State::Healthy, Ordering::Relaxed);
        before
    }
}

impl Member for Entry {
    fn endpoint(&self) -> &Endpoint {
        &self.pod.endpoint
    }

    fn slot(&self) -> &SlotHandle {
        &self.pod.slot
    }

    fn facts(&self) -> Facts {
        Facts { state: self.health.state(), role: self.role, read_only: self.read_only }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.prober.abort();
    }
}
