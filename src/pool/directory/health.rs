//! Who serves: what probes and connections tell.

use super::{Directory, drain::patience, member::Member};
use crate::{
    endpoint::Role,
    error::{Attempt, BoxError, Phase},
    event::Event,
    health::{State, state::HealthEvent},
    pool::pod::{connect, message::Probed, prober::PROBES},
    sync::lock,
    time::{Duration, Instant},
    wire::{Class, classify::class, connection_observer::Evidence},
};

/// How long a probe's word that a Pod is a primary rows against a refused write.
const VERIFIED_FOR: Duration = Duration::from_secs(1);

impl Directory {
    pub(super) fn find(&mut self, serial: u64) -> Option<&mut Member> {
        // What comes from a Pod that is gone says nothing any more.
        self.members.all_mut().iter_mut().find(|member| member.pod.serial == serial)
    }

    pub(super) fn probe_now(&mut self, serial: u64) {
        if let Some(member) = self.find(serial) {
            member.pod.suspect.notify_one();
        }
    }

    pub(super) fn probed(&mut self, serial: u64, outcome: Probed, now: Instant) {
        match outcome {
            Probed::Passed { facts, read_only, took, asked, at } => {
                // The only primary is needed at once, however many standbys serve.
                let like_it = |member: &&Member| member.pod.serial != serial && member.role == facts.role;
                let alone = !self.members.all().iter().filter(like_it).any(Member::serves);
                let Some(member) = self.find(serial) else { return };
                member.spoke();
                let believed = std::mem::take(&mut member.role_unverified);
                let changed = member.read_only != read_only;
                member.read_only = read_only;
                let told = member.slots() != facts.slots;
                member.found = Some((facts, asked, at));
                self.changed |= believed || changed;
                let Some(member) = self.find(serial) else { return };
                lock(&member.pod.last_failure).probe_passed();
                member.pod.probe_took(took);
                let endpoint = member.pod.endpoint.clone();
                self.role(serial, facts.role);
                let returned = self.fact(serial, HealthEvent::Passed { alone }, now, None);
                self.looked_at(&endpoint, returned, now);
                if told {
                    self.check_capacity(serial);
                }
                self.judge(serial);
            }
            Probed::Failed { proven, silent, class, attempt } => {
                let Some(member) = self.find(serial) else { return };
                let pod = member.pod.clone();
                if lock(&pod.last_failure).probe_failed(class, attempt.clone()) {
                    connect::shut_out(&pod, class, &attempt);
                }
                if class == Class::Credentials {
                    return; // the Pod was not asked
                }
                if class.is_permanent() {
                    // Perhaps nobody need wait any longer.
                    member.pod.shared().waiters.look_again();
                }
                let endpoint = member.pod.endpoint.clone();
                if (class.is_permanent() || class == Class::Full) && member.serves() {
                    // Full, or closed to those who come now: those who are in are served all the same.
                    tracing::warn!(endpoint = %member.pod.endpoint, error = %attempt, "a probe was not let in");
                    return if class == Class::Full {
                        self.full(serial, now)
                    };
                }
                match silent {
                    Some(asked) => member.fell_silent(asked),
                    None => member.spoke(),
                }
                self.fact(serial, HealthEvent::Failed { proven }, now, Some(attempt));
                if self.find(serial).is_some_and(|member| !member.serves()) {
                    self.failed(&endpoint, class == Class::Full, now);
                }
            }
        }
    }

