//! The health of the Pods: applies probe results and evidence from connections, ejects and readmits Pods, and closes
//! the connections of unresponsive Pods.

use super::{
    Directory,
    drain::unresponsive_timeout,
    member::{Member, PassedProbe},
    part::Part,
};
use crate::{
    endpoint::Role,
    error::{Attempt, BoxError, Phase},
    event::Event,
    health::{State, state::HealthEvent, suspicion::Conclusion},
    pool::pod::{counters::ejections, message::Probed, prober::PROBE_GENERATION},
    sync::lock,
    time::{Duration, Instant},
    trace::{pod_line, pool_line},
    wire::{Class, classify::class, connection_observer::Evidence},
};

/// For this long after a probe has found a primary, a refused write on that Pod is ignored.
const VERIFIED_FOR: Duration = Duration::from_secs(1);

impl Directory {
    /// Returns the member (a Pod in use) with this serial number. Returns `None` if the Pod has been removed; messages
    /// about it are then ignored.
    pub(super) fn find(&mut self, serial: u64) -> Option<&mut Member> {
        self.members.all_mut().iter_mut().find(|member| member.pod.serial == serial)
    }

    pub(super) fn probe_now(&mut self, serial: u64) {
        if let Some(member) = self.find(serial) {
            member.pod.server.probe_wanted.notify_one();
        }
    }

    pub(super) fn on_probed(&mut self, serial: u64, outcome: Probed, now: Instant) {
        self.apply_probe(serial, outcome, now);
        self.return_primaries(now);
    }

    fn apply_probe(&mut self, serial: u64, outcome: Probed, now: Instant) {
        match outcome {
            Probed::Passed { facts, read_only, took, sent, received, pool } => {
                let alone = self.is_alone(serial, facts.role);
                let is_shared = self.pools.len() > 1;
                let returns_later = self.must_ask_others(serial, facts.role, now);
                let Some(member) = self.find(serial) else { return };
                member.mark_responsive();
                let suspicion_ended = member.suspicion.responded(sent);
                let was_unverified = std::mem::take(&mut member.role_unverified);
                let (access_changed, slots_changed) = member.probed_as(pool, read_only, facts, is_shared);
                let timeline = member.last_probe.and_then(|probe| probe.facts.timeline);
                let identity = member.identity();
                member.probe_passed(PassedProbe { facts, sent, received });
                let identity_changed = identity != member.identity();
                let timeline_changed = timeline != member.last_probe.and_then(|probe| probe.facts.timeline);
                self.changed |=
                    was_unverified || access_changed || timeline_changed || suspicion_ended || identity_changed;
                let Some(member) = self.find(serial) else { return };
                member.pod.server.record_probe(took);
                let endpoint = member.pod.endpoint.clone();
                self.on_role(serial, facts.role);
                let returned = !returns_later && self.apply(serial, HealthEvent::Passed { alone }, now, None);
                self.on_probe_passed(&endpoint, returned, now);
                if slots_changed {
                    self.check_capacity(serial);
                }
                self.judge(serial);
            }
            Probed::Failed { conclusive, unresponsive_since, class, attempt, pool } => {
                let is_shared = self.pools.len() > 1;
                let Some(member) = self.find(serial) else { return };
                member.returning_since = None;
                member.probe_failed_at = Some(now);
                self.changed |= member.failed_as(pool, class, &attempt, is_shared);
                let Some(member) = self.find(serial) else { return };
                if class == Class::Credentials {
                    return; // the credentials were not available, so the Pod was not probed
                }
                if class.is_permanent() {
                    // Wakes the opener, because waiters may now have to fail immediately.
                    member.pods().for_each(|pod| pod.shared().waiters.wake_opener());
                }
                let endpoint = member.pod.endpoint.clone();
                if (class.is_permanent() || class == Class::Full) && member.is_sound() {
                    member.suspicion.clear(); // the server has responded
                    self.changed = true;
                    let Some(member) = self.find(serial) else { return };
                    // The Pod refuses only new connections. Existing connections still work, so the Pod stays in use.
                    pod_line!(warn, member.pod, error = %attempt, "Pod kept in use although its probe was refused");
                    return if class == Class::Full {
                        self.on_full(serial, now)
                    };
                }
                match unresponsive_since {
                    Some(since) => member.mark_unresponsive(since),
                    None => member.mark_responsive(),
                }
                if member.fence.is_some() {
                    // The successor of this former primary is already known.
                    member.abort_unresponsive();
                }
                self.apply(serial, HealthEvent::Failed { conclusive }, now, Some(attempt));
                if self.find(serial).is_some_and(|member| !member.serves()) {
                    self.pass_over(&endpoint, class == Class::Full, now);
                }
            }
        }
    }

