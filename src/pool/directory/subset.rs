//! Whom this client uses, of those who exist: its subset, and beside that, where it probe_factory for a role that none of these
//! has, one Pod that has it. Everybody else is known by name and address alone: no pool, no probe, no connection.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use super::{Directory, member::Member};
use crate::{
    balance::subset::{Ranked, Ranking, Standing, choose, find},
    config::{Config, Target},
    endpoint::{Endpoint, Role, set::KnownSet},
    event::Event,
    pool::pod::connection_limit::{Demand, Division, room},
    time::{Duration, Instant},
};

/// How long a Pod that failed is passed over, while others serve.
const FAILED: Duration = Duration::from_secs(5);
/// How long one that had no room is.
const FULL: Duration = Duration::from_secs(60);
/// How long any of them is, while no Pod serves.
const ALONE: Duration = Duration::from_secs(1);
/// How long a Pod that was looked at for its role is not looked at again.
const SEEN: Duration = Duration::from_secs(1);
/// How much these vary from client to client and Pod to Pod, either way.
const JITTER: f64 = 0.25;

/// Everybody behind the name, in the order in which this client would use them.
#[derive(Debug)]
pub(crate) struct Subset {
    ranking: Ranking,
    /// `subset_size`, and `max_connections`.
    size: Option<usize>,
    most: Option<usize>,
    known: KnownSet,
    named: Vec<Named>,
    /// The roles that are asked for.
    roles: u8,
    /// When something is to be decided anew without anything having happened.
    again: Option<Instant>,
}

#[derive(Debug)]
struct Named {
    endpoint: Endpoint,
    score: u64,
    /// Passed over, since when and until when.
    failed: Option<(Instant, Instant)>,
    /// Looked at for its role.
    seen: Option<Instant>,
}

impl Subset {
    /// The subset of a client, if its configuration probe_factory for one.
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
            most: limits.max_connections,
            known: KnownSet::default(),
            named: Vec::new(),
            // How late a standby is, only the primary tells.
            roles: config.target().roles()
                | if limits.max_lag.is_some() || limits.max_lag_bytes.is_some() { Target::WRITES } else { 0 },
            again: None,
        })
    }

    /// Whether exactly these exist.
    pub(super) fn is(&self, named: &[Endpoint]) -> bool {
        self.known.is(named)
    }

    pub(super) fn everybody(&self) -> impl Iterator<Item = &Endpoint> {
        self.named.iter().map(|named| &named.endpoint)
    }

    /// These exist now.
    pub(super) fn rename(&mut self, set: &[Endpoint]) {
        let diff = self.known.replace(set);
        self.named.retain(|named| diff.removed.binary_search(&named.endpoint).is_err());
        self.named.extend(diff.added.into_iter().map(|endpoint| Named {
            score: self.ranking.score(&endpoint),
            endpoint,
            failed: None,
            seen: None,
        }));
        self.named.sort_by(|a, b| b.score.cmp(&a.score).then_with(|| a.endpoint.cmp(&b.endpoint)));
    }

    fn find(&mut self, endpoint: &Endpoint) -> Option<&mut Named> {
        self.named.iter_mut().find(|named| named.endpoint == *endpoint)
    }

    /// When to decide anew, if nothing happens before.
    pub(super) fn again(&self) -> Option<Instant> {
        self.again
    }

    /// How many of them are used, and how many beside these for their roles.
    fn sizes(&self) -> (usize, usize) {
        let elsewhere = self.roles.count_ones() as usize;
        let pods = self.named.len();
        let size = self.size.unwrap_or(pods).min(pods);
        let size = self.most.map_or(size, |most| size.min(room(most, pods, elsewhere)));
        (size, if size == pods { 0 } else { elsewhere.min(pods - size) })
    }

    /// How `max_connections` is divided, if it is set.
    fn division(&self) -> Option<Division> {
        let (size, elsewhere) = self.sizes();
        self.most.map(|most| Division::of(most, size + elsewhere, size + elsewhere < self.named.len()))
    }
}

impl Named {
    fn pass_over(&mut self, now: Instant, how_long: Duration) {
        let unit = self.score as f64 / u64::MAX as f64;
        self.failed = Some((now, now + how_long.mul_f64(1.0 + JITTER * (2.0 * unit - 1.0))));
    }

    /// Until when it is passed over, if it still is.
    fn passed_over(&self, alone: bool, now: Instant) -> Option<Instant> {
        let (since, until) = self.failed?;
        Some(if alone { until.min(since + ALONE) } else { until }).filter(|&until| until > now)
    }

    fn place(&self, member: Option<&Member>, failing: bool, now: Instant) -> Ranked {
        let standing = match member {
            _ if failing => Standing::Failing,
            None => Standing::Spare,
            Some(member) if member.fence.is_some() || member.lag.late => Standing::Failing,
            Some(member) if member.serves() => Standing::Serving,
            Some(_) => Standing::Trying,
        };
        let role = member.map_or(Role::Unknown, |member| member.role);
        Ranked::new(standing, role, self.seen.is_some_and(|at| at + SEEN > now))
    }
}

