//! The search for a Pod with a role that callers wait for and that no Pod of the client's subset has.
//!
//! A client searches only while a caller waits for the role, or, less often, to measure replication lag. It first tries
//! the Pod from which one of its standbys receives the log, because that is most likely the primary, and then the other
//! Pods in its ranking. In a large fleet, the steps are spread over time, so that the servers are not dialed by all
//! clients at the same moment.

use super::{Directory, Member};
use crate::{
    balance::subset::{ROLE_CANDIDATES, Search},
    config::Target,
    endpoint::Role,
    pool::pod::fleet::Fleet,
    time::{Duration, Instant},
    wire::server_facts::Upstream,
};

/// While a caller waits for the role, a Pod is not tried again for this long after a passed probe. Longer in a large
/// fleet.
const TRIED_FOR: Duration = Duration::from_secs(1);
/// The same while no caller waits and the role is needed only to measure replication lag.
const TRIED_FOR_LAG: Duration = Duration::from_secs(5);
/// While a caller waits for the primary, a Pod that had no free connection slot is skipped for at most this long,
/// because it may have been promoted. Longer in a large fleet.
const FULL_FOR: Duration = Duration::from_secs(5);

/// The state of the search.
#[derive(Debug, Default)]
pub(super) struct RoleSearch {
    /// Bit set of the [roles](Target::roles) that callers wait for and that no Pod can serve.
    starving: u8,
    /// Earliest time of the next step.
    next_step: Option<Instant>,
    /// Time at which the Pod was first known from which a standby receives its log.
    hinted_since: Option<Instant>,
}

impl RoleSearch {
    /// Returns true while a caller waits for one of the roles in `bits`.
    pub(super) fn is_starving(&self, bits: u8) -> bool {
        self.starving & bits != 0
    }

    /// Returns the permitted part of the search for the role `bit`. `for_lag` is true if the role is needed to measure
    /// replication lag.
    pub(super) fn permitted(&self, bit: u8, for_lag: bool, now: Instant) -> Search {
        match self.next_step {
            _ if !self.is_starving(bit) && !for_lag => Search::Off,
            Some(at) if at > now => Search::Wait,
            _ => Search::Continue,
        }
    }

    /// Records a step that has added `added` of `pods` Pods. Returns the time of the next step if it must wait.
    pub(super) fn stepped(&mut self, added: usize, pods: usize, fleet: Fleet, now: Instant) -> Option<Instant> {
        if added > 0 {
            let share = ROLE_CANDIDATES as f64 / pods.max(1) as f64;
            self.next_step = Some(now + fleet.dial_interval().mul_f64(share.min(1.0)));
        }
        self.next_step.filter(|at| *at > now)
    }

    /// Returns the time at which the Pod from which a standby receives its log may be tried. All clients detect a new
    /// primary at about the same time, so in a large fleet each client waits for a part of the dial interval. `unit` is
    /// a number from 0 to 1 that differs between clients.
    pub(super) fn hint_usable_at(&mut self, fleet: Fleet, unit: f64, now: Instant) -> Instant {
        *self.hinted_since.get_or_insert(now) + fleet.first_dial_delay(unit)
    }

    /// Ends the current search, because the role was found or is no longer needed.
    pub(super) fn end(&mut self) {
        (self.next_step, self.hinted_since) = (None, None);
    }

    /// Returns the time for which a Pod is not tried again after a passed probe.
    pub(super) fn tried_for(&self, fleet: Fleet) -> Duration {
        if self.starving == 0 { TRIED_FOR_LAG } else { TRIED_FOR.max(fleet.dial_interval()) }
    }

    /// Returns the maximum time for which a Pod without a free connection slot is skipped, if it is limited.
    pub(super) fn max_full_for(&self, fleet: Fleet) -> Option<Duration> {
        self.is_starving(Target::WRITES).then(|| FULL_FOR.max(fleet.dial_interval()))
    }
}

impl Directory {
    /// Records the targets that callers wait for and that no Pod can serve.
    pub(super) fn on_starving(&mut self, targets: u32) {
        let Some(subset) = &mut self.subset else { return };
        let starving = Target::ARRAY.into_iter().filter(|target| target.bit() & targets != 0);
        let starving = starving.fold(0, |roles, target| roles | target.roles());
        let before = std::mem::replace(&mut subset.search.starving, starving);
        self.reconsider |= before != starving;
        if starving & !before & Target::WRITES != 0 {
            // The standbys may report the address of the new primary.
            let standbys = self.members.all().iter().filter(|member| member.role == Role::Standby);
            standbys.for_each(|member| member.pod.probe_wanted.notify_one());
        }
    }

    /// Returns the servers from which the standbys in use receive their logs.
    pub(super) fn upstreams(&self) -> Vec<Upstream> {
        let standbys =
            self.members.all().iter().filter(|member| member.role == Role::Standby && member.passes_probes());
        let upstream = |member: &Member| member.last_probe.and_then(|probe| probe.facts.upstream);
        standbys.filter_map(upstream).collect()
    }

    /// Ends the period in which Pods without a free connection slot are skipped, because one of them may have become
    /// the primary.
    pub(super) fn retry_full(&mut self) {
        if let Some(subset) = &mut self.subset {
            subset.retry_full();
            self.reconsider = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_searches_only_while_a_caller_waits_or_lag_is_measured() {
        let now = Instant::now();
        let mut search = RoleSearch::default();
        assert_eq!(search.permitted(Target::WRITES, false, now), Search::Off);
        assert_eq!(search.permitted(Target::WRITES, true, now), Search::Continue);
        search.starving = Target::WRITES;
        assert_eq!(search.permitted(Target::WRITES, false, now), Search::Continue);
        assert_eq!(search.permitted(Target::READS, false, now), Search::Off);
    }

    #[test]
    fn a_large_fleet_spreads_the_search_over_the_dial_interval() {
        let (now, fleet) = (Instant::now(), Fleet::new(Some(500)));
        let mut search = RoleSearch { starving: Target::WRITES, ..RoleSearch::default() };
        assert_eq!(search.stepped(2, 20, Fleet::new(None), now), None, "a small fleet does not wait");
        let next = search.stepped(2, 20, fleet, now).expect("a large fleet waits");
        assert_eq!(search.permitted(Target::WRITES, false, now), Search::Wait);
        assert_eq!(search.permitted(Target::WRITES, false, next), Search::Continue);
        // Each step dials 2 of 20 Pods.
        let dials_per_pod = 500.0 * 2.0 / 20.0 / (next - now).as_secs_f64();
        assert!(dials_per_pod < 200.0, "{dials_per_pod}");
        let (first, last) = (search.hint_usable_at(fleet, 0.0, now), search.hint_usable_at(fleet, 1.0, now));
        assert_eq!((first, last), (now, now + fleet.dial_interval()));
    }
}
