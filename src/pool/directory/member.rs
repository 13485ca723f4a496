//! One Pod as the directory knows it.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::task::AbortHandle;

use super::members::MemberInfo;
use crate::{
    endpoint::{Endpoint, Role, slot::SlotHandle},
    health::{
        State, candidates,
        fencing::{Claim, Fence},
        lag::{Lag, Reading, Standby},
        state::{Health, HealthEvent},
    },
    pool::pod::{Pod, prober, view::PodHealth},
    time::Instant,
    wire::facts::ServerFacts,
};

/// One Pod, its health, and the task that probes it.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) pod: Arc<Pod>,
    pub(crate) health: Health,
    /// What the server said that it is.
    pub(crate) role: Role,
    /// That has changed, or was contradicted, since the last probe: it is nobody's primary until the next one.
    pub(crate) role_unverified: bool,
    pub(crate) read_only: bool,
    /// What the last passed probe found, and when it was asked and answered.
    pub(crate) found: Option<(ServerFacts, Instant, Instant)>,
    pub(crate) fence: Option<Fence>,
    pub(crate) lag: Lag,
    /// What was said last of its connections being too few.
    pub(crate) shortfall: Option<String>,
    /// Since when nothing at all was reads from it while it was asked, and how many reads had brought something then.
    silence: Option<(Instant, u64)>,
    /// What the prober reads to choose its pace. Relaxed: a hint.
    healthy: Arc<AtomicBool>,
    prober: AbortHandle,
}

impl Member {
    /// A new Pod, and its prober.
    pub(crate) fn new(pod: Arc<Pod>) -> Self {
        let healthy = Arc::new(AtomicBool::new(false));
        let is_healthy = {
            let healthy = healthy.clone();
            move || healthy.load(Ordering::Relaxed)
        };
        let prober = pod.shared().runtime.spawn(prober::run(pod.clone(), is_healthy)).abort_handle();
        Self {
            pod,
            health: Health::new(),
            role: Role::Unknown,
            role_unverified: false,
            read_only: false,
            found: None,
            fence: None,
            lag: Lag::default(),
            shortfall: None,
            silence: None,
            healthy,
            prober,
        }
    }

    /// Takes a fact in. Gives the state before, if it changed.
    pub(crate) fn apply(&mut self, fact: HealthEvent, now: Instant) -> Option<State> {
        let before = self.health.apply(fact, now);
        self.healthy.store(self.health.state() == State::Healthy, Ordering::Relaxed);
        before
    }

    /// Whether it serves.
    pub(crate) fn serves(&self) -> bool {
        self.health.state() == State::Healthy && self.fence.is_none()
    }

    /// Returns the part of this state that is published with the Pod.
    pub(crate) fn pod_health(&self) -> PodHealth {
        let lag = (self.role == Role::Standby).then_some(self.lag);
        PodHealth { state: self.health.state(), role: self.role, fence: self.fence, lag, slots: self.slots() }
    }

    /// What it says of itself.
    pub(crate) fn claim(&self) -> Claim {
        let facts = self.found.map(|(facts, ..)| facts).unwrap_or_default();
        Claim {
            pod: self.pod.serial,
            role: facts.role,
            system: facts.system,
            timeline: facts.timeline,
            passing: self.health.passing(),
        }
    }

    /// How far it had written or replayed, when it was asked last.
    pub(crate) fn reading(&self) -> Option<Reading> {
        let (facts, asked, at) = self.found?;
        Some(Reading { position: facts.position?, asked, at })
    }

    /// What it said as a standby, if it is one.
    pub(crate) fn standby(&self) -> Option<Standby> {
        let (facts, ..) = self.found.filter(|(facts, ..)| facts.role == Role::Standby)?;
        Some(Standby { reading: self.reading()?, receiving: facts.receiving?, replayed_ago: facts.replayed_ago })
    }

    /// Connections that its server has for roles like ours.
    pub(crate) fn slots(&self) -> Option<u32> {
        self.found.and_then(|(facts, ..)| facts.slots)
    }

    /// Whether it serves as a primary.
    pub(crate) fn is_primary(&self) -> bool {
        self.eligibility().role == Role::Primary && self.serves()
    }

    /// It was asked and said nothing: neither to that, nor on any other connection.
    pub(crate) fn fell_silent(&mut self, asked: Instant) {
        let reads = self.pod.totals().reads;
        if self.silence.is_none_or(|(_, before)| before != reads) {
            self.silence = Some((asked, reads));
        }
    }

    /// Since when it has said nothing, if it does.
    pub(crate) fn silent_since(&self) -> Option<Instant> {
        self.silence.map(|(since, _)| since)
    }

    /// Cuts what still waits for it, unless something was reads meanwhile.
    pub(crate) fn abort_unresponsive(&mut self) {
        let Some((_, before)) = self.silence.take() else { return };
        let cut = if self.pod.totals().reads == before { self.pod.cut() } else { 0 };
        if cut > 0 {
            tracing::warn!(endpoint = %self.pod.endpoint, connections = cut, "cut: silent for too long");
        }
    }

    /// It said something.
    pub(crate) fn spoke(&mut self) {
        self.silence = None;
    }
}

impl MemberInfo for Member {
    type Pod = Arc<Pod>;

    fn endpoint(&self) -> &Endpoint {
        &self.pod.endpoint
    }

    fn slot(&self) -> &SlotHandle {
        &self.pod.slot
    }

    fn eligibility(&self) -> candidates::Eligibility {
        candidates::Eligibility {
            state: self.health.state(),
            role: if self.role_unverified { Role::Unknown } else { self.role },
            read_only: self.read_only,
            fenced: self.fence.is_some(),
            late: self.role == Role::Standby && self.lag.late,
        }
    }

    fn pod(&self) -> Arc<Pod> {
        self.pod.clone()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.prober.abort();
    }
}
