//! The subset of Pods that this client uses if `subset_size` or `max_connections` is set.
//!
//! Each client ranks the Pods behind the Service name in a different order. A client uses the highest-ranked Pods that
//! serve, plus one further Pod for each requested role that none of these Pods has. For all other Pods, the client
//! keeps only the name and address, opens no connections and sends no probes. The algorithm is in
//! [`balance::subset`](crate::balance::subset).

use std::{cmp::Reverse, sync::Arc};

use super::{
    Directory,
    member::{Member, Usage},
    search::RoleSearch,
};
use crate::{
    balance::subset::{Coverage, Ranked, Ranking, Search, Standing, choose, cover_role},
    config::{Config, Target},
    endpoint::{Endpoint, Role, set::KnownSet},
    pool::pod::{
        connection_limit::{Division, max_pods},
        jitter::jittered,
    },
    system::random,
    time::{Duration, Instant},
};

/// A Pod that has failed is skipped for this long while other Pods serve.
const FAILED_FOR: Duration = Duration::from_secs(5);
/// A Pod whose server has no free connection slot is skipped for this long while other Pods serve.
const FULL_FOR: Duration = Duration::from_secs(60);
/// While no Pod serves, a failed or full Pod is skipped for at most this long.
const NONE_SERVES_FOR: Duration = Duration::from_secs(1);
/// Jitter of [`FAILED_FOR`] and [`FULL_FOR`], as a fraction in either direction, derived from the Pod's score.
const JITTER: f64 = 0.25;

/// All Pods behind the name, ranked for this client.
#[derive(Debug)]
pub(crate) struct Subset {
    ranking: Ranking,
    /// The configured `subset_size`.
    size: Option<usize>,
    /// The configured `max_connections`.
    max_connections: Option<usize>,
    known: KnownSet,
    /// All Pods, highest rank first.
    pub(super) named: Vec<Named>,
    /// Number of Pods in `named` whose absence from DNS is confirmed. They are used in addition to the subset.
    absent: usize,
    /// Bit set of the [roles](Target::roles) that callers have requested.
    requested: u8,
    /// Bit set of the [roles](Target::preferred_roles) that callers prefer. They never wait for these roles.
    preferred: u8,
    /// [`Target::WRITES`] if a lag limit is configured: replication lag is measured against the primary, so the client
    /// uses a primary even if no caller has requested one.
    pub(super) for_lag: u8,
    pub(super) search: RoleSearch,
    /// Time at which the subset must be chosen again, unless an event requires this earlier.
    choose_again_at: Option<Instant>,
}

#[derive(Debug)]
pub(super) struct Named {
    endpoint: Endpoint,
    score: u64,
    /// Start and end of the period in which the Pod is skipped.
    passed_over: Option<(Instant, Instant)>,
    /// True if the Pod is skipped because its server had no free connection slot.
    full: bool,
    /// Time of the last passed probe of this Pod.
    passed_at: Option<Instant>,
    /// The address that was last used instead of this one, if both are addresses of the same dual-stack Pod.
    alternative_of: Option<Endpoint>,
}

impl Subset {
    /// Creates an empty subset. Returns `None` if neither setting is present, so that the client uses all Pods.
    pub(crate) fn new(config: &Config) -> Option<Self> {
        let limits = config.limits();
        if limits.subset_size.is_none() && limits.max_connections.is_none() {
            return None;
        }
        let ranking = match config.client_id() {
            Some(id) => Ranking::new(&id),
            None => Ranking::new(&random::seed()),
        };
        Some(Self {
            ranking,
            size: limits.subset_size,
            max_connections: limits.max_connections,
            known: KnownSet::default(),
            named: Vec::new(),
            absent: 0,
            requested: config.target().roles(),
            preferred: config.target().preferred_roles(),
            for_lag: if limits.max_lag.is_some() || limits.max_lag_bytes.is_some() { Target::WRITES } else { 0 },
            search: RoleSearch::default(),
            choose_again_at: None,
        })
    }

    /// Returns true if the known Pods are exactly the Pods in `named`.
    pub(super) fn matches(&self, named: &[Endpoint]) -> bool {
        self.known.matches(named)
    }

