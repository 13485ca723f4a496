//! Who exists: what an answer of the resolver changes.

use super::{Directory, member::Member};
use crate::{
    discovery::{Resolution, ResolveError},
    endpoint::Endpoint,
    error::BoxError,
    event::{Event, chain},
    health::state::HealthEvent,
    pool::pod::{Pod, resolved::Resolved},
    sync::lock,
    time::Instant,
};

impl Directory {
    pub(super) fn resolved(&mut self, result: Result<Resolution, ResolveError>, now: Instant) -> Option<Instant> {
        if let Ok(resolution) = &result
            && !resolution.endpoints.is_empty()
            && self.is_known(&resolution.endpoints)
        {
            self.resolve_succeeded(now);
            self.confirm.unchanged();
            return None;
        }
        let known = self.known();
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
        self.exist(&decision.set, now);
        decision.again
    }

    /// Whether exactly these are known to exist.
    fn is_known(&self, named: &[Endpoint]) -> bool {
        match &self.subset {
            Some(subset) => subset.is(named),
            None => self.members.is(named),
        }
    }

    /// Everybody who is known to exist, with whether he passes his health check.
    fn known(&self) -> Vec<(Endpoint, bool)> {
        let passing = |endpoint| self.members.get(endpoint).is_some_and(|member| member.health.passing());
        match &self.subset {
            Some(subset) => subset.everybody().map(|endpoint| (endpoint.clone(), passing(endpoint))).collect(),
            None => {
                let members = self.members.all().iter();
                members.map(|member| (member.pod.endpoint.clone(), member.health.passing())).collect()
            }
        }
    }

    fn resolve_succeeded(&mut self, now: Instant) {
        let before = std::mem::replace(
            &mut *lock(&self.inner.shared.resolved),
            Resolved { at: Some(now), failures: 0, error: None },
        );
        if before.failures > 0 {
            self.inner.shared.events.emit(Event::ResolveRecovered);
        }
    }

    fn resolve_failed(&mut self, error: ResolveError) {
        let cause = chain(&(Box::new(error) as BoxError));
        let failures = {
            let mut resolved = lock(&self.inner.shared.resolved);
            resolved.failures += 1;
            resolved.error = Some(cause.clone());
            resolved.failures
        };
        if failures == 1 {
            self.inner.shared.events.emit(Event::ResolveFailed { cause });
        } else {
            tracing::debug!(error = %cause, failures, "the name still does not resolve");
        }
    }

    /// Makes the set in use what it is named to be. Unchanged Pods are not touched.
    pub(super) fn replace(&mut self, named: &[Endpoint], now: Instant) {
        let patience = self.patience();
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
            shared.events.emit(Event::EndpointDrained { endpoint: member.pod.endpoint.clone() });
            let until = now + shared.limits.drain_timeout;
            // One that has fallen silent gets no more time for being gone from the name as well.
            let abort_at = member.silent_since().map_or(until, |since| since + patience);
            self.drain.begin(member, until.min(abort_at));
        }
        // Who was fenced for another's sake may be free of it.
        self.judge_claims();
        self.changed = true;
    }
}
