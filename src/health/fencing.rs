//! Who may be believed to be what it says: one cluster, one history, one primary. Pure.
//!
//! - The cluster is known by its system identifier. A Pod of another cluster is fenced. The first identifier heard is
//!   kept; another is adopted only when no known Pod has the old one, as when a cluster was made anew.
//! - A promotion begins a timeline with a higher number. The highest one seen is remembered, also while another cluster
//!   is taken for ours (of 64 clusters at most); a primary below it is a former primary that has not heard, and is
//!   fenced from every target, even alone: what is written there is lost, and what is read there is old.
//! - Of two primaries on one timeline, the one in use stays and the other is fenced.
//!
//! None of this undoes what was written to a former primary before anyone could know.

use std::{collections::BTreeMap, fmt};

use crate::endpoint::Role;

/// What one Pod says of itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Claim {
    /// The Pod's number.
    pub(crate) pod: u64,
    pub(crate) role: Role,
    pub(crate) system: Option<u64>,
    /// A primary's timeline.
    pub(crate) timeline: Option<u32>,
    /// Whether it passes its probes.
    pub(crate) passing: bool,
}

/// Why a Pod is fenced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fence {
    /// It belongs to another cluster.
    OtherSystem { expected: u64, got: u64 },
    /// It is a primary of a time before the last promotion.
    OldTimeline { newest: u32, got: u32 },
    /// Another Pod is the primary of the same timeline.
    SecondPrimary,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherSystem { expected, got } => {
                write!(f, "it belongs to another cluster: its system identifier is {got}, the others' is {expected}")
            }
            Self::OldTimeline { newest, got } => {
                write!(f, "it is a primary on timeline {got}, and timeline {newest} has begun")
            }
            Self::SecondPrimary => f.write_str("another Pod is the primary of the same timeline"),
        }
    }
}

/// The clusters that are remembered, ours among them: a server can claim to be of another one each time.
const CLUSTERS: usize = 64;

/// What is remembered of the cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timelines {
    system: Option<u64>,
    /// The highest timeline seen of each cluster, for as long as the pool lives or others do not crowd it out.
    newest: BTreeMap<u64, u32>,
    primary: Option<u64>,
}

