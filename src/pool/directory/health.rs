//! Who serves: what probes and connections tell.

use super::{Directory, drain::patience, member::Entry};
use crate::{
    endpoint::Role,
    error::{Attempt, BoxError, Phase},
    event::Event,
    health::{State, state::Fact},
    pool::pod::{connect, message::Probed, prober::PROBES},
    sync::lock,
    time::{Duration, Instant},
    wire::{Class, classify::class, witness::Evidence},
};

/// How long a probe's word that a Pod is a primary stands against a refused write.
const VERIFIED_FOR: Duration = Duration::from_secs(1);

impl Directory {
    pub(super) fn find(&mut self, serial: u64) -> Option<&mut Entry> {
        // What comes from a Pod that is gone says nothing any more.
        self.roster.members_mut().iter_mut().find(|entry| entry.pod.serial == serial)
    }

    pub(super) fn hurry(&mut self, serial: u64) {
        if let Some(entry) = self.find(serial) {
            entry.pod.suspect.notify_one();
        }
    }

    pub(super) fn probed(&mut self, serial: u64, outcome: Probed, now: Instant) {
        match outcome {
            Probed::Passed { facts, read_only, took, asked, at } => {
                // The only primary is needed at once, however many standbys serve.
                let like_it = |entry: &&Entry| entry.pod.serial != serial && entry.role == facts.role;
                let alone = !self.roster.members().iter().filter(like_it).any(Entry::serves);
                let Some(entry) = self.find(serial) else { return };
                entry.spoke();
                let believed = std::mem::take(&mut entry.doubted);
                let changed = entry.read_only != read_only;
                entry.read_only = read_only;
                let told = entry.slots() != facts.slots;
                entry.found = Some((facts, asked, at));
                self.changed |= believed || changed;
                let Some(entry) = self.find(serial) else { return };
                lock(&entry.pod.trouble).probe_passed();
                entry.pod.probe_took(took);
                let endpoint = entry.pod.endpoint.clone();
                self.role(serial, facts.role);
                let returned = self.fact(serial, Fact::Passed { alone }, now, None);
                self.looked_at(&endpoint, returned, now);
                if told {
                    self.reckon(serial);
                }
                self.judge(serial);
            }
            Probed::Failed { proven, silent, class, attempt } => {
                let Some(entry) = self.find(serial) else { return };
                let pod = entry.pod.clone();
                if lock(&pod.trouble).probe_failed(class, attempt.clone()) {
                    connect::shut_out(&pod, class, &attempt);
                }
                if class == Class::Credentials {
                    return; // the Pod was not asked
                }
                if class.is_permanent() {
                    // Perhaps nobody need wait any longer.
                    entry.pod.common().waiters.look_again();
                }
                let endpoint = entry.pod.endpoint.clone();
                if (class.is_permanent() || class == Class::Full) && entry.serves() {
                    // Full, or closed to those who come now: those who are in are served all the same.
                    tracing::warn!(endpoint = %entry.pod.endpoint, error = %attempt, "a probe was not let in");
                    return if class == Class::Full {
                        self.full(serial, now)
                    };
                }
                match silent {
                    Some(asked) => entry.fell_silent(asked),
                    None => entry.spoke(),
                }
                self.fact(serial, Fact::Failed { proven }, now, Some(attempt));
                if self.find(serial).is_some_and(|entry| !entry.serves()) {
                    self.failed(&endpoint, class == Class::Full, now);
                }
            }
        }
    }

    pub(super) fn seen(&mut self, serial: u64, generation: u64, evidence: Evidence, now: Instant) {
        let Some(entry) = self.find(serial) else { return };
        match evidence {
            Evidence::Role(role) => return self.role(serial, role),
            Evidence::WriteRefused => return self.write_refused(serial, now),
            Evidence::Fatal(_) | Evidence::Lost { .. } => {}
        }
        // What an older connection saw was already counted when everything older was purged. During start-up the dial
        // itself says what came of it.
        let old = generation != entry.pod.generation() && generation != PROBES;
        if old || entry.health.state() != State::Healthy {
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
        let members = self.roster.members();
        let Some(role) = members.iter().find(|entry| entry.pod.serial == serial).map(|entry| entry.role) else {
            return;
        };
        let serving = members.iter().filter(|entry| entry.serves()).count();
        let like_it = members.iter().filter(|entry| entry.serves() && entry.role == role).count();
        if like_it > 1 && (serving - 1) * 2 >= members.len() {
            self.evidence(serial, cause.into(), now);
        } else {
            tracing::warn!(pod = serial, cause, "too few Pods are left to eject one for that");
        }
    }

    /// Traffic shows that a Pod does not serve.
    pub(super) fn evidence(&mut self, serial: u64, cause: BoxError, now: Instant) {
        let Some(entry) = self.find(serial) else { return };
        let attempt = entry.pod.endpoint.attempt(Phase::Query, cause);
        self.fact(serial, Fact::Evidence, now, Some(attempt));
    }

    /// A primary that refuses a write is nobody's primary until a probe says that it is one. One that a probe has just
    /// found to be one is left alone: then it was the session that was read-only.
    fn write_refused(&mut self, serial: u64, now: Instant) {
        let Some(entry) = self.find(serial) else { return };
        let fresh = entry.found.is_some_and(|(_, _, at)| now.saturating_duration_since(at) < VERIFIED_FOR);
        if entry.role == Role::Primary && !entry.doubted && !fresh {
            entry.doubted = true;
            entry.pod.suspect.notify_one();
            self.changed = true;
        }
    }

    /// When the next Pod that has fallen silent is given up.
    pub(super) fn next_given_up(&self) -> Option<Instant> {
        let silent = self.roster.members().iter().filter_map(Entry::silent_since).min()?;
        Some(silent + self.patience())
    }

    /// Cuts the connections of Pods that have been silent for too long: what waits there can go elsewhere.
    pub(super) fn give_up(&mut self, now: Instant) {
        let patience = self.patience();
        let silent = |entry: &&mut Entry| entry.silent_since().is_some_and(|since| since + patience <= now);
        self.roster.members_mut().iter_mut().filter(silent).for_each(Entry::give_up);
    }

    /// How long a Pod may be silent before it is given up.
    pub(super) fn patience(&self) -> Duration {
        patience(&self.inner.common.limits)
    }

    /// Says whether it serves now, and did not before.
    fn fact(&mut self, serial: u64, fact: Fact, now: Instant, cause: Option<Attempt>) -> bool {
        let Some(entry) = self.find(serial) else { return false };
        let Some(before) = entry.apply(fact, now) else { return false };
        let state = entry.health.state();
        let pod = entry.pod.clone();
        match state {
            State::Healthy => self.healed.push(pod.clone()),
            State::Ejected => {
                if let Some(cause) = &cause {
                    self.inner.common.counters.ejected.count(cause.phase());
                    lock(&pod.trouble).probe_failed(Class::NotReady, cause.clone());
                }
                pod.purge();
                pod.suspect.notify_one();
                self.inner.common.trouble.notify_one();
                self.failed(&pod.endpoint, false, now);
            }
            State::Probing | State::Draining => {}
        }
        self.changed = true;
        self.inner.common.events.emit(Event::StateChanged {
            endpoint: pod.endpoint.clone(),
            from: before.as_str(),
            to: state.as_str(),
            cause: cause.map(|attempt| attempt.to_string().into()),
        });
        state == State::Healthy
    }
}
