//! Checks whether a server allows as many connections as all clients together may open.

use super::Directory;
use crate::{config::Target, endpoint::Role, event::Event, pool::pod::connection_limit::Demand, trace::pod_line};

impl Directory {
    /// Checks whether a server allows each pool as many connections as all clients together may open, and reports the
    /// result. The number of the allowed connections depends on the user and the database, so the pools of a group are
    /// not added up.
    pub(super) fn check_capacity(&mut self, serial: u64) {
        let (used, pods) = match &self.subset {
            Some(subset) => subset.counts(),
            None => (self.members.all().len(), self.members.all().len()),
        };
        let writes = self.subset.as_ref().is_none_or(|subset| subset.uses(Target::WRITES));
        let clients = self.group.limits.clients;
        let Some(member) = self.find(serial) else { return };
        let used_by_all = writes && member.role == Role::Primary;
        for part in &mut member.parts {
            let Some(slots) = part.slots else { continue };
            let pod = &part.pod;
            let per_client = pod.size() + 1;
            let endpoint = pod.endpoint.clone();
            let shortfall = Demand { per_client, clients, used, pods, used_by_all }.shortfall(slots);
            let reported = std::mem::replace(&mut part.shortfall, shortfall.clone());
            match shortfall {
                None => pod_line!(info, pod, slots, per_client, "the server's connection limit is sufficient"),
                Some(cause) if reported.as_ref() == Some(&cause) => {}
                Some(cause) => {
                    pod.shared().events.emit(Event::ServerOversubscribed { endpoint, cause: cause.into() });
                }
            }
        }
    }
}
