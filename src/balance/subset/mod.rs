//! Chooses the subset of Pods that a client uses if it must not use all of them. The functions are pure and do not
//! allocate.
//!
//! If every client connected to every Pod, the servers would have too many connections: 500 clients with one connection
//! and one probe each would open a thousand connections to a Pod that accepts a hundred. Therefore each client uses
//! only a few Pods, selected by rendezvous hashing ("highest random weight": D. Thaler, C. Ravishankar, "Using
//! Name-Based Mappings to Increase Hit Rates", 1998; also used by gRPC proposal A68). The score of a Pod is a hash of
//! the client's id and the Pod, and the client uses the Pods with the highest scores. Clients do not have to
//! coordinate. When a Pod is added or removed, fails or recovers, each client changes at most one of its Pods, and most
//! clients change none. The clients of a removed Pod are spread over all other Pods.
//!
//! A Pod that failed, or whose connection slots are all in use, is replaced by the Pod with the next lower score. A Pod
//! that serves checkouts is dropped from the subset only when its replacement serves them.

use std::hash::{DefaultHasher, Hash, Hasher};

use crate::endpoint::{Endpoint, Role};

/// Number of Pods outside its subset to which a client connects concurrently to find one with a required role, such as
/// the primary. Used only while no Pod of the subset has this role.
pub(crate) const ROLE_CANDIDATES: usize = 2;

/// The order in which a client prefers Pods.
#[derive(Clone, Debug)]
pub(crate) struct Ranking(DefaultHasher);

impl Ranking {
    /// Creates the ranking for the client with this id.
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
    /// Not in use, and not known to fail.
    Unused,
    /// In use, but not serving yet.
    Starting,
    /// In use and serving.
    Serving,
    /// Recently failed or without a free connection slot, whether in use or not.
    Failing,
}

/// One Pod in the ranking.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ranked {
    pub(crate) standing: Standing,
    /// True if the client uses the Pod at present.
    pub(crate) in_use: bool,
    /// The role of a serving Pod.
    pub(crate) role: Role,
    /// True if the client recently connected to the Pod in search of a role, and the Pod had a different role.
    pub(crate) tried: bool,
    /// True if a standby receives its log from this Pod, so that the Pod is probably the primary.
    pub(crate) hinted: bool,
    /// The result of the choice: true if the client uses the Pod.
    pub(crate) chosen: bool,
    /// True if the client uses the Pod only because of its role. A Pod of the subset itself is used for all targets.
    pub(crate) role_only: bool,
}

impl Ranked {
    /// Creates an entry that is not chosen.
    pub(crate) fn new(standing: Standing, role: Role, tried: bool) -> Self {
        let in_use = matches!(standing, Standing::Starting | Standing::Serving);
        Self { standing, in_use, role, tried, hinted: false, chosen: false, role_only: false }
    }

    fn serves(&self) -> bool {
        self.standing == Standing::Serving
    }
}

/// Chooses `size` Pods, and sets `chosen` in their entries. `ranked` is in descending order of scores.
///
/// During a replacement, one additional Pod is chosen, so that the new Pod is tried before the old one is dropped.
/// While none of the chosen Pods serves, one failing Pod in use is kept, so that two failing Pods, or two addresses of
/// one failing Pod, do not replace each other again and again. There is never more than one additional Pod.
pub(crate) fn choose(ranked: &mut [Ranked], size: usize) {
    let size = size.min(ranked.len());
    // First choose the Pods with the highest scores that are not failing. If there are too few of them, add failing
    // Pods.
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
    if serving == 0
        && let Some(pod) = ranked.iter_mut().find(|pod| !pod.chosen && pod.in_use)
    {
        pod.chosen = true;
    }
    // Limit the Pods that do not serve yet, so that the total is at most `size + 1`.
    let mut room = (size + 1).saturating_sub(serving);
    for pod in ranked.iter_mut().filter(|pod| pod.chosen && !pod.serves()) {
        pod.chosen = room > 0;
        room = room.saturating_sub(1);
    }
}

/// The permitted part of the search for a Pod with a role that none of the client's Pods has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Search {
    /// Nothing.
    Off,
    /// Wait for the Pods that are being tried.
    Wait,
    /// Try further Pods.
    Continue,
}

/// The result of [`cover_role`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Coverage {
    /// The client uses a serving Pod of the role.
    Covered,
    /// No such Pod is known. The search has added this many Pods.
    Missing(usize),
}

/// Makes sure that the client uses a serving Pod of this role, in addition to the chosen Pods.
///
/// If no chosen Pod has the role, chooses a serving Pod that has it, and sets `role_only` in its entry. If there is
/// none, chooses Pods that have not been tried yet, as far as `search` permits: the hinted ones, or the next
/// [`ROLE_CANDIDATES`] in the ranking if none is hinted.
pub(crate) fn cover_role(ranked: &mut [Ranked], role: Role, search: Search) -> Coverage {
    let has_role = |pod: &Ranked| pod.serves() && pod.role == role;
    if ranked.iter().any(|pod| pod.chosen && has_role(pod)) {
        return Coverage::Covered;
    }
    if let Some(pod) = ranked.iter_mut().find(|pod| has_role(pod)) {
        (pod.chosen, pod.role_only) = (true, true);
        return Coverage::Covered;
    }
    if search == Search::Off {
        return Coverage::Missing(0);
    }
    let is_untried = |pod: &Ranked| !pod.chosen && !pod.tried && pod.standing != Standing::Failing;
    let any_hinted = ranked.iter().any(|pod| pod.hinted && is_untried(pod));
    let mut added = 0;
    let untried = ranked.iter_mut().filter(|pod| is_untried(pod) && pod.hinted == any_hinted);
    for pod in untried.take(ROLE_CANDIDATES) {
        if pod.standing == Standing::Unused {
            if search == Search::Wait {
                continue;
            }
            added += 1;
        }
        (pod.chosen, pod.role_only) = (true, true);
    }
    Coverage::Missing(added)
}

#[cfg(test)]
mod tests;
