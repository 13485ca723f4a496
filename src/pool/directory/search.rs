//! The search for a Pod with a role that callers wait for and that no Pod of the client's subset has.
//!
//! A client searches only while a caller waits for the role and for [`KEPT_FOR`] after the last caller has left, or,
//! less often, to measure replication lag or because a caller prefers the role (`prefer-primary`, `prefer-standby`). It
//! first tries the Pod from which one of its standbys receives the log, because that is most likely the primary, and
//! then the other Pods in its ranking. During the search for the primary, one of the standbys is queried for this Pod
//! every second. In a large fleet, the steps are spread over time, so that the servers are not dialed by all clients at
//! the same moment.

use super::{Directory, Member};
use crate::{
    balance::subset::{ROLE_CANDIDATES, Search},
    config::Target,
    endpoint::{Endpoint, Role},
    pool::pod::{
        fleet::Fleet,
        jitter::{jittered, random},
    },
    time::{Duration, Instant},
    wire::server_facts::Upstream,
};

/// While a caller waits for the role, a Pod is not tried again for this long after a passed probe. Longer in a large
/// fleet.
const TRIED_FOR: Duration = Duration::from_secs(1);
/// The same while no caller waits, and the role is needed to measure replication lag or because callers prefer it.
const TRIED_FOR_LAG: Duration = Duration::from_secs(5);
/// While a caller waits for the primary, a Pod that had no free connection slot is skipped for at most this long,
/// because it may have been promoted. Longer in a large fleet.
const FULL_FOR: Duration = Duration::from_secs(5);

/// A search continues for this long after the last caller has left. Callers with short deadlines leave before the
/// search has tried all Pods, and the next caller would start it again.
const KEPT_FOR: Duration = Duration::from_secs(5);
/// Interval at which one of the standbys is queried for the server from which it receives its log.
const QUERY_INTERVAL: Duration = Duration::from_secs(1);
/// Jitter of [`QUERY_INTERVAL`], as a fraction in either direction.
const JITTER: f64 = 0.2;

/// The state of the search.
#[derive(Debug, Default)]
pub(super) struct RoleSearch {
    /// Bit set of the [roles](Target::roles) that callers wait for and that no Pod can serve.
    starving: u8,
    /// The roles whose last caller has left before they were found, each with the time at which its search ends.
    left: Vec<(u8, Instant)>,
    /// Earliest time of the next step.
    next_step: Option<Instant>,
    /// The Pods from which standbys receive their logs, each with the time at which this became known.
    hints: Vec<(Endpoint, Instant)>,
    /// Time of the next query of a standby.
    next_query: Option<Instant>,
    /// Number of queries so far.
    queries: usize,
}

impl RoleSearch {
    /// Sets the roles that callers wait for. Returns the ones for which no caller has waited before.
    fn set_starving(&mut self, roles: u8, now: Instant) -> u8 {
        let before = std::mem::replace(&mut self.starving, roles);
        self.left.retain(|(bit, _)| bit & roles == 0);
        for bit in [Target::WRITES, Target::READS] {
            if bit & before & !roles != 0 {
                self.left.push((bit, now + KEPT_FOR));
            }
        }
        roles & !before
    }

    /// Returns true while a caller waits for one of the roles in `bits`, and for [`KEPT_FOR`] longer.
    pub(super) fn is_wanted(&self, bits: u8, now: Instant) -> bool {
        self.starving & bits != 0 || self.left.iter().any(|(bit, until)| bit & bits != 0 && *until > now)
    }

    /// Returns the time at which the search for a role ends because its last caller has left.
    pub(super) fn kept_until(&self, now: Instant) -> Option<Instant> {
        self.left.iter().map(|(_, until)| *until).filter(|until| *until > now).min()
    }

    /// Records that the client uses a Pod with the role `bit`.
    pub(super) fn found(&mut self, bit: u8) {
        self.left.retain(|(left, _)| *left != bit);
    }

