//! The health of the Pods: applies probe results and evidence from connections, ejects and readmits Pods, and closes
//! the connections of unresponsive Pods.

use super::{
    Directory,
    drain::unresponsive_timeout,
    member::{Member, PassedProbe},
};
use crate::{
    endpoint::Role,
    error::{Attempt, BoxError, Phase},
    event::Event,
    health::{State, state::HealthEvent, suspicion::Conclusion},
    pool::pod::{connect, message::Probed, prober::PROBE_GENERATION},
    sync::lock,
    time::{Duration, Instant},
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
            member.pod.probe_wanted.notify_one();
        }
    }

    pub(super) fn on_probed(&mut self, serial: u64, outcome: Probed, now: Instant) {
        self.apply_probe(serial, outcome, now);
        self.return_primaries(now);
    }

    fn apply_probe(&mut self, serial: u64, outcome: Probed, now: Instant) {
        match outcome {
            Probed::Passed { facts, read_only, took, sent, received } => {
                let alone = self.is_alone(serial, facts.role);
                let returns_later = self.must_ask_others(serial, facts.role, now);
                let Some(member) = self.find(serial) else { return };
                member.mark_responsive();
                let suspicion_ended = member.suspicion.responded(sent);
                let was_unverified = std::mem::take(&mut member.role_unverified);
                let read_only_changed = member.read_only != read_only;
                member.read_only = read_only;
                let slots_changed = member.slots() != facts.slots;
                let timeline = member.last_probe.and_then(|probe| probe.facts.timeline);
                let identity = member.identity();
                member.probe_passed(PassedProbe { facts, sent, received });
                let identity_changed = identity != member.identity();
                let timeline_changed = timeline != member.last_probe.and_then(|probe| probe.facts.timeline);
                self.changed |=
                    was_unverified || read_only_changed || timeline_changed || suspicion_ended || identity_changed;
                let Some(member) = self.find(serial) else { return };
                lock(&member.pod.last_failure).probe_passed();
                member.pod.record_probe(took);
                let endpoint = member.pod.endpoint.clone();
                self.on_role(serial, facts.role);
                let returned = !returns_later && self.apply(serial, HealthEvent::Passed { alone }, now, None);
                self.on_probe_passed(&endpoint, returned, now);
                if slots_changed {
                    self.check_capacity(serial);
                }
                self.judge(serial);
            }
            Probed::Failed { conclusive, unresponsive_since, class, attempt } => {
                let Some(member) = self.find(serial) else { return };
                member.returning_since = None;
                member.probe_failed_at = Some(now);
                let pod = member.pod.clone();
                if lock(&pod.last_failure).probe_failed(class, attempt.clone()) {
                    connect::emit_refusal(&pod, class, &attempt);
                }
                if class == Class::Credentials {
                    return; // the credentials were not available, so the Pod was not probed
                }
                if class.is_permanent() {
                    // Wakes the opener, because waiters may now have to fail immediately.
                    member.pod.shared().waiters.wake_opener();
                }
                let endpoint = member.pod.endpoint.clone();
                if (class.is_permanent() || class == Class::Full) && member.is_sound() {
                    member.suspicion.clear(); // the server has responded
                    self.changed = true;
                    let Some(member) = self.find(serial) else { return };
                    // The Pod refuses only new connections. Existing connections still work, so the Pod stays in use.
                    let endpoint = &member.pod.endpoint;
                    tracing::warn!(%endpoint, error = %attempt, "Pod kept in use although its probe was refused");
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

    pub(super) fn on_evidence(&mut self, serial: u64, generation: u64, evidence: Evidence, now: Instant) {
        let Some(member) = self.find(serial) else { return };
        match evidence {
            Evidence::Role(role) => return self.on_role(serial, role),
            Evidence::WriteRefused => return self.on_write_refused(serial, now),
            Evidence::Listens => return member.report_listen(),
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
        match member.suspicion.session_ended(now) {
            Conclusion::Ended => self.eject(serial, cause, now),
            Conclusion::Suspect => {
                tracing::debug!(
                    endpoint = %member.pod.endpoint,
                    %cause,
                    "a session has ended unexpectedly; other Pods are preferred until the Pod responds to a probe"
                );
                member.pod.probe_wanted.notify_one();
                // In a large fleet, the probe dials after a random delay if no connection is left. The opener must not
                // dial before.
                let dials_within = member.pod.shared().fleet.dial_interval();
                if !dials_within.is_zero() && !member.pod.connections.has_live() {
                    let limit = dials_within + member.pod.shared().limits.connect_timeout;
                    lock(&member.pod.last_failure).hold(now + limit);
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
            self.eject(serial, cause.into(), now);
        } else {
            tracing::warn!(pod = serial, cause, "outlier Pod not ejected: too few other Pods serve");
        }
    }

    /// Ejects a healthy Pod because its traffic shows a failure.
    fn eject(&mut self, serial: u64, cause: BoxError, now: Instant) {
        let Some(member) = self.find(serial) else { return };
        let attempt = member.pod.endpoint.attempt(Phase::Query, cause);
        self.apply(serial, HealthEvent::Evidence, now, Some(attempt));
    }

    /// Marks the role of a primary that has refused a write as unverified until the next probe. Does nothing if a probe
    /// has found a primary within the last [`VERIFIED_FOR`]: in that case, only the session was read-only.
    fn on_write_refused(&mut self, serial: u64, now: Instant) {
        let Some(member) = self.find(serial) else { return };
        let verified =
            member.last_probe.is_some_and(|probe| now.saturating_duration_since(probe.received) < VERIFIED_FOR);
        if member.role == Role::Primary && !member.role_unverified && !verified {
            member.role_unverified = true;
            member.pod.probe_wanted.notify_one();
            self.changed = true;
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
        unresponsive_timeout(&self.inner.shared.limits)
    }

    /// Applies a health event to a member and handles a resulting change of state. Returns true if the Pod has become
    /// healthy.
    pub(super) fn apply(&mut self, serial: u64, event: HealthEvent, now: Instant, cause: Option<Attempt>) -> bool {
        let Some(member) = self.find(serial) else { return false };
        let Some(before) = member.apply(event, now) else { return false };
        let state = member.health.state();
        let pod = member.pod.clone();
        match state {
            State::Healthy => {}
            State::Ejected => {
                member.suspicion.clear();
                if let Some(cause) = &cause {
                    self.inner.shared.counters.ejected.increment(cause.phase());
                    lock(&pod.last_failure).probe_failed(Class::NotReady, cause.clone());
                }
                pod.purge();
                pod.probe_wanted.notify_one();
                self.inner.shared.look_up_now();
                if self.find(serial).is_some_and(|member| member.role == Role::Primary) {
                    self.retry_full();
                }
                self.pass_over(&pod.endpoint, false, now);
            }
            State::Probing | State::Draining => {}
        }
        self.changed = true;
        self.inner.shared.events.emit(Event::StateChanged {
            endpoint: pod.endpoint.clone(),
            from: before.as_str(),
            to: state.as_str(),
            cause: cause.map(|attempt| attempt.to_string().into()),
        });
        if state == State::Ejected {
            // The Pod may have been a former primary that others follow.
            self.judge_claims(now);
        }
        state == State::Healthy
    }
}