    pub(super) fn on_evidence(&mut self, serial: u64, pool: u64, generation: u64, evidence: Evidence, now: Instant) {
        let Some(member) = self.find(serial) else { return };
        match evidence {
            Evidence::Role(role) => return self.on_role(serial, role),
            Evidence::WriteRefused => return self.on_write_refused(serial, now),
            Evidence::Listens => return member.part_of(pool).into_iter().for_each(Part::report_listen),
            Evidence::Fatal(_) | Evidence::Lost { .. } => {}
        }
        // Evidence from a connection that was already invalidated is ignored. While the Pod is not healthy, its failed
        // dials and probes show the failure.
        let old = generation != member.pod.generation() && generation != PROBE_GENERATION;
        if old || member.health.state() != State::Healthy {
            return;
        }
        let cause: BoxError = match evidence {
            Evidence::Lost { cause } => cause,
            Evidence::Fatal(sqlstate) => {
                let code = String::from_utf8_lossy(&sqlstate).into_owned();
                if class(&code, true) != Class::NotReady {
                    return;
                }
                format!("the server ended a session with SQLSTATE {code}").into()
            }
            _ => return,
        };
        let others_live = member.pods().any(|pod| pod.shared().id != pool && pod.connections.has_live());
        match member.suspicion.session_ended(pool, others_live, now) {
            Conclusion::Ended => self.eject(serial, ejections::SESSIONS_ENDED, cause, now),
            Conclusion::Suspect => {
                pod_line!(
                    debug,
                    member.pod,
                    %cause,
                    "a session has ended unexpectedly; other Pods are preferred until the Pod responds to a probe"
                );
                member.pod.server.probe_wanted.notify_one();
                // In a large fleet, the probe dials after a random delay if no connection is left. The opener must not
                // dial before.
                let dials_within = member.pod.shared().group.fleet.dial_interval();
                if !dials_within.is_zero() && !member.pod.server.has_live() {
                    let limit = dials_within + member.pod.shared().limits.connect_timeout;
                    member.pods().for_each(|pod| lock(&pod.last_failure).hold(now + limit));
                }
                self.changed = true;
            }
        }
    }

    /// Ejects a Pod because too many of its statements fail with errors that are the server's fault.
    ///
    /// Does not eject the Pod if fewer than half of all Pods in use would then serve, or if no other Pod of the same
    /// role would. If that many Pods fail, the statements are more likely at fault than the servers.
    pub(super) fn on_outlier(&mut self, serial: u64, cause: String, now: Instant) {
        let members = self.members.all();
        let Some(role) = members.iter().find(|member| member.pod.serial == serial).map(|member| member.role) else {
            return;
        };
        let pods = members.iter().filter(|member| !member.is_alternative()).count();
        let serving = members.iter().filter(|member| member.serves()).count();
        let same_role = members.iter().filter(|member| member.serves() && member.role == role).count();
        if same_role > 1 && (serving - 1) * 2 >= pods {
            self.eject(serial, ejections::OUTLIER, cause.into(), now);
        } else {
            let group = &self.group;
            pool_line!(warn, group, pod = serial, cause, "outlier Pod not ejected: too few other Pods serve");
        }
    }

