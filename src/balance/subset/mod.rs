//! Which Pods a client uses, where there are more than it may. Pure, and without allocation.
//!
//! Every client connected to every Pod is too much for the servers: 500 clients with one connection and one probe each
//! are a thousand connections to a Pod that takes a hundred. So each client uses a few, and which ones follows from its
//! id by rendezvous hashing ("highest random weight": D. Thaler, C. Ravishankar, "Using Name-Based Mappings to Increase
//! Hit Rates", 1998; gRPC's A68 does the same): the score of a Pod is a hash of client and Pod, and the client uses
//! those with the highest. Nobody has to know the other clients. Where a Pod comes or goes, or fails or recovers, each
//! client changes one of its Pods at most, and most change none; the clients of a Pod that goes spread over all others.
//!
//! A Pod that has failed or is full is passed over for the next in rank. One that serves is given up only when who takes
//! its place serves.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::endpoint::{Endpoint, Role};

/// How many Pods beyond its own a client looks at side by side, for a role that none of its own has.
pub(crate) const SCOUTS: usize = 2;

/// How a client ranks Pods.
#[derive(Clone, Debug)]
pub(crate) struct Ranking(DefaultHasher);

impl Ranking {
    /// The ranking of the client of this id.
    pub(crate) fn new(client: &impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        client.hash(&mut hasher);
        Self(hasher)
    }

    /// The higher, the sooner it is used. By the Pod's name where it has one, so that it does not matter that it moves.
    pub(crate) fn score(&self, endpoint: &Endpoint) -> u64 {
        let mut hasher = self.0.clone();
        match endpoint.name() {
            Some(name) => name.hash(&mut hasher),
            None => endpoint.address().hash(&mut hasher),
        }
        hasher.finish()
    }
}

/// What a Pod is to the client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Standing {
    /// Known by name alone, and nothing speaks against it.
    Spare,
    /// In use, and not known to serve yet.
    Trying,
    /// In use, and serves.
    Serving,
    /// In use or not: it failed, or had no room, a short while ago.
    Failing,
}

/// One Pod in the ranking.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ranked {
    pub(crate) standing: Standing,
    /// Its role, of one that serves.
    pub(crate) role: Role,
    /// It was looked at for its role a short while ago, and had another.
    pub(crate) seen: bool,
    /// The result: it is to be used.
    pub(crate) chosen: bool,
}

impl Ranked {
    /// A Pod of this standing.
    pub(crate) fn new(standing: Standing, role: Role, seen: bool) -> Self {
        Self { standing, role, seen, chosen: false }
    }

    fn serves(&self) -> bool {
        self.standing == Standing::Serving
    }
}

/// Chooses `size` of the Pods, which are given in the order of their rank. While one takes another's place there is one
/// more, so that the first is tried before the other is let go; they are never more than that.
pub(crate) fn choose(ranked: &mut [Ranked], size: usize) {
    let size = size.min(ranked.len());
    // Whom it is to come to: the first of whom nothing bad is known, and where these are too few, the others too.
    let mut left = size;
    for failing in [false, true] {
        for place in ranked.iter_mut().filter(|place| (place.standing == Standing::Failing) == failing) {
            place.chosen = left > 0;
            left -= usize::from(place.chosen);
        }
    }
    // Who serves stays, until enough of those do.
    let mut serving = ranked.iter().filter(|place| place.chosen && place.serves()).count();
    for place in ranked.iter_mut().filter(|place| !place.chosen && place.serves()) {
        place.chosen = serving < size;
        serving += usize::from(place.chosen);
    }
    // The others come in as there is room beside these.
    let mut room = (size + 1).saturating_sub(serving);
    for place in ranked.iter_mut().filter(|place| place.chosen && !place.serves()) {
        place.chosen = room > 0;
        room = room.saturating_sub(1);
    }
}

/// Adds, where no Pod that is chosen serves in this role, one that does; and where none is known, the next ones in rank
/// to be looked at. Says whether it is looking.
pub(crate) fn find(ranked: &mut [Ranked], role: Role) -> bool {
    let has = |place: &Ranked| place.serves() && place.role == role;
    if ranked.iter().any(|place| place.chosen && has(place)) {
        return false;
    }
    if let Some(place) = ranked.iter_mut().find(|place| has(place)) {
        place.chosen = true;
        return false;
    }
    let unknown = |place: &&mut Ranked| !place.chosen && !place.seen && place.standing != Standing::Failing;
    for place in ranked.iter_mut().filter(unknown).take(SCOUTS) {
        place.chosen = true;
    }
    true
}

#[cfg(test)]
mod tests;
