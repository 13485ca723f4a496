//! The subset of Pods that this client uses, if `subset_size` or `max_connections` limits it.
//!
//! Every Pod behind the name has a rank that depends on the client. The client uses the Pods of the highest rank that
//! serve, and one more for each requested role that none of these has. All other Pods are known by name and address
//! only: they have no pool, no probe and no connection. The algorithm is in
//! [`balance::subset`](crate::balance::subset).

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use super::{Directory, member::Member};
use crate::{
    balance::subset::{Ranked, Ranking, Standing, choose, cover_role},
    config::{Config, Target},
    endpoint::{Endpoint, Role, set::KnownSet},
    event::Event,
    pool::pod::connection_limit::{Demand, Division, max_pods},
    time::{Duration, Instant},
};

/// Time for which a failed Pod is passed over while other Pods serve.
const FAILED_FOR: Duration = Duration::from_secs(5);
/// Time for which a Pod without a free connection slot is passed over while other Pods serve.
const FULL_FOR: Duration = Duration::from_secs(60);
/// Maximum time for which a Pod is passed over while no Pod serves.
const NONE_SERVES_FOR: Duration = Duration::from_secs(1);
/// Time for which a Pod that was probed for its role is not probed for it again.
const SEEN_FOR: Duration = Duration::from_secs(1);
/// Jitter of the first two, as a fraction in either direction. It differs between clients and between Pods.
const JITTER: f64 = 0.25;

/// All Pods behind the name, ranked for this client.
#[derive(Debug)]
pub(crate) struct Subset {
    ranking: Ranking,
    /// `subset_size`.
    size: Option<usize>,
    /// `max_connections`.
    max_connections: Option<usize>,
    known: KnownSet,
    /// All Pods, highest rank first.
    named: Vec<Named>,
    /// The requested [roles](Target::roles).
    roles: u8,
    /// Time at which the subset must be chosen again if no event causes it earlier.
    choose_again_at: Option<Instant>,
}

#[derive(Debug)]
struct Named {
    endpoint: Endpoint,
    score: u64,
    /// Start and end of the time for which the Pod is passed over.
    passed_over: Option<(Instant, Instant)>,
    /// Time of the last passed probe.
    seen: Option<Instant>,
}

impl Subset {
    /// Creates the subset of a client. Returns `None` if the client uses all Pods.
    pub(crate) fn new(config: &Config) -> Option<Self> {
        let limits = config.limits();
        if limits.subset_size.is_none() && limits.max_connections.is_none() {
            return None;
        }
        let ranking = match config.client_id() {
            Some(id) => Ranking::new(&id),
            None => Ranking::new(&RandomState::new().hash_one(0)),
        };
        Some(Self {
            ranking,
            size: limits.subset_size,
            max_connections: limits.max_connections,
            known: KnownSet::default(),
            named: Vec::new(),
            // Replication lag is measured against the primary, so a lag limit requests a primary.
            roles: config.target().roles()
                | if limits.max_lag.is_some() || limits.max_lag_bytes.is_some() { Target::WRITES } else { 0 },
            choose_again_at: None,
        })
    }

    /// Returns true if the known Pods are exactly these.
    pub(super) fn matches(&self, named: &[Endpoint]) -> bool {
        self.known.matches(named)
    }

    /// Returns all known Pods.
    pub(super) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.named.iter().map(|named| &named.endpoint)
    }

    /// Replaces the known Pods.
    pub(super) fn set_endpoints(&mut self, set: &[Endpoint]) {
        let diff = self.known.replace(set);
        self.named.retain(|named| diff.removed.binary_search(&named.endpoint).is_err());
        self.named.extend(diff.added.into_iter().map(|endpoint| Named {
            score: self.ranking.score(&endpoint),
            endpoint,
            passed_over: None,
            seen: None,
        }));
        self.named.sort_by(|a, b| b.score.cmp(&a.score).then_with(|| a.endpoint.cmp(&b.endpoint)));
    }

    fn find(&mut self, endpoint: &Endpoint) -> Option<&mut Named> {
        self.named.iter_mut().find(|named| named.endpoint == *endpoint)
    }

    /// Returns the time at which the subset must be chosen again if no event causes it earlier.
    pub(super) fn choose_again_at(&self) -> Option<Instant> {
        self.choose_again_at
    }

    /// Returns the size of the subset, and the maximum number of Pods used in addition for their roles.
    fn sizes(&self) -> (usize, usize) {
        let extra = self.roles.count_ones() as usize;
        let pods = self.named.len();
        let size = self.size.unwrap_or(pods).min(pods);
        let size = self.max_connections.map_or(size, |limit| size.min(max_pods(limit, pods, extra)));
        (size, if size == pods { 0 } else { extra.min(pods - size) })
    }

    /// Returns the division of `max_connections` among the Pods in use, if it is set.
    fn division(&self) -> Option<Division> {
        let (size, extra) = self.sizes();
        self.max_connections.map(|limit| Division::of(limit, size + extra, size + extra < self.named.len()))
    }
}

impl Named {
    fn pass_over(&mut self, now: Instant, duration: Duration) {
        let unit = self.score as f64 / u64::MAX as f64;
        self.passed_over = Some((now, now + duration.mul_f64(1.0 + JITTER * (2.0 * unit - 1.0))));
    }

    /// Returns the time until which the Pod is passed over, if that is in the future.
    fn passed_over_until(&self, none_serves: bool, now: Instant) -> Option<Instant> {
        let (since, until) = self.passed_over?;
        Some(if none_serves { until.min(since + NONE_SERVES_FOR) } else { until }).filter(|&until| until > now)
    }

