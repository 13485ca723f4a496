//! Chooses the Pods that a client uses if it may not use all of them. Pure, and without allocation.
//!
//! If every client connected to every Pod, the servers would have too many connections: 500 clients with one connection
//! and one probe each open a thousand connections to a Pod that accepts a hundred. So each client uses a few Pods,
//! which follow from its id by rendezvous hashing ("highest random weight": D. Thaler, C. Ravishankar, "Using
//! Name-Based Mappings to Increase Hit Rates", 1998; gRPC proposal A68 uses it too). The score of a Pod is a hash of
//! client and Pod, and the client uses the Pods with the highest scores. Clients need not know each other. When a Pod
//! is added or removed, fails or recovers, each client changes at most one of its Pods, and most clients change none.
//! The clients of a removed Pod are spread over all others.
//!
//! A Pod that failed or is full is skipped for the next in rank. A serving Pod is given up only when its replacement
//! serves.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::endpoint::{Endpoint, Role};

/// The number of Pods outside its subset that a client tries concurrently to find a role that no Pod of the subset has.
pub(crate) const ROLE_CANDIDATES: usize = 2;

/// The order in which a client prefers Pods.
#[derive(Clone, Debug)]
pub(crate) struct Ranking(DefaultHasher);

impl Ranking {
    /// Returns the ranking of the client with this id.
    pub(crate) fn new(client: &impl Hash) -> Self {
        let mut hasher = DefaultHasher::new();
        client.hash(&mut hasher);
        Self(hasher)
    }

    /// Returns the score of a Pod. The client prefers Pods with higher scores. The score depends on the Pod's name if
    /// it has one, so that a Pod keeps its rank when its address changes.
    pub(crate) fn score(&self, endpoint: &Endpoint) -> u64 {
        let mut hasher = self.0.clone();
        match endpoint.name() {
            Some(name) => name.hash(&mut hasher),
            None => endpoint.address().hash(&mut hasher),
        }
        hasher.finish()
    }
}

/// The state of a Pod from the client's point of view.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Standing {
    /// Not in use, and no failure is known.
    Unused,
    /// In use, but does not serve yet.
    Starting,
    /// In use, and serves.
    Serving,
    /// Failed or was full recently, whether or not it is in use.
    Failing,
}

/// One Pod in the ranking.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ranked {
    pub(crate) standing: Standing,
    /// The role of a serving Pod.
    pub(crate) role: Role,
    /// The Pod was tried recently to find a role, and had another one.
    pub(crate) tried: bool,
    /// The result: the client uses the Pod.
    pub(crate) chosen: bool,
}

impl Ranked {
    /// Creates an entry that is not chosen.
    pub(crate) fn new(standing: Standing, role: Role, tried: bool) -> Self {
        Self { standing, role, tried, chosen: false }
    }

    fn serves(&self) -> bool {
        self.standing == Standing::Serving
    }
}

/// Chooses `size` Pods. `ranked` is in descending order of scores.
///
/// During a replacement, one more Pod is chosen, so that the new Pod is tried before the old one is given up. There is
/// never more than one additional Pod.
pub(crate) fn choose(ranked: &mut [Ranked], size: usize) {
    let size = size.min(ranked.len());
    // The goal: the first Pods without a known failure and, if there are too few, the failing ones too.
    let mut left = size;
    for failing in [false, true] {
        for pod in ranked.iter_mut().filter(|pod| (pod.standing == Standing::Failing) == failing) {
            pod.chosen = left > 0;
            left -= usize::from(pod.chosen);
        }
    }
    // Keep other serving Pods until `size` of the chosen ones serve.
    let mut serving = ranked.iter().filter(|pod| pod.chosen && pod.serves()).count();
    for pod in ranked.iter_mut().filter(|pod| !pod.chosen && pod.serves()) {
        pod.chosen = serving < size;
        serving += usize::from(pod.chosen);
    }
    // Start Pods that do not serve yet only as far as there is room.
    let mut room = (size + 1).saturating_sub(serving);
    for pod in ranked.iter_mut().filter(|pod| pod.chosen && !pod.serves()) {
        pod.chosen = room > 0;
        room = room.saturating_sub(1);
    }
}

/// Makes sure that the client uses a serving Pod of this role, in addition to the chosen Pods.
///
/// If no chosen Pod has the role, chooses a known Pod that has it. If none is known, chooses the next Pods in rank that
/// were not tried yet, and returns true: the search continues.
pub(crate) fn cover_role(ranked: &mut [Ranked], role: Role) -> bool {
    let has_role = |pod: &Ranked| pod.serves() && pod.role == role;
    if ranked.iter().any(|pod| pod.chosen && has_role(pod)) {
        return false;
    }
    if let Some(pod) = ranked.iter_mut().find(|pod| has_role(pod)) {
        pod.chosen = true;
        return false;
    }
    let untried = |pod: &&mut Ranked| !pod.chosen && !pod.tried && pod.standing != Standing::Failing;
    for pod in ranked.iter_mut().filter(untried).take(ROLE_CANDIDATES) {
        pod.chosen = true;
    }
    true
}

#[cfg(test)]
mod tests;
