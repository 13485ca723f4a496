//! Applies the results of name lookups to the set of known Pods.
//!
//! New Pods are added immediately. [`Confirm`](crate::discovery::Confirm) decides when Pods that are missing from a
//! lookup result are removed, and when their absence is confirmed. Removed Pods are drained.

use std::sync::Arc;

use super::{Directory, hosts::Named, member::Member};
use crate::{
    discovery::{Authority, Resolution, ResolveError},
    endpoint::Endpoint,
    error::Chain,
    event::Event,
    health::state::HealthEvent,
    pool::pod::{Pod, server::Server},
    sync::lock,
    time::Instant,
    trace::pool_line,
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
            self.set_absent(&resolution.endpoints, &[], &[], now);
            return None;
        }
        let known = self.known();
        let own = self.hosts.known(host, &known);
        let succeeded = result.is_ok();
        let (decision, named) = match result {
            Ok(Resolution { endpoints, valid_until, authority, leaving, .. }) => {
                let confirm = self.hosts.confirm(host);
                let decision = match authority {
                    Authority::Additive => confirm.additive(&own, &endpoints),
                    Authority::Exact => confirm.exact(&own, &endpoints, &leaving),
                    Authority::Tentative => confirm.answer(now, &own, &endpoints, valid_until),
                };
                (decision, endpoints)
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
        let recheck_at = decision.recheck_at;
        let Named { set, named, absent, gone } = self.hosts.apply(host, &known, named, decision);
        self.set_known(&set, now);
        self.set_absent(&named, &absent, &gone, now);
        if succeeded {
            // Last: while a host has not been resolved, callers do not fail although all known Pods refuse the login.
            self.resolve_succeeded(host, now);
        }
        recheck_at
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
                members.map(|member| (member.named_as.clone(), member.passes_probes())).collect()
            }
        }
    }

    fn resolve_succeeded(&mut self, host: usize, now: Instant) {
        let recovered = lock(&self.group.resolved).succeeded(host, now);
        if recovered {
            let source = self.group.source_of(host).into();
            self.group.events.emit(Event::ResolveRecovered { source });
        }
    }

    fn resolve_failed(&mut self, host: usize, error: ResolveError) {
        let cause: Arc<str> = Chain(&error).to_string().into();
        let failures = lock(&self.group.resolved).failed(host, cause.clone());
        if failures == 1 {
            let (source, known) = (self.group.source_of(host).into(), self.members.all().len());
            self.group.events.emit(Event::ResolveFailed { source, cause, known });
        } else {
            let group = &self.group;
            pool_line!(debug, group, error = %cause, failures, "the Service name still cannot be resolved");
        }
    }

    /// Adds and removes members until they are exactly the Pods in `named`. Members that stay are not changed.
    pub(super) fn replace_members(&mut self, named: &[Endpoint], now: Instant) {
        let unresponsive_timeout = self.unresponsive_timeout();
        let Self { group, pools, members, next_serial, .. } = self;
        let gone = members.replace(named, |endpoint, slots| {
            group.events.emit(Event::EndpointAdded { endpoint: endpoint.clone() });
            *next_serial += 1;
            let server = Server::new(*next_serial, endpoint.clone());
            let pods = pools.iter().zip(slots).map(|(pool, slot)| Pod::new(&server, slot, 0, pool.shared().clone()));
            Member::new(pods.collect())
        });
        let Some(gone) = gone else { return };
        for mut member in gone {
            member.apply(HealthEvent::Removed, now);
            let endpoint = member.pod.endpoint.clone();
            // Removing an unresponsive Pod does not extend the time that the Pod has to respond.
            let abort_at = member.unresponsive_since().map(|since| since + unresponsive_timeout);
            let pods: Vec<_> = member.pods().cloned().collect();
            drop(member); // ends the prober
            for pod in pods {
                let drained_by = now + pod.shared().limits.drain_timeout;
                self.drain.begin(pod, abort_at.map_or(drained_by, |at| at.min(drained_by)));
            }
            // Emitted last: after this event, no caller gets a connection to the Pod.
            group.events.emit(Event::EndpointDrained { endpoint });
        }
        // A removed Pod may have been the reason why another Pod is fenced.
        self.judge_claims(now);
        self.changed = true;
    }
}
