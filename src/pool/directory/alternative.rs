//! Dual-stack Pods: applies the decision of [`health::alternative`](crate::health::alternative) to the members.

use super::{Directory, member::Member};
use crate::{
    event::Event,
    health::{
        State,
        alternative::{Address, Identity, Usability, alternatives},
    },
};

impl Directory {
    /// Decides which members are alternative addresses of other members.
    pub(super) fn judge_alternatives(&mut self) {
        if !self.changed {
            return;
        }
        let addresses: Vec<_> = self.members.all().iter().map(Member::address).collect();
        let endpoint = |index: usize| self.members.all()[index].pod.endpoint.clone();
        let used: Vec<_> = alternatives(&addresses).into_iter().map(|used| used.map(endpoint)).collect();
        let mut found = Vec::new();
        for (member, used) in self.members.all_mut().iter_mut().zip(used) {
            if member.alternative_of == used {
                continue;
            }
            let was_used = member.alternative_of.is_none();
            member.alternative_of = used.clone();
            self.reconsider = true;
            if let Some(subset) = &mut self.subset {
                subset.set_alternative(&member.pod.endpoint, used.clone());
            }
            if let (Some(used), true) = (used, was_used) {
                member.purge();
                found.push((member.pod.endpoint.clone(), used));
            }
        }
        for (endpoint, used) in found {
            self.group.events.emit(Event::EndpointAlternative { endpoint, used });
        }
    }
}

impl Member {
    /// Returns the identity of the server that answered the last passed probe.
    pub(super) fn identity(&self) -> Option<Identity> {
        let facts = self.last_probe?.facts;
        Some(Identity { system: facts.system?, started: facts.started? })
    }

    /// Returns true if another address of the same dual-stack Pod is used instead of this one.
    pub(super) fn is_alternative(&self) -> bool {
        self.alternative_of.is_some()
    }

    /// Returns the properties that determine whether this is an alternative address.
    fn address(&self) -> Address {
        let usability = match self.health.state() == State::Healthy {
            false => Usability::Failing,
            true if self.is_absent() => Usability::Absent,
            true => Usability::Named,
        };
        let is_ipv6 = self.pod.endpoint.address().ip().is_some_and(|ip| ip.is_ipv6());
        let (is_alternative, in_use) = (self.is_alternative(), self.pods().any(|pod| pod.slot.targets() != 0));
        Address { identity: self.identity(), is_ipv6, usability, is_alternative, in_use }
    }
}