impl Directory {
    /// These exist now, and those of them that are to be used are used.
    pub(super) fn exist(&mut self, set: &[Endpoint], now: Instant) {
        match &mut self.subset {
            None => self.replace(set, now),
            Some(subset) => {
                subset.rename(set);
                self.reconsider = true;
            }
        }
    }

    /// These roles are asked for.
    pub(super) fn wanted(&mut self, roles: u8) {
        if let Some(subset) = &mut self.subset {
            subset.roles |= roles;
            self.reconsider = true;
        }
    }

    /// A Pod failed. `full`: for want of a slot.
    pub(super) fn failed(&mut self, endpoint: &Endpoint, full: bool, now: Instant) {
        if let Some(named) = self.subset.as_mut().and_then(|subset| subset.find(endpoint)) {
            named.pass_over(now, if full { FULL } else { FAILED });
            self.reconsider = true;
        }
    }

    /// A dial found a Pod full. What is open there is kept; where nothing is, the Pod is of no use now.
    pub(super) fn full(&mut self, serial: u64, now: Instant) {
        if let Some(endpoint) =
            self.find(serial).filter(|member| member.pod.open() == 0).map(|e| e.pod.endpoint.clone())
        {
            self.failed(&endpoint, true, now);
        }
    }

    /// A Pod passed a probe, and told its role.
    pub(super) fn looked_at(&mut self, endpoint: &Endpoint, returned: bool, now: Instant) {
        if let Some(named) = self.subset.as_mut().and_then(|subset| subset.find(endpoint)) {
            named.seen = Some(now);
            if returned {
                named.failed = None;
            }
            self.reconsider = true;
        }
    }

    /// Decides whom to use, after something has changed.
    pub(super) fn choose(&mut self, now: Instant) {
        if !std::mem::take(&mut self.reconsider) {
            return;
        }
        let Some(subset) = &mut self.subset else { return };
        let alone = !self.members.all().iter().any(Member::serves);
        let mut again = None;
        let mut later = |at: Instant| again = Some(again.map_or(at, |earlier: Instant| earlier.min(at)));
        let mut places = Vec::with_capacity(subset.named.len());
        for named in &subset.named {
            let until = named.passed_over(alone, now);
            until.into_iter().for_each(&mut later);
            places.push(named.place(self.members.get(&named.endpoint), until.is_some(), now));
        }
        let (size, _) = subset.sizes();
        choose(&mut places, size);
        for (bit, role) in [(Target::WRITES, Role::Primary), (Target::READS, Role::Standby)] {
            if subset.roles & bit != 0 && find(&mut places, role) {
                let seen = subset.named.iter().filter_map(|named| named.seen.map(|at| at + SEEN));
                seen.filter(|&at| at > now).for_each(&mut later);
            }
        }
        subset.again = again;
        let (used, unused): (Vec<_>, Vec<_>) = subset.named.iter().zip(&places).partition(|(_, place)| place.chosen);
        let used: Vec<_> = used.into_iter().map(|(named, _)| named.endpoint.clone()).collect();
        let unused: Arc<[Endpoint]> = unused.into_iter().map(|(named, _)| named.endpoint.clone()).collect();
        if self.unused != unused {
            self.unused = unused;
            self.changed = true;
        }
        self.replace(&used, now);
        self.divide();
    }

    /// Gives every Pod in use its part of `max_connections`.
    fn divide(&mut self) {
        let Some(division) = self.subset.as_ref().and_then(Subset::division) else { return };
        let shared = &self.inner.shared;
        shared.connection_limit.divide(division);
        for (i, member) in self.members.all().iter().enumerate() {
            member.pod.set_size((division.each + usize::from(i < division.more)).min(shared.limits.pool_size));
        }
    }

    /// Does the arithmetic for a Pod that has just told how many connections it has.
    pub(super) fn check_capacity(&mut self, serial: u64) {
        let (used, pods) = match &self.subset {
            Some(subset) => (subset.sizes().0, subset.named.len()),
            None => (self.members.all().len(), self.members.all().len()),
        };
        let writes = self.subset.as_ref().is_none_or(|subset| subset.roles & Target::WRITES != 0);
        let clients = self.inner.shared.limits.clients;
        let Some(member) = self.find(serial) else { return };
        let Some(slots) = member.slots() else { return };
        let each = member.pod.size() + 1;
        let everyones = writes && member.role == Role::Primary;
        let endpoint = member.pod.endpoint.clone();
        let shortfall = Demand { each, clients, used, pods, everyones }.shortfall(slots);
        let said = std::mem::replace(&mut member.shortfall, shortfall.clone());
        match shortfall {
            None => tracing::info!(%endpoint, slots, "has room for {} clients like this one", slots as usize / each),
            Some(cause) if said.as_ref() == Some(&cause) => {}
            Some(cause) => self.inner.shared.events.emit(Event::BudgetExceeded { endpoint, cause: cause.into() }),
        }
    }
}
