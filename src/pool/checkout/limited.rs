//! Checkouts with a limit on the age of a server's data (`max_lag` of a call).
//!
//! The age of a standby's data is known from probes: at the time when the primary reported a position that the standby
//! has replayed, the data was current. The age is the time since then. It is an upper bound, because the standby may
//! have replayed more since its last probe. The bound is compared with the limit when a Pod is chosen, when a returned
//! connection is handed to a waiter, and once more after a ping.

use std::sync::Arc;

use crate::{
    balance::select,
    config::{LagFallback, Target},
    endpoint::Role,
    pool::{
        inner::Inner,
        pod::{
            Pod,
            client::Client,
            message::Message,
            requirement::{self, Requirement},
            view::View,
        },
    },
};

impl Inner {
    /// Records the demand for a limited requirement. Returns the primary instead, if no standby fulfills the limit now
    /// and the primary may replace standbys.
    pub(crate) fn with_fallback(&self, requirement: Requirement) -> Requirement {
        let target = requirement.target();
        // The age is measured by comparing the standbys with the primary.
        self.shared.request_target(Target::Primary);
        let begins = requirement
            .step()
            .is_some_and(|step| self.shared.group.lag_demand.request(step, self.shared.clock.verify()));
        let falls_back = target == Target::PreferStandby
            || self.shared.limits.lag_fallback == LagFallback::Primary && target.excludes_writable_primary();
        self.with_view(|view, _, _| {
            if begins {
                self.shared.send(Message::LagDemanded);
                view.pods().for_each(|(pod, _)| pod.server.probe_wanted.notify_one());
            }
            let has_primary = !view.snapshot.candidates(Target::Primary.index()).is_empty();
            if falls_back && has_primary && !is_fulfilled(view, requirement) {
                Target::Primary.into()
            } else {
                requirement
            }
        })
    }

    /// Takes an idle connection for a limited requirement. Also returns the requirement that replaces it.
    #[cold]
    pub(crate) fn try_limited(&self, requirement: Requirement) -> (Requirement, Option<Client>) {
        let requirement = self.with_fallback(requirement);
        let found = match requirement.step() {
            None => self.try_checkout(requirement.target()),
            Some(_) => self.search_limited(requirement),
        };
        (requirement, found.filter(|client| Self::is_within_limit(client, requirement)))
    }

    /// Takes an idle connection to a Pod that fulfills a limited requirement. Skips a Pod if it can serve a caller that
    /// is already waiting.
    fn search_limited(&self, requirement: Requirement) -> Option<Client> {
        self.verify_clock();
        let mut missed: Option<Arc<Pod>> = None;
        let found = self.with_view(|View { snapshot, .. }, rng, scratch| {
            let waiting = self.shared.waiters.waiting();
            let eligible = |pod: &Arc<Pod>| {
                !pod.has_pending_ping()
                    && !requirement::serves(&pod.slot, waiting)
                    && requirement::serves(&pod.slot, requirement.bit())
            };
            let take = |pod: &Arc<Pod>| if eligible(pod) { pod.try_take() } else { None };
            let miss = |pod: &Arc<Pod>| {
                if missed.is_none() && eligible(pod) {
                    missed = Some(pod.clone());
                }
            };
            select(snapshot, requirement.target().index(), &self.chooser, rng, scratch, take, miss)
        });
        if let (Some(_), Some(missed)) = (&found, missed) {
            missed.miss();
        }
        found
    }

    /// Returns true if there is no limit, or the server of a connection fulfills it now.
    #[inline]
    pub(crate) fn is_within_limit(client: &Client, requirement: Requirement) -> bool {
        requirement.step().is_none() || Self::fulfills(client, requirement)
    }

    /// Returns true if the server of a connection fulfills a limit now. A server that reports that it is a standby is
    /// not believed to be current as a primary.
    #[cold]
    fn fulfills(client: &Client, requirement: Requirement) -> bool {
        !Self::has_former_role(client) && requirement::serves(&client.pod().slot, requirement.bit())
    }

    /// Returns true if a session was opened while the server of a primary was a standby, and has not reported its new
    /// role yet, or if a primary was just demoted.
    pub(crate) fn has_former_role(client: &Client) -> bool {
        client.pod().slot.is_current() && client.record().role() == Role::Standby
    }
}

/// Returns true if a Pod fulfills the requirement now.
pub(crate) fn is_fulfilled(view: &View, requirement: Requirement) -> bool {
    let snapshot = &view.snapshot;
    let mut candidates = snapshot.candidates(requirement.target().index()).iter();
    candidates.any(|candidate| requirement::serves(snapshot.slots().slot(candidate.slot), requirement.bit()))
}
