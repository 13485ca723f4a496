//! The paths between the hosts: the faults that affect them now, and the messages of replication and operators, which
//! take the same paths as the packets of the clients.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::sleep;

use crate::{
    network::{Link, Network, Node},
    postgres::Links,
    spawn::Task,
};

/// The first pause before a lost message is sent again, and the longest one, as in TCP.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LAST_PAUSE: Duration = Duration::from_secs(120);

/// An effect of a fault on the packets from one host to another.
#[derive(Clone, Copy, Debug)]
pub(super) enum Effect {
    Block,
    Delay {
        by: Duration,
        jitter: Duration,
    },
    /// Loss with this probability.
    Loss(f64),
}

/// A host, as its peers see it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Presence {
    /// Its process answers.
    Running,
    /// Its kernel refuses connections.
    Stopped,
    /// Nothing answers.
    Off,
}

/// The paths between all hosts. Clones share their state.
#[derive(Clone)]
pub(super) struct Paths(Arc<Mutex<State>>);

struct State {
    network: Network,
    base: Link,
    hosts: BTreeMap<String, (Node, Presence)>,
    effects: BTreeMap<u64, (Vec<(Node, Node)>, Effect)>,
    last: u64,
    random: fastrand::Rng,
}

impl Paths {
    /// Creates the paths of a network without faults.
    pub(super) fn new(network: &Network, base: Link, random: fastrand::Rng) -> Self {
        network.set_default_link(base);
        let (hosts, effects) = (BTreeMap::new(), BTreeMap::new());
        Self(Arc::new(Mutex::new(State { network: network.clone(), base, hosts, effects, last: 0, random })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a host, or changes how its peers see it.
    pub(super) fn set(&self, name: &str, node: Node, presence: Presence) {
        self.lock().hosts.insert(name.to_owned(), (node, presence));
    }

    /// Returns the number of a host in the network.
    pub(super) fn node(&self, name: &str) -> Option<Node> {
        self.lock().hosts.get(name).map(|(node, _)| *node)
    }

    /// Returns the numbers of all hosts.
    pub(super) fn nodes(&self) -> Vec<Node> {
        self.lock().hosts.values().map(|(node, _)| *node).collect()
    }

    /// Begins an effect on the packets between these pairs of hosts. Returns its number.
    pub(super) fn begin(&self, pairs: Vec<(Node, Node)>, effect: Effect) -> u64 {
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        state.effects.insert(number, (pairs.clone(), effect));
        pairs.into_iter().for_each(|pair| state.update(pair));
        number
    }

    /// Ends an effect.
    pub(super) fn end(&self, number: u64) {
        let mut state = self.lock();
        let removed = state.effects.remove(&number);
        removed.into_iter().flat_map(|(pairs, _)| pairs).for_each(|pair| state.update(pair));
    }
}

impl State {
    /// Computes the properties of a path from the effects that apply to it.
    fn update(&self, pair: (Node, Node)) {
        let mut link = self.base;
        for (_, effect) in self.effects.values().filter(|(pairs, _)| pairs.contains(&pair)) {
            match effect {
                Effect::Block => link.blocked = true,
                Effect::Delay { by, jitter } => {
                    link.latency += *by;
                    link.jitter += *jitter;
                }
                Effect::Loss(share) => link.loss = 1.0 - (1.0 - link.loss) * (1.0 - share),
            }
        }
        self.network.set_link(pair.0, pair.1, link);
    }

    /// Sends a message. Returns its travel time, or `None` if it is lost.
    fn send(&mut self, from: &str, to: &str) -> Option<Duration> {
        let ((from, own), (to, other)) = (*self.hosts.get(from)?, *self.hosts.get(to)?);
        let link = self.network.link(from, to);
        let is_lost = link.blocked || (link.loss > 0.0 && self.random.f64() < link.loss);
        let is_off = own == Presence::Off || other == Presence::Off;
        (!is_lost && !is_off).then(|| link.latency + link.jitter.mul_f64(self.random.f64()))
    }

    fn is_running(&self, name: &str) -> bool {
        self.hosts.get(name).is_some_and(|(_, presence)| *presence == Presence::Running)
    }
}

impl Links for Paths {
    fn deliver<'a>(&'a self, from: &'a str, to: &'a str) -> Task<'a, bool> {
        Box::pin(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                if !self.lock().hosts.contains_key(to) {
                    return false;
                }
                let sent = self.lock().send(from, to);
                if let Some(travel) = sent {
                    sleep(travel).await;
                    return self.lock().is_running(to);
                }
                sleep(pause).await;
                pause = (pause * 2).min(LAST_PAUSE);
            }
        })
    }
}
