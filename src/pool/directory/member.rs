//! The state that the directory (the task that maintains the set of Pods) keeps for each Pod in use.

use std::sync::Arc;

use tokio::task::AbortHandle;

use super::{absent::Absent, members::MemberInfo, part::Part};
use crate::{
    endpoint::{Endpoint, Role, slot::SlotHandle},
    health::{
        State, candidates,
        fencing::{Claim, Extent, Fence},
        lag::{Lag, Reading, Standby},
        state::{Health, HealthEvent},
        suspicion::Suspicion,
    },
    pool::pod::{
        Pod,
        prober::{self, Condition},
        view::PodHealth,
    },
    time::Instant,
    trace::pod_line,
    wire::server_facts::ServerFacts,
};

/// A Pod, its health, and the task that probes it. Dropping the member aborts the task.
#[derive(Debug)]
pub(crate) struct Member {
    /// The Pod of the first pool, on whose behalf it is probed.
    pub(crate) pod: Arc<Pod>,
    /// The Pod's endpoint with the weight, priority and hosts of the latest lookup.
    pub(super) named_as: Endpoint,
    /// The part of each pool, in the order of the directory's pools.
    pub(super) parts: Vec<Part>,
    pub(crate) health: Health,
    /// The role that the server reported last.
    pub(crate) role: Role,
    /// True if the role has changed since the last probe, or if the server has contradicted it by refusing a write.
    /// Until the next probe, the Pod is not a candidate for targets that require a role.
    pub(crate) role_unverified: bool,
    /// The result of the last passed probe.
    pub(crate) last_probe: Option<PassedProbe>,
    pub(crate) fence: Option<Fence>,
    /// The confirmed absence of the Pod from DNS. `None` if DNS names the Pod.
    pub(super) absent: Option<Absent>,
    /// True if the absence has just been confirmed and no decision has been made about it.
    pub(super) absence_is_new: bool,
    /// The address that is used instead of this one, if both are addresses of the same dual-stack Pod.
    pub(super) alternative_of: Option<Endpoint>,
    /// True if the Pod passes its probes and claims what the fence rejects.
    pub(crate) fence_confirmed: bool,
    /// True if an event has reported the current fence.
    pub(crate) fence_reported: bool,
    pub(crate) lag: Lag,
    /// True for a standby that follows a former primary.
    pub(crate) follows_former: bool,
    /// True if an event has reported that the standby is late.
    pub(crate) late_reported: bool,
    /// Time of the first of the latest consecutive probes that found a standby without a WAL receiver.
    disconnected_since: Option<Instant>,
    /// The purpose for which this client uses the Pod.
    pub(crate) usage: Usage,
    unresponsive: Option<Unresponsive>,
    pub(crate) suspicion: Suspicion,
    /// Set while an ejected primary passes its probes but has not returned yet: all other Pods that pass their probes
    /// must respond to a probe that was sent after this time, because one of them may have been promoted.
    pub(crate) returning_since: Option<Instant>,
    /// Time of the last failed probe.
    pub(crate) probe_failed_at: Option<Instant>,
    /// The state by which the prober chooses its interval.
    condition: Arc<Condition>,
    prober: AbortHandle,
}

/// The purpose for which a client uses a Pod.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Usage {
    /// All targets whose requirements the Pod fulfills.
    #[default]
    Full,
    /// Targets that need the Pod's role, because no Pod of the client's subset has this role.
    Role,
    /// Measuring the replication lag of the standbys. Callers have not requested the Pod's role.
    Lag,
}

/// The result of a probe that has passed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PassedProbe {
    pub(crate) facts: ServerFacts,
    /// Time at which the query was sent.
    pub(crate) sent: Instant,
    /// Time at which the response was received.
    pub(crate) received: Instant,
}

/// The start of a period in which a probe waits for a response and the Pod sends nothing.
#[derive(Clone, Copy, Debug)]
struct Unresponsive {
    since: Instant,
    /// Number of socket reads at the start of the period. A higher number later means that the Pod has sent something
    /// since.
    reads: u64,
}

impl Member {
    /// Creates a member for a new Pod and spawns its prober. `pods` contains the Pod of each pool, at least one.
    pub(crate) fn new(pods: Vec<Arc<Pod>>) -> Self {
        let pod = pods[0].clone();
        let condition = Arc::new(Condition::default());
        let prober = prober::spawn(&pod, &condition);
        Self {
            named_as: pod.endpoint.clone(),
            pod,
            parts: pods.into_iter().map(Part::new).collect(),
            health: Health::new(),
            role: Role::Unknown,
            role_unverified: false,
            last_probe: None,
            fence: None,
            absent: None,
            absence_is_new: false,
            alternative_of: None,
            fence_confirmed: false,
            fence_reported: false,
            lag: Lag::default(),
            follows_former: false,
            late_reported: false,
            disconnected_since: None,
            usage: Usage::default(),
            unresponsive: None,
            suspicion: Suspicion::default(),
            returning_since: None,
            probe_failed_at: None,
            condition,
            prober,
        }
    }

