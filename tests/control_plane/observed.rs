//! Records the role of each server and the addresses in DNS over time.

use std::{
    collections::{BTreeMap, BTreeSet},
    iter,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use crate::timeline::Timeline;

/// The role of a server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    /// The server does not respond.
    Down,
    Standby,
    Primary,
}

/// The roles and addresses at one time.
#[derive(Clone, Default)]
pub(crate) struct View {
    published: BTreeSet<Ipv4Addr>,
    roles: BTreeMap<Ipv4Addr, Role>,
}

impl View {
    /// Returns true if a server with this property responds.
    pub(crate) fn serves(&self, role: impl Fn(Role) -> bool) -> bool {
        self.roles.values().any(|known| role(*known))
    }

    /// Returns true if DNS has this address.
    pub(crate) fn is_published(&self, address: Ipv4Addr) -> bool {
        self.published.contains(&address)
    }

    /// Returns true if DNS has the address of a responding server with this property.
    pub(crate) fn publishes(&self, role: impl Fn(Role) -> bool) -> bool {
        self.roles.iter().any(|(address, known)| role(*known) && self.published.contains(address))
    }
}

/// A period, with its beginning and its end.
pub(crate) type Period = (Instant, Instant);

/// The record of all changes. Clones share the same record.
#[derive(Clone)]
pub(crate) struct Observed {
    timeline: Timeline,
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    names: BTreeMap<Ipv4Addr, String>,
    last: View,
    /// Longest delay of an observer by the scheduler of this machine.
    delay: Duration,
    /// In the order in which they were found. The time of a change can be before that of an earlier entry.
    changes: Vec<(Instant, Change)>,
}

#[derive(Clone)]
enum Change {
    Role(Ipv4Addr, Role),
    Published(BTreeSet<Ipv4Addr>),
}

impl Observed {
    pub(crate) fn new(timeline: Timeline) -> Self {
        Self { timeline, shared: Arc::default() }
    }

    /// Records the address of a new Pod.
    pub(crate) fn created(&self, name: &str, address: Ipv4Addr) {
        self.timeline.note(format!("{name} is created with the address {address}"));
        self.shared.lock().unwrap().names.insert(address, name.to_owned());
    }

    /// Records the role of a server.
    pub(crate) fn role(&self, at: Instant, address: Ipv4Addr, role: Role) {
        let mut shared = self.shared.lock().unwrap();
        if shared.last.roles.insert(address, role).unwrap_or(Role::Down) != role {
            let name = shared.names.get(&address).map_or("unknown", String::as_str);
            self.timeline.note_at(at, format!("server {name} {address}: {role:?}"));
            shared.changes.push((at, Change::Role(address, role)));
        }
    }

    /// Records the addresses in DNS.
    pub(crate) fn published(&self, at: Instant, addresses: BTreeSet<Ipv4Addr>) {
        let mut shared = self.shared.lock().unwrap();
        if shared.last.published != addresses {
            self.timeline.note_at(at, format!("DNS: {addresses:?}"));
            shared.last.published.clone_from(&addresses);
            shared.changes.push((at, Change::Published(addresses)));
        }
    }

    /// Measures for how long this machine lets a runnable task wait.
    pub(crate) async fn measure_delay(self) {
        const PACE: Duration = Duration::from_millis(20);
        loop {
            let due = Instant::now() + PACE;
            tokio::time::sleep(PACE).await;
            let delay = due.elapsed();
            if delay > Duration::from_millis(250) {
                self.timeline.note(format!("this test did not get a processor for {:.2} s", delay.as_secs_f64()));
            }
            let mut shared = self.shared.lock().unwrap();
            shared.delay = shared.delay.max(delay);
        }
    }

    /// Returns the longest time for which a runnable task of this test had to wait.
    pub(crate) fn delay(&self) -> Duration {
        self.shared.lock().unwrap().delay
    }

    /// Returns the names of the servers that have this role now.
    pub(crate) fn named(&self, role: Role) -> Vec<String> {
        let shared = self.shared.lock().unwrap();
        let servers = shared.last.roles.iter().filter(|(_, known)| **known == role);
        servers.filter_map(|(address, _)| shared.names.get(address).cloned()).collect()
    }

    /// Returns the current roles and addresses.
    pub(crate) fn now(&self) -> View {
        self.shared.lock().unwrap().last.clone()
    }

    /// Returns the first time at which the condition holds, at or after `from`.
    pub(crate) fn first(&self, from: Instant, condition: impl Fn(&View) -> bool) -> Option<Instant> {
        let views = self.views();
        let initial = views.iter().rfind(|(at, _)| *at <= from).map_or_else(View::default, |(_, view)| view.clone());
        let later = views.into_iter().filter(|(at, _)| *at > from);
        iter::once((from, initial)).chain(later).find(|(_, view)| condition(view)).map(|(at, _)| at)
    }

    /// Returns the periods after `from` in which no responding server has the property, each until DNS has the address
    /// of one that has it, and `grace` longer.
    pub(crate) fn outages(&self, from: Instant, grace: Duration, role: impl Fn(Role) -> bool + Copy) -> Vec<Outage> {
        self.periods(from, |view| view.serves(role), |view| view.publishes(role), grace)
    }

    /// Returns the periods after `from` in which DNS has the address of no responding server with the property, and
    /// `grace` longer.
    pub(crate) fn unpublished(
        &self,
        from: Instant,
        grace: Duration,
        role: impl Fn(Role) -> bool + Copy,
    ) -> Vec<Outage> {
        self.periods(from, |view| view.publishes(role), |view| view.publishes(role), grace)
    }

    fn periods(
        &self,
        from: Instant,
        up: impl Fn(&View) -> bool,
        back: impl Fn(&View) -> bool,
        grace: Duration,
    ) -> Vec<Outage> {
        let mut found = Vec::new();
        let mut at = from;
        while let Some(down) = self.first(at, |view| !up(view)) {
            let up_again = self.first(down, &up);
            let Some(end) = self.first(up_again.unwrap_or(down), &back) else {
                found.push(Outage { down, up: up_again, published: None, allowed: (down, Instant::now()) });
                break;
            };
            found.push(Outage { down, up: up_again, published: Some(end), allowed: (down, end + grace) });
            at = end;
        }
        found
    }

    fn views(&self) -> Vec<(Instant, View)> {
        let mut changes = self.shared.lock().unwrap().changes.clone();
        changes.sort_by_key(|(at, _)| *at);
        let mut view = View::default();
        let after = changes.into_iter().map(|(at, change)| {
            match change {
                Change::Role(address, role) => drop(view.roles.insert(address, role)),
                Change::Published(addresses) => view.published = addresses,
            }
            (at, view.clone())
        });
        after.collect()
    }
}

/// A period in which requests of a kind may fail.
#[derive(Debug)]
pub(crate) struct Outage {
    /// The last server stops to respond or to be published.
    pub(crate) down: Instant,
    /// A server responds again.
    pub(crate) up: Option<Instant>,
    /// A responding server is published again.
    pub(crate) published: Option<Instant>,
    /// The period in which requests may fail.
    pub(crate) allowed: Period,
}