    /// Ejects a healthy Pod because its traffic shows a failure.
    fn eject(&mut self, serial: u64, kind: &'static str, cause: BoxError, now: Instant) {
        let Some(member) = self.find(serial) else { return };
        let endpoint = member.pod.endpoint.clone();
        if member.health.state() == State::Healthy {
            self.group.counters.ejected.increment(&endpoint, kind);
        }
        self.apply(serial, HealthEvent::Evidence, now, Some(endpoint.attempt(Phase::Query, cause)));
    }

    /// Marks the role of a primary that has refused a write as unverified until the next probe. Does nothing if a probe
    /// has found a primary within the last [`VERIFIED_FOR`]: in that case, only the session was read-only.
    fn on_write_refused(&mut self, serial: u64, now: Instant) {
        let is_shared = self.pools.len() > 1;
        let Some(member) = self.find(serial) else { return };
        let verified =
            member.last_probe.is_some_and(|probe| now.saturating_duration_since(probe.received) < VERIFIED_FOR);
        if member.role == Role::Primary && !member.role_unverified && !verified {
            // The transactions of one pool may be read-only because of its user or database, and the others go on.
            member.role_unverified = !is_shared;
            member.pod.server.probe_wanted.notify_one();
            self.changed |= !is_shared;
        }
    }

    /// Returns the earliest time at which the connections of an unresponsive Pod must be closed.
    pub(super) fn next_abort(&self) -> Option<Instant> {
        let since = self.members.all().iter().filter_map(Member::unresponsive_since).min()?;
        Some(since + self.unresponsive_timeout())
    }

    /// Closes the connections of Pods that have been unresponsive for too long, so that callers can use other Pods.
    pub(super) fn abort_unresponsive(&mut self, now: Instant) {
        let timeout = self.unresponsive_timeout();
        let is_due = |member: &&mut Member| member.unresponsive_since().is_some_and(|since| since + timeout <= now);
        self.members.all_mut().iter_mut().filter(is_due).for_each(Member::abort_unresponsive);
    }

    /// Returns the time for which a Pod can be unresponsive before its connections are closed.
    pub(super) fn unresponsive_timeout(&self) -> Duration {
        unresponsive_timeout(&self.group.limits)
    }

    /// Applies a health event to a member and handles a resulting change of state. Returns true if the Pod has become
    /// healthy.
    pub(super) fn apply(&mut self, serial: u64, event: HealthEvent, now: Instant, cause: Option<Attempt>) -> bool {
        let Some(member) = self.find(serial) else { return false };
        let Some(before) = member.apply(event, now) else { return false };
        let state = member.health.state();
        let pod = member.pod.clone();
        let mut ejected_in = None;
        match state {
            State::Healthy => {}
            State::Ejected => {
                member.suspicion.clear();
                if let Some(cause) = &cause {
                    for pod in member.pods() {
                        lock(&pod.last_failure).probe_failed(Class::NotReady, cause.clone());
                    }
                    ejected_in = Some(cause.phase()).filter(|_| matches!(event, HealthEvent::Failed { .. }));
                }
                member.purge();
                if let Some(phase) = ejected_in {
                    self.group.counters.ejected.increment(&pod.endpoint, phase.as_str());
                }
                pod.server.probe_wanted.notify_one();
                self.group.look_up_now();
                if self.find(serial).is_some_and(|member| member.role == Role::Primary) {
                    self.retry_full();
                }
                self.pass_over(&pod.endpoint, false, now);
            }
            State::Probing | State::Draining => {}
        }
        self.changed = true;
        let fence = self.find(serial).and_then(|member| member.fence).filter(|_| state == State::Healthy);
        self.group.events.emit(Event::StateChanged {
            endpoint: pod.endpoint.clone(),
            from: before.as_str(),
            to: state.as_str(),
            cause: match fence {
                Some(fence) => Some(format!("it passes its probes, but is fenced: {fence}").into()),
                None => cause.map(|attempt| attempt.reason().into()),
            },
        });
        if state == State::Ejected {
            // The Pod may have been a former primary that others follow.
            self.judge_claims(now);
        }
        state == State::Healthy
    }
}
