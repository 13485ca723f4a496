//! The only writer: it is told what was resolved, probed and seen, and publishes what follows from it.

use std::sync::Arc;

use tokio::{
    select,
    sync::{mpsc, oneshot},
    time::sleep_until,
};

use super::{
    drain::Drain,
    entry::Entry,
    inner::Inner,
    maintenance::sample,
    message::{Message, Probed},
    opener,
    pod::Pod,
    roster::Roster,
    view::{Resolved, View},
};
use crate::{
    discovery::{Confirm, Resolution, ResolveError},
    endpoint::{Endpoint, Role},
    error::{Attempt, BoxError},
    event::{Event, chain},
    health::{State, state::Fact},
    sync::lock,
    time::Instant,
    wire::{Class, classify::class, witness::Evidence},
};

/// Asked to close; answered with how many connections had to be cut.
pub(crate) type CloseRequest = oneshot::Sender<usize>;

/// The directory.
pub(crate) struct Directory {
    inner: Arc<Inner>,
    roster: Roster<Entry>,
    drain: Drain,
    confirm: Confirm,
    resolved: Resolved,
    next_serial: u64,
    /// Since when no Pod has passed a probe, while none does.
    silent_since: Option<Instant>,
    panic: bool,
    /// Something is to be published.
    changed: bool,
}

impl Directory {
    pub(crate) fn new(inner: Arc<Inner>, now: Instant) -> Self {
        Self {
            inner,
            roster: Roster::new(),
            drain: Drain::default(),
            confirm: Confirm::new(),
            resolved: Resolved::default(),
            next_serial: 0,
            silent_since: Some(now),
            panic: false,
            changed: false,
        }
    }