    /// Applies a health event. If the event has changed the state, returns the previous state.
    pub(crate) fn apply(&mut self, event: HealthEvent, now: Instant) -> Option<State> {
        let before = self.health.apply(event, now);
        self.condition.set_healthy(self.health.state() == State::Healthy);
        before
    }

    /// Returns true if the Pod passes its probes, even if it does not receive traffic yet.
    pub(crate) fn passes_probes(&self) -> bool {
        self.health.passing() || self.returning_since.is_some()
    }

    /// Returns true if the Pod is healthy and not fenced.
    pub(crate) fn is_sound(&self) -> bool {
        self.health.state() == State::Healthy && self.fence.is_none()
    }

    /// Returns true if the Pod is healthy, not fenced, not detached and not an alternative address.
    pub(crate) fn serves(&self) -> bool {
        self.is_sound() && !self.is_detached() && !self.is_alternative()
    }

    /// Makes the next check of the Pod a probe, so that it reports its facts.
    pub(crate) fn query_at_next_check(&self) {
        self.condition.request_query();
    }

    /// Updates the state by which the prober chooses between Syncs and probes.
    pub(crate) fn update_condition(&self) {
        let is_settled = !self.role_unverified && !self.suspicion.is_suspect();
        self.condition.set_primary(self.role == Role::Primary && is_settled);
        self.condition
            .set_awaits_promotion(self.is_sound() && self.role == Role::Standby && !self.is_late() && is_settled);
    }

    /// Adds the part of a pool that has joined the group.
    pub(super) fn join(&mut self, pod: Arc<Pod>) {
        self.parts.push(Part::new(pod));
    }

    /// Removes the part of a pool that has left the group. If it was the first pool, the next one probes the Pod.
    pub(super) fn leave(&mut self, pool: usize) -> Arc<Pod> {
        let left = self.parts.remove(pool).pod.clone();
        left.server.remove(&left);
        if let Some(first) = self.parts.first().map(|part| &part.pod).filter(|first| !Arc::ptr_eq(first, &self.pod)) {
            self.pod = first.clone();
            self.prober.abort();
            self.prober = prober::spawn(&self.pod, &self.condition);
            if let Some(absent) = &mut self.absent {
                absent.test_as(&self.pod);
            }
        } else {
            // The probe's own connection may be one of the pool that has left.
            left.server.probe_wanted.notify_one();
        }
        left
    }

    /// Invalidates the open connections of all pools.
    pub(super) fn purge(&self) {
        self.parts.iter().for_each(|part| part.pod.purge());
    }