    /// Returns the permitted part of the search for the role `bit`. `in_background` is true if the role is needed even
    /// while no caller waits for it.
    pub(super) fn permitted(&self, bit: u8, in_background: bool, now: Instant) -> Search {
        match self.next_step {
            _ if !self.is_wanted(bit, now) && !in_background => Search::Off,
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

    /// Returns the time at which a Pod may be tried from which a standby receives its log. All clients detect a new
    /// primary at about the same time, so in a large fleet each client waits for a part of the dial interval. `unit` is
    /// a number from 0 to 1 that differs between clients.
    pub(super) fn hint_usable_at(&mut self, pod: &Endpoint, fleet: Fleet, unit: f64, now: Instant) -> Instant {
        let known = self.hints.iter().find(|(hinted, _)| hinted == pod).map(|(_, since)| *since);
        let since = known.unwrap_or_else(|| {
            self.hints.push((pod.clone(), now));
            now
        });
        since + fleet.first_dial_delay(unit)
    }

    /// Forgets the hints to Pods for which `is_hinted` returns false.
    pub(super) fn retain_hints(&mut self, is_hinted: impl Fn(&Endpoint) -> bool) {
        self.hints.retain(|(pod, _)| is_hinted(pod));
    }

    /// Returns the number of the query that is due, if one is due. `unit` is a random number from 0 to 1.
    fn take_query(&mut self, now: Instant, unit: f64) -> Option<usize> {
        if self.next_query.is_some_and(|at| at > now) {
            return None;
        }
        self.next_query = Some(now + jittered(QUERY_INTERVAL, JITTER, unit));
        self.queries += 1;
        Some(self.queries)
    }

    /// Requests that one of the standbys is queried for the server from which it receives its log, if a query is due.
    /// Returns the time of the next one. Does nothing unless `bit` is the primary's role and a caller waits for it.
    pub(super) fn query_standby(&mut self, bit: u8, members: &[Member], now: Instant) -> Option<Instant> {
        if bit != Target::WRITES || !self.is_wanted(bit, now) {
            return None;
        }
        let standbys: Vec<_> = members.iter().filter(|member| is_standby(member)).collect();
        if let Some(number) = self.take_query(now, random())
            && !standbys.is_empty()
        {
            standbys[number % standbys.len()].query_at_next_check();
        }
        self.next_query
    }

    /// Ends the current search, because the role was found or is no longer needed.
    pub(super) fn end(&mut self) {
        (self.next_step, self.next_query) = (None, None);
        self.hints.clear();
    }

    /// Returns the time for which a Pod is not tried again after a passed probe.
    pub(super) fn tried_for(&self, fleet: Fleet, now: Instant) -> Duration {
        let is_wanted = self.is_wanted(Target::WRITES | Target::READS, now);
        if is_wanted { TRIED_FOR.max(fleet.dial_interval()) } else { TRIED_FOR_LAG }
    }

    /// Returns the maximum time for which a Pod without a free connection slot is skipped, if it is limited.
    pub(super) fn max_full_for(&self, fleet: Fleet, now: Instant) -> Option<Duration> {
        self.is_wanted(Target::WRITES, now).then(|| FULL_FOR.max(fleet.dial_interval()))
    }
}

fn is_standby(member: &Member) -> bool {
    member.role == Role::Standby && member.passes_probes()
}

/// Returns each element once, in the order of their first occurrences.
fn distinct(upstreams: impl Iterator<Item = Upstream>) -> Vec<Upstream> {
    let mut found = Vec::new();
    for upstream in upstreams {
        if !found.contains(&upstream) {
            found.push(upstream);
        }
    }
    found
}

impl Directory {
    /// Records the targets that callers of a pool wait for and that no Pod can serve.
    pub(super) fn on_starving(&mut self, pool: u64, targets: u32, now: Instant) {
        self.starving.retain(|(other, _)| *other != pool);
        self.starving.extend((targets != 0).then_some((pool, targets)));
        let targets = self.starving.iter().fold(0, |all, (_, targets)| all | targets);
        let Some(subset) = &mut self.subset else { return };
        let starving = Target::ARRAY.into_iter().filter(|target| target.bit() & targets != 0);
        let starving = starving.fold(0, |roles, target| roles | target.roles());
        let continues = subset.search.is_wanted(Target::WRITES, now);
        let new = subset.search.set_starving(starving, now);
        self.reconsider = true;
        if new & Target::WRITES != 0 && !continues {
            // The standbys may report the address of the new primary.
            let standbys = self.members.all().iter().filter(|member| member.role == Role::Standby);
            standbys.for_each(|member| member.pod.server.probe_wanted.notify_one());
        }
    }

    /// Returns the servers from which the standbys in use receive their logs, each once. Returns none while no caller
    /// waits for the primary.
    pub(super) fn upstreams(&self, now: Instant) -> Vec<Upstream> {
        if !self.subset.as_ref().is_some_and(|subset| subset.search.is_wanted(Target::WRITES, now)) {
            return Vec::new();
        }
        let standbys = self.members.all().iter().filter(|member| is_standby(member));
        distinct(standbys.filter_map(|member| member.last_probe.and_then(|probe| probe.facts.upstream)))
    }

    /// Returns the bit set of the [roles](Target::roles) that are needed to measure replication lag: the primary's if a
    /// lag limit is configured, or if calls with a limit of their own are made.
    pub(super) fn roles_for_lag(&self) -> u8 {
        let configured = self.subset.as_ref().map_or(0, |subset| subset.for_lag);
        let now = self.pools.iter().map(|pool| pool.shared().clock.now()).max().unwrap_or(0);
        let demanded = self.group.lag_demand.interval(now).is_some();
        if demanded { Target::WRITES } else { configured }
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
        assert_eq!(search.set_starving(Target::WRITES, now), Target::WRITES);
        assert_eq!(search.permitted(Target::WRITES, false, now), Search::Continue);
        assert_eq!(search.permitted(Target::READS, false, now), Search::Off);
    }

    #[test]
    fn a_search_continues_for_some_seconds_after_the_last_caller_has_left() {
        let now = Instant::now();
        let (before_end, end) = (now + KEPT_FOR - Duration::from_millis(1), now + KEPT_FOR);
        let mut search = RoleSearch::default();
        search.set_starving(Target::WRITES, now);
        assert_eq!(search.set_starving(0, now), 0);
        assert_eq!(search.kept_until(now), Some(end));
        assert_eq!(search.permitted(Target::WRITES, false, before_end), Search::Continue);
        assert_eq!(search.permitted(Target::READS, false, before_end), Search::Off);
        assert_eq!(search.permitted(Target::WRITES, false, end), Search::Off);
        // A further caller prolongs the search, and the discovery of the role ends it.
        search.set_starving(Target::WRITES, before_end);
        assert_eq!(search.kept_until(before_end), None);
        search.set_starving(0, before_end);
        assert_eq!(search.permitted(Target::WRITES, false, end), Search::Continue);
        search.found(Target::WRITES);
        assert_eq!(search.permitted(Target::WRITES, false, before_end), Search::Off);
    }

    #[test]
    fn standbys_are_queried_in_turn_every_second() {
        let (now, mut search) = (Instant::now(), RoleSearch::default());
        let after = |millis| now + Duration::from_millis(millis);
        assert_eq!(search.take_query(now, 0.5), Some(1));
        assert_eq!(search.take_query(after(999), 0.5), None);
        assert_eq!(search.take_query(after(1000), 1.0), Some(2));
        assert_eq!(search.take_query(after(2199), 0.5), None);
        assert_eq!(search.take_query(after(2200), 0.5), Some(3));
    }

    #[test]
    fn upstreams_are_distinct() {
        let [a, b] = ["10.0.0.1 5432", "10.0.0.2 5432"].map(|text| Upstream::parse(text).expect("an upstream"));
        assert_eq!(distinct([a, a, b, a].into_iter()), [a, b]);
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
    }

    #[test]
    fn each_hinted_pod_is_tried_within_the_dial_interval_after_its_own_hint() {
        let (now, fleet) = (Instant::now(), Fleet::new(Some(500)));
        let [a, b] = [1, 2].map(|pod| Endpoint::new(([10, 0, 0, pod], 5432).into()));
        let mut search = RoleSearch::default();
        let (first, last) = (search.hint_usable_at(&a, fleet, 0.0, now), search.hint_usable_at(&a, fleet, 1.0, now));
        assert_eq!((first, last), (now, now + fleet.dial_interval()));
        let later = now + Duration::from_secs(30);
        assert_eq!(search.hint_usable_at(&a, fleet, 1.0, later), last);
        assert_eq!(search.hint_usable_at(&b, fleet, 1.0, later), later + fleet.dial_interval());
        search.retain_hints(|hinted| *hinted == b);
        assert_eq!(search.hint_usable_at(&a, fleet, 0.0, later), later);
    }
}