    /// Returns all known Pods.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.named.iter().map(|named| &named.endpoint)
    }

    /// Replaces the known Pods with `set`.
    pub(super) fn set_endpoints(&mut self, set: &[Endpoint]) {
        let diff = self.known.replace(set);
        for changed in diff.changed {
            if let Some(named) = self.find(&changed) {
                named.endpoint = changed;
            }
        }
        self.named.retain(|named| diff.removed.binary_search(&named.endpoint).is_err());
        for named in &mut self.named {
            named.alternative_of.take_if(|used| diff.removed.binary_search(used).is_ok());
        }
        self.named.extend(diff.added.into_iter().map(|endpoint| Named {
            score: self.ranking.score(&endpoint),
            endpoint,
            passed_over: None,
            full: false,
            passed_at: None,
            alternative_of: None,
        }));
        // A Pod with a higher priority number is used only if there are too few others.
        let rank = |named: &Named| (named.endpoint.priority(), Reverse(named.score));
        self.named.sort_by(|a, b| rank(a).cmp(&rank(b)).then_with(|| a.endpoint.cmp(&b.endpoint)));
    }

    /// Records the address that is used instead of `endpoint`, if there is one.
    pub(super) fn set_alternative(&mut self, endpoint: &Endpoint, used: Option<Endpoint>) {
        if let Some(named) = self.find(endpoint) {
            named.alternative_of = used;
        }
    }

    fn find(&mut self, endpoint: &Endpoint) -> Option<&mut Named> {
        self.named.iter_mut().find(|named| named.endpoint == *endpoint)
    }

    /// Returns the time at which the subset must be chosen again, unless an event requires this earlier.
    pub(super) fn choose_again_at(&self) -> Option<Instant> {
        self.choose_again_at
    }

    /// Ends the period in which Pods without a free connection slot are skipped.
    pub(super) fn retry_full(&mut self) {
        self.named.iter_mut().filter(|named| named.full).for_each(|named| named.passed_over = None);
    }

    /// Returns the bit set of the [roles](Target::roles) that the client needs.
    pub(super) fn roles(&self) -> u8 {
        self.requested | self.for_lag
    }

    /// Returns the purpose for which the client uses a chosen Pod.
    fn usage(&self, ranked: &Ranked) -> Usage {
        match ranked.role {
            _ if !ranked.role_only => Usage::Full,
            Role::Primary if self.requested & Target::WRITES == 0 => Usage::Lag,
            _ => Usage::Role,
        }
    }

    /// Returns the size of the subset, and the maximum number of additional Pods that are used because of their role.
    pub(super) fn sizes(&self) -> (usize, usize) {
        let extra = self.roles().count_ones() as usize;
        // An absent Pod needs a pooled connection, a probe connection, and one for test dials.
        let alternatives = self.named.iter().filter(|named| named.alternative_of.is_some()).count();
        let pods = self.named.len() - (self.absent + alternatives).min(self.named.len());
        let size = self.size.unwrap_or(pods).min(pods);
        let limited = |limit: usize| size.min(max_pods(limit.saturating_sub(3 * self.absent), pods, extra));
        let size = self.max_connections.map_or(size, limited);
        (size, if size == pods { 0 } else { extra.min(pods - size) })
    }

    /// Returns the size of the subset, and the number of all Pods.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.sizes().0, self.named.len())
    }

    /// Returns true if the client needs one of these roles.
    pub(super) fn uses(&self, roles: u8) -> bool {
        self.roles() & roles != 0
    }

    /// Returns the division of `max_connections` among the Pods in use. Returns `None` if `max_connections` is not set.
    /// `fenced` is the number of fenced Pods and alternative addresses among them, each of which needs only a probe
    /// connection.
    fn division(&self, fenced: usize) -> Option<Division> {
        let (size, extra) = self.sizes();
        let pods = (size + extra + self.absent).saturating_sub(fenced);
        self.max_connections.map(|limit| {
            Division::of(
                limit.saturating_sub(fenced + self.absent),
                pods,
                size + extra + self.absent < self.named.len(),
            )
        })
    }
}

impl Named {
    /// Returns a number from 0 to 1 that differs between clients and between Pods.
    fn unit(&self) -> f64 {
        self.score as f64 / u64::MAX as f64
    }

    fn pass_over(&mut self, now: Instant, full: bool) {
        let duration = if full { FULL_FOR } else { FAILED_FOR };
        self.passed_over = Some((now, now + jittered(duration, JITTER, self.unit())));
        self.full = full;
    }