    fn ranked(&self, member: Option<&Member>, failing: bool, now: Instant) -> Ranked {
        let standing = match member {
            _ if failing => Standing::Failing,
            None => Standing::Unused,
            Some(member) if member.fence.is_some() || member.lag.late => Standing::Failing,
            Some(member) if member.serves() => Standing::Serving,
            Some(_) => Standing::Starting,
        };
        let role = member.map_or(Role::Unknown, |member| member.role);
        Ranked::new(standing, role, self.seen.is_some_and(|at| at + SEEN_FOR > now))
    }
}

impl Directory {
    /// Replaces the known Pods. Without a subset, all of them become members.
    pub(super) fn set_known(&mut self, set: &[Endpoint], now: Instant) {
        match &mut self.subset {
            None => self.replace_members(set, now),
            Some(subset) => {
                subset.set_endpoints(set);
                self.reconsider = true;
            }
        }
    }

    pub(super) fn on_roles_requested(&mut self, roles: u8) {
        if let Some(subset) = &mut self.subset {
            subset.roles |= roles;
            self.reconsider = true;
        }
    }

    /// Passes a failed Pod over for a while. `full` is true if the server had no free connection slot.
    pub(super) fn pass_over(&mut self, endpoint: &Endpoint, full: bool, now: Instant) {
        if let Some(named) = self.subset.as_mut().and_then(|subset| subset.find(endpoint)) {
            named.pass_over(now, if full { FULL_FOR } else { FAILED_FOR });
            self.reconsider = true;
        }
    }

    /// Passes a Pod without a free connection slot over, unless this client has connections to it.
    pub(super) fn on_full(&mut self, serial: u64, now: Instant) {
        let Some(member) = self.find(serial).filter(|member| member.pod.open() == 0) else { return };
        let endpoint = member.pod.endpoint.clone();
        self.pass_over(&endpoint, true, now);
    }

    /// Records that a Pod has passed a probe. `returned` is true if it has become healthy.
    pub(super) fn on_seen(&mut self, endpoint: &Endpoint, returned: bool, now: Instant) {
        if let Some(named) = self.subset.as_mut().and_then(|subset| subset.find(endpoint)) {
            named.seen = Some(now);
            if returned {
                named.passed_over = None;
            }
            self.reconsider = true;
        }
    }

    /// Chooses the Pods in use, if an event since the last choice can change them.
    pub(super) fn choose_subset(&mut self, now: Instant) {
        if !std::mem::take(&mut self.reconsider) {
            return;
        }
        let Some(subset) = &mut self.subset else { return };
        let none_serves = !self.members.all().iter().any(Member::serves);
        let mut again = None;
        let mut choose_again = |at: Instant| again = Some(again.map_or(at, |earlier: Instant| earlier.min(at)));
        let mut ranked = Vec::with_capacity(subset.named.len());
        for named in &subset.named {
            let until = named.passed_over_until(none_serves, now);
            until.into_iter().for_each(&mut choose_again);
            ranked.push(named.ranked(self.members.get(&named.endpoint), until.is_some(), now));
        }
        let (size, _) = subset.sizes();
        choose(&mut ranked, size);
        for (bit, role) in [(Target::WRITES, Role::Primary), (Target::READS, Role::Standby)] {
            if subset.roles & bit != 0 && cover_role(&mut ranked, role) {
                let seen_until = subset.named.iter().filter_map(|named| named.seen.map(|at| at + SEEN_FOR));
                seen_until.filter(|&at| at > now).for_each(&mut choose_again);
            }
        }
        subset.choose_again_at = again;
        let (used, unused): (Vec<_>, Vec<_>) = subset.named.iter().zip(&ranked).partition(|(_, ranked)| ranked.chosen);
        let used: Vec<_> = used.into_iter().map(|(named, _)| named.endpoint.clone()).collect();
        let unused: Arc<[Endpoint]> = unused.into_iter().map(|(named, _)| named.endpoint.clone()).collect();
        if self.unused != unused {
            self.unused = unused;
            self.changed = true;
        }
        self.replace_members(&used, now);
        self.divide();
    }

    /// Sets the share of `max_connections` of every Pod in use.
    fn divide(&mut self) {
        let Some(division) = self.subset.as_ref().and_then(Subset::division) else { return };
        let shared = &self.inner.shared;
        shared.connection_limit.set(division);
        for (i, member) in self.members.all().iter().enumerate() {
            let share = division.per_pod + usize::from(i < division.remainder);
            member.pod.set_size(share.min(shared.limits.pool_size));
        }
    }

    /// Compares the number of connections that a server allows with the number that all clients together may open.
    pub(super) fn check_capacity(&mut self, serial: u64) {
        let (used, pods) = match &self.subset {
            Some(subset) => (subset.sizes().0, subset.named.len()),
            None => (self.members.all().len(), self.members.all().len()),
        };
        let writes = self.subset.as_ref().is_none_or(|subset| subset.roles & Target::WRITES != 0);
        let clients = self.inner.shared.limits.clients;
        let Some(member) = self.find(serial) else { return };
        let Some(slots) = member.slots() else { return };
        let per_client = member.pod.size() + 1;
        let used_by_all = writes && member.role == Role::Primary;
        let endpoint = member.pod.endpoint.clone();
        let shortfall = Demand { per_client, clients, used, pods, used_by_all }.shortfall(slots);
        let reported = std::mem::replace(&mut member.shortfall, shortfall.clone());
        match shortfall {
            None => {
                let max_clients = slots as usize / per_client;
                tracing::info!(%endpoint, slots, max_clients, "the server's connection limit is sufficient");
            }
            Some(cause) if reported.as_ref() == Some(&cause) => {}
            Some(cause) => self.inner.shared.events.emit(Event::ServerOversubscribed { endpoint, cause: cause.into() }),
        }
    }
}