    pub(super) fn seen(&mut self, serial: u64, generation: u64, evidence: Evidence, now: Instant) {
        let Some(member) = self.find(serial) else { return };
        match evidence {
            Evidence::Role(role) => return self.role(serial, role),
            Evidence::WriteRefused => return self.write_refused(serial, now),
            Evidence::Fatal(_) | Evidence::Lost { .. } => {}
        }
        // What an older connection saw was already counted when everything older was purged. During start-up the dial
        // itself says what came of it.
        let old = generation != member.pod.generation() && generation != PROBES;
        if old || member.health.state() != State::Healthy {
            return;
        }
        let cause: BoxError = match evidence {
            Evidence::Lost { cause, told: false } => cause,
            Evidence::Fatal(sqlstate) => {
                let code = String::from_utf8_lossy(&sqlstate).into_owned();
                if class(&code, true) != Class::NotReady {
                    return;
                }
                format!("the server ended a session with SQLSTATE {code}").into()
            }
            _ => return,
        };
        self.evidence(serial, cause, now);
    }

    /// A Pod's statements fail through the server's own fault. No more than half of the Pods go out for that, and never
    /// the last one of its role: then it is more likely the statements.
    pub(super) fn outlier(&mut self, serial: u64, cause: String, now: Instant) {
        let members = self.members.all();
        let Some(role) = members.iter().find(|member| member.pod.serial == serial).map(|member| member.role) else {
            return;
        };
        let serving = members.iter().filter(|member| member.serves()).count();
        let like_it = members.iter().filter(|member| member.serves() && member.role == role).count();
        if like_it > 1 && (serving - 1) * 2 >= members.len() {
            self.evidence(serial, cause.into(), now);
        } else {
            tracing::warn!(pod = serial, cause, "too few Pods are left to eject one for that");
        }
    }

    /// Traffic shows that a Pod does not serve.
    pub(super) fn evidence(&mut self, serial: u64, cause: BoxError, now: Instant) {
        let Some(member) = self.find(serial) else { return };
        let attempt = member.pod.endpoint.attempt(Phase::Query, cause);
        self.fact(serial, HealthEvent::Evidence, now, Some(attempt));
    }

    /// A primary that refuses a write is nobody's primary until a probe says that it is one. One that a probe has just
    /// found to be one is left alone: then it was the session that was read-only.
    fn write_refused(&mut self, serial: u64, now: Instant) {
        let Some(member) = self.find(serial) else { return };
        let fresh = member.found.is_some_and(|(_, _, at)| now.saturating_duration_since(at) < VERIFIED_FOR);
        if member.role == Role::Primary && !member.role_unverified && !fresh {
            member.role_unverified = true;
            member.pod.suspect.notify_one();
            self.changed = true;
        }
    }

    /// When the next Pod that has fallen silent is given up.
    pub(super) fn next_abort(&self) -> Option<Instant> {
        let silent = self.members.all().iter().filter_map(Member::silent_since).min()?;
        Some(silent + self.patience())
    }

    /// Cuts the connections of Pods that have been silent for too long: what waits there can go elsewhere.
    pub(super) fn abort_unresponsive(&mut self, now: Instant) {
        let patience = self.patience();
        let silent = |member: &&mut Member| member.silent_since().is_some_and(|since| since + patience <= now);
        self.members.all_mut().iter_mut().filter(silent).for_each(Member::abort_unresponsive);
    }

    /// How long a Pod may be silent before it is given up.
    pub(super) fn patience(&self) -> Duration {
        patience(&self.inner.shared.limits)
    }

    /// Says whether it serves now, and did not before.
    fn fact(&mut self, serial: u64, fact: HealthEvent, now: Instant, cause: Option<Attempt>) -> bool {
        let Some(member) = self.find(serial) else { return false };
        let Some(before) = member.apply(fact, now) else { return false };
        let state = member.health.state();
        let pod = member.pod.clone();
        match state {
            State::Healthy => self.healed.push(pod.clone()),
            State::Ejected => {
                if let Some(cause) = &cause {
                    self.inner.shared.counters.ejected.count(cause.phase());
                    lock(&pod.last_failure).probe_failed(Class::NotReady, cause.clone());
                }
                pod.purge();
                pod.suspect.notify_one();
                self.inner.shared.last_failure.notify_one();
                self.failed(&pod.endpoint, false, now);
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
        state == State::Healthy
    }
}