    /// Returns the end of the period in which the Pod is skipped, if that time is in the future. `max_full_for` limits
    /// the period of a full Pod.
    fn passed_over_until(&self, none_serves: bool, max_full_for: Option<Duration>, now: Instant) -> Option<Instant> {
        let (since, until) = self.passed_over?;
        let limit = if none_serves { Some(NONE_SERVES_FOR) } else { max_full_for.filter(|_| self.full) };
        Some(limit.map_or(until, |limit| until.min(since + limit))).filter(|&until| until > now)
    }

    fn ranked(&self, member: Option<&Member>, failing: bool, tried_for: Duration, now: Instant) -> Ranked {
        let standing = match member {
            _ if failing => Standing::Failing,
            None => Standing::Unused,
            Some(member) if member.fence.is_some() || member.is_alternative() || member.is_late() => Standing::Failing,
            Some(member) if member.serves() => Standing::Serving,
            Some(_) => Standing::Starting,
        };
        let role = member.map_or(Role::Unknown, |member| member.role);
        let tried = self.passed_at.is_some_and(|at| at + tried_for > now);
        Ranked { in_use: member.is_some_and(|member| !member.is_alternative()), ..Ranked::new(standing, role, tried) }
    }
}

impl Directory {
    /// Replaces the known Pods with `set`. If the client has no subset, all of them become members (Pods in use).
    pub(super) fn set_known(&mut self, set: &[Endpoint], now: Instant) {
        match &mut self.subset {
            None => self.replace_members(set, now),
            Some(subset) => {
                subset.set_endpoints(set);
                self.reconsider = true;
            }
        }
    }

    /// Records that callers have requested the targets in this bit set.
    pub(super) fn on_targets_requested(&mut self, targets: u32) {
        self.requested_targets |= targets;
        self.review_absences = true;
        if let Some(subset) = &mut self.subset {
            for target in Target::ARRAY.into_iter().filter(|target| target.bit() & targets != 0) {
                subset.requested |= target.roles();
                subset.preferred |= target.preferred_roles();
            }
            self.reconsider = true;
        }
    }

    /// Excludes a failed Pod from the subset for a while. `full` is true if the Pod's server had no free connection
    /// slot.
    pub(super) fn pass_over(&mut self, endpoint: &Endpoint, full: bool, now: Instant) {
        if let Some(named) = self.subset.as_mut().and_then(|subset| subset.find(endpoint)) {
            named.pass_over(now, full);
            self.reconsider = true;
        }
    }

    /// Excludes a Pod whose server has no free connection slot from the subset for a while, unless this client has open
    /// connections to the Pod.
    pub(super) fn on_full(&mut self, serial: u64, now: Instant) {
        let Some(member) = self.find(serial).filter(|member| !member.pod.server.is_connected()) else { return };
        let endpoint = member.pod.endpoint.clone();
        self.pass_over(&endpoint, true, now);
    }

    /// Records that a Pod has passed a probe. `returned` is true if this probe has made the Pod healthy.
    pub(super) fn on_probe_passed(&mut self, endpoint: &Endpoint, returned: bool, now: Instant) {
        if let Some(named) = self.subset.as_mut().and_then(|subset| subset.find(endpoint)) {
            named.passed_at = Some(now);
            if returned {
                named.passed_over = None;
            }
            self.reconsider = true;
        }
    }