impl Timelines {
    /// Judges every claim, in order.
    pub(crate) fn judge(&mut self, claims: &[Claim]) -> Vec<Option<Fence>> {
        let ours = |system: Option<u64>| claims.iter().any(|claim| claim.system == system);
        let first = claims.iter().filter(|claim| claim.passing).find_map(|claim| claim.system);
        if let Some(first) = first.filter(|_| self.system.is_none() || !ours(self.system)) {
            (self.system, self.primary) = (Some(first), None);
        }
        let (Some(system), belongs) =
            (self.system, |claim: &Claim| claim.system.is_none_or(|id| Some(id) == self.system))
        else {
            return vec![None; claims.len()];
        };
        for claim in claims.iter().filter(|claim| claim.role == Role::Primary) {
            let of = claim.system.unwrap_or(system);
            let Some(timeline) = claim.timeline else { continue };
            if self.newest.len() >= CLUSTERS && !self.newest.contains_key(&of) {
                if of != system {
                    continue;
                }
                self.newest.pop_first();
            }
            let newest = self.newest.entry(of).or_default();
            *newest = timeline.max(*newest);
        }
        let newest = self.newest.get(&system).copied().unwrap_or(0);
        let primaries = || claims.iter().filter(|claim| claim.role == Role::Primary && belongs(claim));
        let at_newest = || primaries().filter(|claim| claim.timeline.is_none_or(|timeline| timeline == newest));
        let passing = || at_newest().filter(|claim| claim.passing);
        let in_use = passing().find(|claim| Some(claim.pod) == self.primary);
        let primary = in_use.or_else(|| passing().next()).or_else(|| at_newest().next()).map(|claim| claim.pod);
        let fences = claims
            .iter()
            .map(|claim| match (claim.system, claim.timeline) {
                (Some(got), _) if got != system => Some(Fence::OtherSystem { expected: system, got }),
                _ if claim.role != Role::Primary => None,
                (_, Some(got)) if got < newest => Some(Fence::OldTimeline { newest, got }),
                _ if Some(claim.pod) != primary => Some(Fence::SecondPrimary),
                _ => None,
            })
            .collect();
        self.primary = primary.or(self.primary);
        fences
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(pod: u64, role: Role, system: u64, timeline: u32) -> Claim {
        let timeline = (role == Role::Primary).then_some(timeline);
        Claim { pod, role, system: Some(system), timeline, passing: true }
    }

    #[test]
    fn a_former_primary_is_fenced_even_alone_until_it_follows() {
        let mut timelines = Timelines::default();
        let (old, new) = (claim(0, Role::Primary, 7, 1), claim(1, Role::Primary, 7, 2));
        assert_eq!(timelines.judge(&[old, claim(1, Role::Standby, 7, 0)]), [None, None]);
        let fenced = Some(Fence::OldTimeline { newest: 2, got: 1 });
        assert_eq!(timelines.judge(&[old, new]), [fenced, None]);
        assert_eq!(timelines.judge(&[old]), [fenced]);
        assert_eq!(timelines.judge(&[claim(0, Role::Standby, 7, 0), new]), [None, None]);
    }

    #[test]
    fn of_two_primaries_on_one_timeline_the_one_in_use_stays() {
        let mut timelines = Timelines::default();
        let (a, b) = (claim(0, Role::Primary, 7, 1), claim(1, Role::Primary, 7, 1));
        assert_eq!(timelines.judge(&[b]), [None]);
        assert_eq!(timelines.judge(&[a, b]), [Some(Fence::SecondPrimary), None]);
        let gone = Claim { passing: false, ..b };
        assert_eq!(timelines.judge(&[a, gone]), [None, Some(Fence::SecondPrimary)]);
    }

    #[test]
    fn another_cluster_is_never_mixed_in_and_a_new_one_is_adopted() {
        let mut timelines = Timelines::default();
        let (ours, other) = (claim(0, Role::Primary, 7, 9), claim(1, Role::Standby, 8, 0));
        let fenced = Some(Fence::OtherSystem { expected: 7, got: 8 });
        assert_eq!(timelines.judge(&[ours, other]), [None, fenced]);
        assert_eq!(timelines.judge(&[Claim { passing: false, ..ours }, other]), [None, fenced]);
        // Every Pod is of the other cluster now, whose history began anew.
        let anew = claim(2, Role::Primary, 8, 1);
        assert_eq!(timelines.judge(&[anew, other]), [None, None]);
    }

    #[test]
    fn a_former_primary_is_known_also_after_another_cluster_was_taken_for_ours() {
        let mut timelines = Timelines::default();
        let (other, new, old) =
            (claim(0, Role::Primary, 8, 1), claim(1, Role::Primary, 7, 3), claim(2, Role::Primary, 7, 2));
        assert_eq!(timelines.judge(&[other]), [None]);
        assert_eq!(timelines.judge(&[other, new]), [None, Some(Fence::OtherSystem { expected: 8, got: 7 })]);
        assert_eq!(timelines.judge(&[old]), [Some(Fence::OldTimeline { newest: 3, got: 2 })]);
    }

    #[test]
    fn a_server_that_claims_another_cluster_each_time_fills_no_memory() {
        let mut timelines = Timelines::default();
        let ours = claim(0, Role::Primary, 7, 1);
        for system in 100..1000 {
            timelines.judge(&[ours, claim(1, Role::Primary, system, 1)]);
        }
        assert_eq!(timelines.newest.len(), CLUSTERS);
        for system in 100..1000 {
            assert_eq!(timelines.judge(&[claim(1, Role::Primary, system, 1)]), [None], "alone, it is taken for ours");
        }
        assert_eq!(timelines.newest.len(), CLUSTERS);
        assert_eq!(
            timelines.judge(&[claim(0, Role::Primary, 7, 2), ours])[1],
            Some(Fence::OldTimeline { newest: 2, got: 1 })
        );
    }

    #[test]
    fn who_tells_nothing_is_believed() {
        let mut timelines = Timelines::default();
        let silent = Claim { pod: 0, role: Role::Primary, system: None, timeline: None, passing: true };
        assert_eq!(timelines.judge(&[silent]), [None]);
        assert_eq!(timelines.judge(&[silent, claim(1, Role::Standby, 7, 0)]), [None, None]);
    }

    proptest! {
        #[test]
        fn at_most_one_primary_is_left_and_timelines_never_go_back(
            rounds in prop::collection::vec(
                prop::collection::vec((any::<bool>(), 1..3u64, 1..6u32, any::<bool>()), 1..6), 1..12)
        ) {
            let mut timelines = Timelines::default();
            let mut newest = BTreeMap::new();
            for round in rounds {
                let claims: Vec<_> = round
                    .iter()
                    .enumerate()
                    .map(|(pod, &(primary, system, timeline, passing))| {
                        let role = if primary { Role::Primary } else { Role::Standby };
                        Claim { passing, ..claim(pod as u64, role, system, timeline) }
                    })
                    .collect();
                let fences = timelines.judge(&claims);
                for told in claims.iter().filter(|claim| claim.role == Role::Primary && timelines.system.is_some()) {
                    let newest = newest.entry(told.system.unwrap()).or_insert(0);
                    *newest = told.timeline.unwrap().max(*newest);
                }
                let left: Vec<_> = claims
                    .iter()
                    .zip(&fences)
                    .filter(|(claim, fence)| claim.role == Role::Primary && fence.is_none() && timelines.system.is_some())
                    .map(|(claim, _)| claim)
                    .collect();
                prop_assert!(left.len() <= 1, "{left:?}");
                for primary in left {
                    prop_assert_eq!(primary.timeline, newest.get(&primary.system.unwrap()).copied());
                }
            }
        }
    }
}