    /// Serves until it is asked to close, and is done closing.
    pub(crate) async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<Message>,
        mut close: mpsc::UnboundedReceiver<CloseRequest>,
    ) {
        let common = self.inner.common.clone();
        let requests = loop {
            let gone = common.gone.notified();
            let mut gone = std::pin::pin!(gone);
            gone.as_mut().enable();
            for endpoint in self.drain.finished(Instant::now()) {
                common.events.emit(Event::EndpointRemoved { endpoint });
            }
            let drained_by = self.drain.next_deadline();
            select! {
                Some(message) = inbox.recv() => {
                    self.take(message, Instant::now());
                    // What has come meanwhile is published with it.
                    while let Ok(message) = inbox.try_recv() {
                        self.take(message, Instant::now());
                    }
                    self.publish();
                }
                Some(request) = close.recv() => break request,
                () = gone, if drained_by.is_some() => {}
                () = sleep_until(drained_by.unwrap_or_else(Instant::now)), if drained_by.is_some() => {}
            }
        };
        self.close(requests, close).await;
    }

    fn take(&mut self, message: Message, now: Instant) {
        match message {
            Message::Resolved { result, again } => {
                let next = self.resolved(result, now);
                let _ = again.send(next); // a refresher that is gone asks no more
            }
            Message::Probed { pod, outcome } => self.probed(pod, outcome, now),
            Message::Seen { pod, generation, evidence } => self.seen(pod, generation, evidence, now),
            // The probe finds out; a dial that failed for want of a slot, or of a password, is no evidence.
            Message::DialFailed { pod, class: Class::NotReady } => self.hurry(pod),
            Message::DialFailed { .. } => {}
        }
    }

    // === who exists ===

    fn resolved(&mut self, result: Result<Resolution, ResolveError>, now: Instant) -> Option<Instant> {
        let known: Vec<(Endpoint, bool)> =
            self.roster.members().iter().map(|entry| (entry.pod.endpoint.clone(), entry.health.passing())).collect();
        let decision = match result {
            Ok(resolution) => {
                self.resolve_succeeded(now);
                self.confirm.answer(now, &known, &resolution.endpoints)
            }
            Err(error) if error.is_negative() => {
                let ttl = error.negative_ttl();
                self.resolve_failed(error);
                self.confirm.negative(now, &known, ttl)
            }
            Err(error) => {
                self.resolve_failed(error);
                self.confirm.error();
                return None;
            }
        };
        self.replace(&decision.set, now);
        decision.again
    }

    fn resolve_succeeded(&mut self, now: Instant) {
        if self.resolved.failures > 0 {
            self.inner.common.events.emit(Event::ResolveRecovered);
        }
        self.resolved = Resolved { at: Some(now), failures: 0, error: None };
        self.changed = true;
    }

    fn resolve_failed(&mut self, error: ResolveError) {
        let cause = chain(&(Box::new(error) as BoxError));
        if self.resolved.failures == 0 {
            self.inner.common.events.emit(Event::ResolveFailed { cause: cause.clone() });
        } else {
            tracing::debug!(error = %cause, failures = self.resolved.failures + 1, "the name still does not resolve");
        }
        self.resolved.failures += 1;
        self.resolved.error = Some(cause);
        self.changed = true;
    }

    /// Makes the set what it is named to be. Unchanged Pods are not touched.
    fn replace(&mut self, named: &[Endpoint], now: Instant) {
        let Self { inner, roster, next_serial, .. } = self;
        let common = &inner.common;
        let gone = roster.replace(named, |endpoint, slot| {
            common.events.emit(Event::EndpointAdded { endpoint: endpoint.clone() });
            *next_serial += 1;
            Entry::new(Pod::new(*next_serial, endpoint.clone(), slot, common.clone()))
        });
        let Some(gone) = gone else { return };
        for mut entry in gone {
            entry.apply(Fact::Removed, now);
            common.events.emit(Event::EndpointDrained { endpoint: entry.pod.endpoint.clone() });
            self.drain.begin(entry, now + common.limits.drain_timeout);
        }
        self.changed = true;
    }

    // === who serves ===

    fn find(&mut self, serial: u64) -> Option<&mut Entry> {
        // What comes from a Pod that is gone says nothing any more.
        self.roster.members_mut().iter_mut().find(|entry| entry.pod.serial == serial)
    }

    fn hurry(&mut self, serial: u64) {
        if let Some(entry) = self.find(serial) {
            entry.pod.suspect.notify_one();
        }
    }

    fn probed(&mut self, serial: u64, outcome: Probed, now: Instant) {
        match outcome {
            Probed::Passed { role, read_only, took } => {
                let alone = !self
                    .roster
                    .members()
                    .iter()
                    .any(|entry| entry.pod.serial != serial && entry.health.state() == State::Healthy);
                let Some(entry) = self.find(serial) else { return };
                entry.passed = Some(now);
                lock(&entry.pod.trouble).clear();
                sample(&entry.pod, took);
                self.role(serial, role, read_only);
                self.fact(serial, Fact::Passed { alone }, now, None);
            }
            Probed::Failed { proven, class, attempt } => {
                let Some(entry) = self.find(serial) else { return };
                if class == Class::Full {
                    // Full, not sick, if it serves; a Pod that never let us in stays unproven.
                    lock(&entry.pod.trouble).probe_failed(class, attempt);
                    return;
                }
                lock(&entry.pod.trouble).probe_failed(class, attempt.clone());
                if class == Class::Access {
                    // Perhaps nobody need wait any longer.
                    self.inner.common.waiters.look_again();
                }
                self.fact(serial, Fact::Failed { proven }, now, Some(attempt));
            }
        }
    }

    fn seen(&mut self, serial: u64, generation: u64, evidence: Evidence, now: Instant) {
        let Some(entry) = self.find(serial) else { return };
        // What an older connection saw was already counted when everything older was purged.
        if let Evidence::Role { role, read_only } = evidence {
            self.role(serial, role, read_only);
            return;
        }
        if generation != entry.pod.generation() {
            return;
        }
        let endpoint = entry.pod.endpoint.clone();
        let attempt = |cause: BoxError| {
            Attempt::new(endpoint.shared_name(), endpoint.address(), crate::error::Phase::Query, cause)
        };
        match evidence {
            Evidence::Fatal(sqlstate) => {
                let code = String::from_utf8_lossy(&sqlstate).into_owned();
                // During start-up the dial itself says what came of it.
                if entry.health.state() == State::Healthy && class(&code, true) == Class::NotReady {
                    let cause = format!("the server ended a session with SQLSTATE {code}");
                    self.fact(serial, Fact::Evidence, now, Some(attempt(cause.into())));
                }
            }
            Evidence::Lost { cause, told: false } => self.fact(serial, Fact::Evidence, now, Some(attempt(cause))),
            Evidence::Lost { told: true, .. } | Evidence::Role { .. } => {}
        }
    }

    fn role(&mut self, serial: u64, role: Role, read_only: bool) {
        let Some(entry) = self.find(serial) else { return };
        let before = entry.role;
        if (before, entry.read_only) == (role, read_only) {
            return;
        }
        entry.role = role;
        entry.read_only = read_only;
        let endpoint = entry.pod.endpoint.clone();
        self.changed = true;
        if before != role {
            self.inner.common.events.emit(Event::RoleChanged { endpoint, from: before, to: role });
        }
    }

    fn fact(&mut self, serial: u64, fact: Fact, now: Instant, cause: Option<Attempt>) {
        let Some(entry) = self.find(serial) else { return };
        let Some(before) = entry.apply(fact, now) else { return };
        let state = entry.health.state();
        let pod = entry.pod.clone();
        match state {
            State::Healthy => opener::warm(&pod),
            State::Ejected => {
                if let Some(cause) = &cause {
                    lock(&pod.trouble).probe_failed(Class::NotReady, cause.clone());
                }
                pod.purge();
                pod.suspect.notify_one();
                self.inner.common.trouble.notify_one();
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
    }

    // === what follows ===

    fn publish(&mut self) {
        if !std::mem::take(&mut self.changed) {
            return;
        }
        let view = self.view(false);
        self.inner.publish(view);
    }

    fn view(&mut self, closed: bool) -> View {
        let (snapshot, panic) = self.roster.snapshot(|entry| entry.pod.clone());
        if panic != self.panic {
            self.panic = panic;
            self.inner.common.events.emit(if panic { Event::PanicBegan } else { Event::PanicEnded });
        }
        let health: Vec<_> = self.roster.members().iter().map(|entry| (entry.health.state(), entry.role)).collect();
        let healthy = health.iter().any(|(state, _)| *state == State::Healthy);
        self.silent_since = match (healthy, self.silent_since) {
            (true, _) => None,
            (false, Some(since)) => Some(since),
            (false, None) => Some(Instant::now()),
        };
        let (silent_since, resolved) = (self.silent_since, self.resolved.clone());
        View { snapshot, health, silent_since, resolved, closed }
    }

    // === the end ===

    async fn close(mut self, request: CloseRequest, mut more: mpsc::UnboundedReceiver<CloseRequest>) {
        let common = self.inner.common.clone();
        let deadline = Instant::now() + common.limits.close_timeout;
        let entries = self.roster.clear();
        let last = self.view(true);
        self.inner.end(last);
        for entry in entries {
            self.drain.begin(entry, deadline);
        }
        self.drain.shorten(deadline);
        let mut requests = vec![request];
        loop {
            let gone = common.gone.notified();
            let mut gone = std::pin::pin!(gone);
            gone.as_mut().enable();
            for endpoint in self.drain.finished(Instant::now()) {
                common.events.emit(Event::EndpointRemoved { endpoint });
            }
            let Some(deadline) = self.drain.next_deadline() else { break };
            select! {
                () = gone => {}
                () = sleep_until(deadline) => {}
                Some(request) = more.recv() => requests.push(request),
            }
        }
        while let Ok(request) = more.try_recv() {
            requests.push(request);
        }
        for request in requests {
            let _ = request.send(self.drain.cut()); // whoever asked may have given up
        }
    }
}
