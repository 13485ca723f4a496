//! Applies the results of name lookups to the set of known Pods.
//!
//! New Pods are added immediately. [`Confirm`](crate::discovery::Confirm) decides when Pods that are missing from a
//! lookup result are removed, and when their absence is confirmed. Removed Pods are drained.

use std::sync::Arc;

use super::{Directory, member::Member};
use crate::{
    discovery::{Resolution, ResolveError},
    endpoint::Endpoint,
    error::Chain,
    event::Event,
    health::state::HealthEvent,
    pool::pod::Pod,
    sync::lock,
    time::Instant,
};

impl Directory {
    /// Handles a lookup result of the configured host with this index. If another lookup must confirm the result,
    /// returns the time of that lookup.
    pub(super) fn on_resolved(
        &mut self,
        host: usize,
        result: Result<Resolution, ResolveError>,
        now: Instant,
    ) -> Option<Instant> {
        if let Ok(resolution) = &result
            && self.hosts.is_single()
            && !resolution.endpoints.is_empty()
            && self.is_known(&resolution.endpoints)
        {
            self.resolve_succeeded(host, now);
            self.hosts.confirm(host).unchanged();
            self.set_absent(&resolution.endpoints, &[], now);
            return None;
        }
        let known = self.known();
        let own = self.hosts.known(host, &known);
        let (decision, named) = match result {
            Ok(Resolution { endpoints, valid_until, .. }) => {
                self.resolve_succeeded(host, now);
                (self.hosts.confirm(host).answer(now, &own, &endpoints, valid_until), endpoints)
            }
            Err(error) if error.is_negative() => {
                let ttl = error.negative_ttl();
                self.resolve_failed(host, error);
                (self.hosts.confirm(host).negative(now, &own, ttl), Vec::new())
            }
            Err(error) => {
                self.resolve_failed(host, error);
                self.hosts.confirm(host).error();
                return None;
            }
        };
        let decision = self.hosts.apply(host, &known, decision);
        self.set_known(&decision.set, now);
        self.set_absent(&named, &decision.absent, now);
        decision.recheck_at
    }

    /// Returns true if the known Pods are exactly the Pods in `named`.
    fn is_known(&self, named: &[Endpoint]) -> bool {
        match &self.subset {
            Some(subset) => subset.matches(named),
            None => self.members.matches(named),
        }
    }

    /// Returns all known Pods. The `bool` of each Pod is true if the Pod passes its health check.
    pub(super) fn known(&self) -> Vec<(Endpoint, bool)> {
        let passing = |endpoint| self.members.get(endpoint).is_some_and(|member| member.passes_probes());
        match &self.subset {
            Some(subset) => subset.endpoints().map(|endpoint| (endpoint.clone(), passing(endpoint))).collect(),
            None => {
                let members = self.members.all().iter();
                members.map(|member| (member.pod.endpoint.clone(), member.passes_probes())).collect()
            }
        }
    }

    fn resolve_succeeded(&mut self, host: usize, now: Instant) {
        let recovered = lock(&self.inner.shared.resolved).succeeded(host, now);
        if recovered {
            self.inner.shared.events.emit(Event::ResolveRecovered);
        }
    }

    fn resolve_failed(&mut self, host: usize, error: ResolveError) {
        let cause: Arc<str> = Chain(&error).to_string().into();
        let failures = lock(&self.inner.shared.resolved).failed(host, cause.clone());
        if failures == 1 {
            self.inner.shared.events.emit(Event::ResolveFailed { cause });
        } else {
            tracing::debug!(error = %cause, failures, "the Service name still cannot be resolved");
        }
    }

    /// Adds and removes members until they are exactly the Pods in `named`. Members that stay are not changed.
    pub(super) fn replace_members(&mut self, named: &[Endpoint], now: Instant) {
        let unresponsive_timeout = self.unresponsive_timeout();
        let Self { inner, members, next_serial, .. } = self;
        let shared = &inner.shared;
        let gone = members.replace(named, |endpoint, slot| {
            shared.events.emit(Event::EndpointAdded { endpoint: endpoint.clone() });
            *next_serial += 1;
            Member::new(Pod::new(*next_serial, endpoint.clone(), slot, shared.clone()))
        });
        let Some(gone) = gone else { return };
        for mut member in gone {
            member.apply(HealthEvent::Removed, now);
            let endpoint = member.pod.endpoint.clone();
            let drained_by = now + shared.limits.drain_timeout;
            // Removing an unresponsive Pod does not extend the time that the Pod has to respond.
            let abort_at = member.unresponsive_since().map_or(drained_by, |since| since + unresponsive_timeout);
            self.drain.begin(member, drained_by.min(abort_at));
            // Emitted last: after this event, no caller gets a connection to the Pod.
            shared.events.emit(Event::EndpointDrained { endpoint });
        }
        // A removed Pod may have been the reason why another Pod is fenced.
        self.judge_claims(now);
        self.changed = true;
    }
}