    /// Returns the Pod of each pool.
    pub(super) fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.parts.iter().map(|part| &part.pod)
    }

    /// Returns the part of the member's state that is published in the view of a pool.
    pub(crate) fn pod_health(&self, pool: usize) -> PodHealth {
        let part = &self.parts[pool];
        // The timeline that a server reported in another role may be a former one.
        let reported = self.last_probe.filter(|probe| probe.facts.role == self.role);
        PodHealth {
            state: self.health.state(),
            role: self.role,
            timeline: reported.and_then(|probe| probe.facts.timeline),
            fence: self.fence,
            fence_confirmed: self.fence_confirmed,
            late: self.is_late(),
            suspect: self.suspicion.is_suspect(),
            absent: self.standing(),
            alternative_of: self.alternative_of.clone(),
            warm: self.usage != Usage::Lag && !self.is_alternative(),
            slots: part.slots,
            refused: part.pod.access.is_refused(),
        }
    }

    /// Returns true if the Pod is a standby that must not be used, because its data is too old or it follows a former
    /// primary.
    pub(crate) fn is_late(&self) -> bool {
        self.role == Role::Standby && (self.lag.late || self.lag.upstream_lost || self.follows_former)
    }

    /// Returns the reason why a standby is late.
    pub(crate) fn cause_of_lateness(&self) -> String {
        let facts = self.last_probe.map(|probe| probe.facts).unwrap_or_default();
        match (self.follows_former, facts.timeline, facts.receiving, self.lag) {
            (true, Some(timeline), ..) => format!("it follows a former primary on timeline {timeline}"),
            (_, _, Some(false), _) => "it receives no write-ahead log".into(),
            (.., Lag { bytes: Some(bytes), time: Some(time), .. }) => {
                format!("it has not replayed {bytes} bytes of write-ahead log, and its data is {time:.1?} old")
            }
            _ => "its replication lag exceeds the limit".into(),
        }
    }

    /// Returns the role and timeline that the server claims. Stale primaries are detected from these claims.
    pub(crate) fn claim(&self) -> Claim {
        let facts = self.last_probe.map(|probe| probe.facts).unwrap_or_default();
        let complete = facts.role == Role::Primary || facts.receiving_timeline.is_some();
        Claim {
            pod: self.pod.serial,
            role: facts.role,
            system: facts.system,
            started: facts.started,
            timeline: facts.timeline,
            extent: if complete { Extent::Complete } else { Extent::UpTo(facts.recorded.unwrap_or(0)) },
            position: facts.position,
            queried: self.last_probe.map(|probe| probe.sent),
            passing: self.passes_probes(),
            named: self.absent.is_none(),
        }
    }

    /// Records the result of a passed probe. A standby that reported a timeline earlier, since the start of its server,
    /// still has that timeline.
    pub(crate) fn probe_passed(&mut self, mut probe: PassedProbe) {
        let before = self.last_probe.map(|probe| probe.facts).unwrap_or_default();
        if probe.facts.role == Role::Standby
            && (probe.facts.system, probe.facts.started) == (before.system, before.started)
        {
            probe.facts.timeline = probe.facts.timeline.max(before.timeline);
        }
        let disconnected = probe.facts.receiving == Some(false);
        self.disconnected_since = disconnected.then(|| self.disconnected_since.unwrap_or(probe.sent));
        self.last_probe = Some(probe);
    }

    /// Returns the write-ahead log position at the last passed probe: written by a primary, or replayed by a standby.
    pub(crate) fn reading(&self) -> Option<Reading> {
        let PassedProbe { facts, sent, received } = self.last_probe?;
        Some(Reading { position: facts.position?, sent, received })
    }

    /// Returns the replication state at the last passed probe, if the server was a standby.
    pub(crate) fn standby(&self) -> Option<Standby> {
        let PassedProbe { facts, .. } = self.last_probe.filter(|probe| probe.facts.role == Role::Standby)?;
        let reading = self.reading()?;
        let disconnected_for = self.disconnected_since.map(|since| reading.sent.saturating_duration_since(since));
        Some(Standby {
            reading,
            receiving: facts.receiving?,
            replayed_ago: facts.replayed_ago,
            disconnected_for: disconnected_for.unwrap_or_default(),
        })
    }

    /// Returns the role, or [`Role::Unknown`] while it is not verified.
    pub(super) fn verified_role(&self) -> Role {
        if self.role_unverified { Role::Unknown } else { self.role }
    }

    /// Returns true if the sessions of all pools on the Pod are read-only by default.
    pub(super) fn is_read_only(&self) -> bool {
        self.pods().all(|pod| pod.access.is_read_only())
    }

    /// Returns true if the Pod is fenced, or must not be used for a reason with the same consequence.
    pub(super) fn is_excluded(&self) -> bool {
        self.fence.is_some() || self.is_detached() || self.is_alternative()
    }

    /// Returns true if the Pod serves as a primary and its role is verified.
    pub(crate) fn is_primary(&self) -> bool {
        self.verified_role() == Role::Primary && self.serves()
    }

    /// Records that a probe that began at `since` timed out, and that no connection to the Pod has received anything
    /// since then.
    pub(crate) fn mark_unresponsive(&mut self, since: Instant) {
        let reads = self.pod.server.reads();
        if self.unresponsive.is_none_or(|before| before.reads != reads) {
            self.unresponsive = Some(Unresponsive { since, reads });
        }
    }

    /// Records that the Pod has responded.
    pub(crate) fn mark_responsive(&mut self) {
        self.unresponsive = None;
    }

    /// Returns the time at which the Pod became unresponsive, or `None` if it is responsive.
    pub(crate) fn unresponsive_since(&self) -> Option<Instant> {
        self.unresponsive.map(|unresponsive| unresponsive.since)
    }

    /// Closes all connections if the Pod has sent nothing since it was marked as unresponsive.
    pub(crate) fn abort_unresponsive(&mut self) {
        let Some(Unresponsive { reads, .. }) = self.unresponsive.take() else { return };
        let is_unresponsive = self.pod.server.reads() == reads;
        let abort = || self.pods().map(|pod| pod.connections.abort_all()).sum();
        let connections: usize = if is_unresponsive { abort() } else { 0 };
        if connections > 0 {
            pod_line!(warn, self.pod, connections, "closed connections in use: the Pod is unresponsive");
        }
    }
}

impl MemberInfo for Member {
    type Pod = Arc<Pod>;

    fn endpoint(&self) -> &Endpoint {
        &self.pod.endpoint
    }

    fn slot(&self, pool: usize) -> &SlotHandle {
        &self.parts[pool].pod.slot
    }

    fn eligibility(&self, pool: usize) -> candidates::Eligibility {
        let access = &self.parts[pool].pod.access;
        candidates::Eligibility {
            priority: self.named_as.priority(),
            // For the pool, a Pod that refuses its logins is like one that has not passed a probe yet.
            state: if access.is_refused() { State::Probing } else { self.health.state() },
            role: self.verified_role(),
            read_only: access.is_read_only(),
            fenced: self.is_excluded(),
            late: self.is_late(),
            suspect: self.suspicion.is_suspect(),
            role_only: self.usage != Usage::Full,
        }
    }

    fn pod(&self, pool: usize) -> Arc<Pod> {
        self.parts[pool].pod.clone()
    }

    fn update(&mut self, endpoint: &Endpoint) {
        self.named_as = endpoint.clone();
        self.pod.server.set_named_as(endpoint);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.prober.abort();
    }
}