    /// Chooses the Pods in use. Does nothing if no event since the last choice could change the result.
    pub(super) fn choose_subset(&mut self, now: Instant) {
        if !std::mem::take(&mut self.reconsider) {
            return;
        }
        let upstreams = self.upstreams(now);
        let (fleet, for_lag) = (self.group.fleet, self.roles_for_lag());
        let Some(subset) = &mut self.subset else { return };
        let (tried_for, max_full_for) = (subset.search.tried_for(fleet, now), subset.search.max_full_for(fleet, now));
        // Absent Pods are neither chosen nor replaced: they stay members until they are drained.
        let (absent, named): (Vec<_>, Vec<_>) =
            subset.named.iter().partition(|named| self.members.get(&named.endpoint).is_some_and(Member::is_absent));
        let absent: Vec<_> = absent.into_iter().map(|named| named.endpoint.clone()).collect();
        let none_serves = !self.members.all().iter().any(Member::serves);
        let mut again = None;
        let mut choose_again = |at: Instant| again = Some(again.map_or(at, |earlier: Instant| earlier.min(at)));
        let mut ranked = Vec::with_capacity(named.len());
        for named in &named {
            let until = named.passed_over_until(none_serves, max_full_for, now);
            until.into_iter().for_each(&mut choose_again);
            let serves = |used: &Endpoint| self.members.get(used).is_some_and(Member::serves);
            let failing = until.is_some() || named.alternative_of.as_ref().is_some_and(serves);
            ranked.push(named.ranked(self.members.get(&named.endpoint), failing, tried_for, now));
        }
        subset.absent = absent.len();
        let (size, _) = subset.sizes();
        choose(&mut ranked, size);
        let is_hinted = |pod: &Endpoint| upstreams.iter().any(|upstream| upstream.is(pod));
        subset.search.retain_hints(is_hinted);
        for (named, ranked) in named.iter().zip(&mut ranked).filter(|(named, _)| is_hinted(&named.endpoint)) {
            let at = subset.search.hint_usable_at(&named.endpoint, fleet, named.unit(), now);
            // Until then, the search passes over the Pod, because all clients may know the hint.
            (ranked.hinted, ranked.tried) = (at <= now, ranked.tried || at > now);
            Some(at).filter(|at| *at > now).into_iter().for_each(&mut choose_again);
        }
        subset.search.kept_until(now).into_iter().for_each(&mut choose_again);
        let mut searching = false;
        for (bit, role) in [(Target::WRITES, Role::Primary), (Target::READS, Role::Standby)] {
            if subset.roles() & bit == 0 {
                continue;
            }
            let permitted = subset.search.permitted(bit, (for_lag | subset.preferred) & bit != 0, now);
            match cover_role(&mut ranked, role, permitted) {
                Coverage::Covered => subset.search.found(bit),
                Coverage::Missing(_) if permitted == Search::Off => {}
                Coverage::Missing(added) => {
                    searching = true;
                    subset.search.stepped(added, named.len(), fleet, now).into_iter().for_each(&mut choose_again);
                    let tried_until = named.iter().filter_map(|named| named.passed_at.map(|at| at + tried_for));
                    tried_until.filter(|&at| at > now).for_each(&mut choose_again);
                    let query_at = subset.search.query_standby(bit, self.members.all(), now);
                    query_at.into_iter().for_each(&mut choose_again);
                }
            }
            // Only the search for the primary uses hints.
            ranked.iter_mut().for_each(|ranked| ranked.hinted = false);
        }
        if !searching {
            subset.search.end();
        }
        subset.choose_again_at = again;
        let (used, unused): (Vec<_>, Vec<_>) = named.iter().zip(&ranked).partition(|(_, ranked)| ranked.chosen);
        let role_only = used.iter().filter(|(_, ranked)| ranked.role_only);
        let usages: Vec<_> = role_only.map(|(named, ranked)| (named.endpoint.clone(), subset.usage(ranked))).collect();
        let mut used: Vec<_> = used.into_iter().map(|(named, _)| named.endpoint.clone()).collect();
        used.extend(absent);
        let unused: Arc<[Endpoint]> = unused.into_iter().map(|(named, _)| named.endpoint.clone()).collect();
        if self.unused != unused {
            self.unused = unused;
            self.changed = true;
        }
        self.replace_members(&used, now);
        for member in self.members.all_mut() {
            let limited = usages.iter().find(|(endpoint, _)| *endpoint == member.pod.endpoint);
            let usage = limited.map_or(Usage::Full, |(_, usage)| *usage);
            self.changed |= std::mem::replace(&mut member.usage, usage) != usage;
        }
        self.divide();
    }

    /// Sets each Pod's share of `max_connections`.
    pub(super) fn divide(&mut self) {
        let is_fenced = |member: &&Member| member.fence.is_some() || member.is_alternative();
        let fenced = self.members.all().iter().filter(is_fenced).count();
        let Some(division) = self.subset.as_ref().and_then(|subset| subset.division(fenced)) else { return };
        self.pools.iter().for_each(|pool| pool.shared().connection_limit.set(division));
        let (fenced, others): (Vec<_>, Vec<_>) = self.members.all().iter().partition(is_fenced);
        fenced.into_iter().flat_map(Member::pods).for_each(|pod| pod.set_size(0));
        for (i, member) in others.into_iter().enumerate() {
            let share = division.per_pod + usize::from(i < division.remainder);
            member.pods().for_each(|pod| pod.set_size(share.min(pod.shared().limits.pool_size)));
        }
        // A Pod whose share has grown may open a connection for a waiter now.
        self.pools.iter().for_each(|pool| pool.shared().waiters.wake_opener());
    }
}
