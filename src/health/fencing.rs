//! Fences Pods that must not be used: Pods of another cluster, former primaries, and second primaries.
//!
//! * The system identifier, which `initdb` assigns, identifies a database cluster. The pool adopts the first identifier
//!   that a passing Pod reports, and fences Pods that report a different one. The pool adopts a different identifier
//!   only when no Pod reports the adopted one any more, for example after the cluster has been recreated.
//! * A promotion starts a timeline with a higher number (PostgreSQL manual, "Timelines"). The pool remembers the
//!   highest timeline of each cluster, for at most [`CLUSTERS`] clusters. A primary on a lower timeline is a former
//!   primary that has not detected the promotion of its successor. A former primary is fenced for every target, even if
//!   it is the only Pod: writes to it would be lost, and reads from it would be stale.
//! * If two primaries are on the same timeline, the pool keeps the one that it already uses and fences the other.
//!
//! Fencing cannot undo writes that a former primary accepted before the pool detected the promotion.

use std::{collections::BTreeMap, fmt};

use crate::endpoint::Role;

/// The identity that one Pod reported: its role, cluster and timeline.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Claim {
    /// The Pod's serial number.
    pub(crate) pod: u64,
    pub(crate) role: Role,
    /// The cluster's system identifier, if the Pod reported one.
    pub(crate) system: Option<u64>,
    /// The number of the timeline. `None` for a standby, and for a primary that did not report its timeline.
    pub(crate) timeline: Option<u32>,
    /// True if the Pod passes its probes.
    pub(crate) passing: bool,
}

/// The reason why a Pod is fenced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fence {
    /// The Pod belongs to another cluster.
    OtherSystem { expected: u64, got: u64 },
    /// The Pod is a primary on a timeline from before the last promotion.
    OldTimeline { newest: u32, got: u32 },
    /// The Pod is a primary, but the pool already uses another primary on the same timeline.
    SecondPrimary,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OtherSystem { expected, got } => {
                write!(f, "the server belongs to another cluster: expected system identifier {expected}, got {got}")
            }
            Self::OldTimeline { newest, got } => {
                write!(f, "the server is a former primary: it is on timeline {got}, but timeline {newest} has begun")
            }
            Self::SecondPrimary => f.write_str("another Pod is the primary on the same timeline"),
        }
    }
}

/// Maximum number of clusters whose timelines are remembered. The limit bounds the memory use if a faulty server
/// reports a new system identifier with every probe.
const CLUSTERS: usize = 64;

/// The highest timeline of each cluster so far, and the primary that the pool uses.
#[derive(Clone, Debug, Default)]
pub(crate) struct Timelines {
    /// The system identifier of the pool's cluster.
    system: Option<u64>,
    /// The highest timeline seen in each cluster, by system identifier. An entry is evicted only if the map is full and
    /// the pool's own cluster needs its place.
    newest: BTreeMap<u64, u32>,
    /// The serial number of the primary in use.
    primary: Option<u64>,
}

impl Timelines {
    /// Records the timelines in `claims`. Returns, for each claim, the reason why its Pod must be fenced, or `None` if
    /// the Pod may be used.
    pub(crate) fn judge(&mut self, claims: &[Claim]) -> Vec<Option<Fence>> {
        let is_reported = |system: Option<u64>| claims.iter().any(|claim| claim.system == system);
        let first = claims.iter().filter(|claim| claim.passing).find_map(|claim| claim.system);
        if let Some(first) = first.filter(|_| self.system.is_none() || !is_reported(self.system)) {
            (self.system, self.primary) = (Some(first), None);
        }
        let (Some(system), belongs) =
            (self.system, |claim: &Claim| claim.system.is_none_or(|id| Some(id) == self.system))
        else {
            return vec![None; claims.len()];
        };
        for claim in claims.iter().filter(|claim| claim.role == Role::Primary) {
            let cluster = claim.system.unwrap_or(system);
            let Some(timeline) = claim.timeline else { continue };
            if self.newest.len() >= CLUSTERS && !self.newest.contains_key(&cluster) {
                if cluster != system {
                    continue;
                }
                self.newest.pop_first();
            }
            let newest = self.newest.entry(cluster).or_default();
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
    fn fences_a_former_primary_until_it_becomes_a_standby() {
        let mut timelines = Timelines::default();
        let (old, new) = (claim(0, Role::Primary, 7, 1), claim(1, Role::Primary, 7, 2));
        assert_eq!(timelines.judge(&[old, claim(1, Role::Standby, 7, 0)]), [None, None]);
        let fenced = Some(Fence::OldTimeline { newest: 2, got: 1 });
        assert_eq!(timelines.judge(&[old, new]), [fenced, None]);
        assert_eq!(timelines.judge(&[old]), [fenced]);
        assert_eq!(timelines.judge(&[claim(0, Role::Standby, 7, 0), new]), [None, None]);
    }

    #[test]
    fn keeps_the_primary_in_use_if_two_primaries_share_a_timeline() {
        let mut timelines = Timelines::default();
        let (a, b) = (claim(0, Role::Primary, 7, 1), claim(1, Role::Primary, 7, 1));
        assert_eq!(timelines.judge(&[b]), [None]);
        assert_eq!(timelines.judge(&[a, b]), [Some(Fence::SecondPrimary), None]);
        let gone = Claim { passing: false, ..b };
        assert_eq!(timelines.judge(&[a, gone]), [None, Some(Fence::SecondPrimary)]);
    }

    #[test]
    fn adopts_another_cluster_when_no_pod_reports_the_old_one() {
        let mut timelines = Timelines::default();
        let (ours, other) = (claim(0, Role::Primary, 7, 9), claim(1, Role::Standby, 8, 0));
        let fenced = Some(Fence::OtherSystem { expected: 7, got: 8 });
        assert_eq!(timelines.judge(&[ours, other]), [None, fenced]);
        assert_eq!(timelines.judge(&[Claim { passing: false, ..ours }, other]), [None, fenced]);
        // Every Pod now belongs to the other cluster, whose timeline is lower than the old cluster's.
        let recreated = claim(2, Role::Primary, 8, 1);
        assert_eq!(timelines.judge(&[recreated, other]), [None, None]);
    }

    #[test]
    fn remembers_timelines_of_clusters_that_were_not_adopted() {
        let mut timelines = Timelines::default();
        let (other, new, old) =
            (claim(0, Role::Primary, 8, 1), claim(1, Role::Primary, 7, 3), claim(2, Role::Primary, 7, 2));
        assert_eq!(timelines.judge(&[other]), [None]);
        assert_eq!(timelines.judge(&[other, new]), [None, Some(Fence::OtherSystem { expected: 8, got: 7 })]);
        assert_eq!(timelines.judge(&[old]), [Some(Fence::OldTimeline { newest: 3, got: 2 })]);
    }

    #[test]
    fn limits_the_number_of_remembered_clusters() {
        let mut timelines = Timelines::default();
        let ours = claim(0, Role::Primary, 7, 1);
        for system in 100..1000 {
            timelines.judge(&[ours, claim(1, Role::Primary, system, 1)]);
        }
        assert_eq!(timelines.newest.len(), CLUSTERS);
        for system in 100..1000 {
            assert_eq!(timelines.judge(&[claim(1, Role::Primary, system, 1)]), [None], "the only Pod is adopted");
        }
        assert_eq!(timelines.newest.len(), CLUSTERS);
        assert_eq!(
            timelines.judge(&[claim(0, Role::Primary, 7, 2), ours])[1],
            Some(Fence::OldTimeline { newest: 2, got: 1 })
        );
    }

    #[test]
    fn does_not_fence_a_pod_that_reports_no_system_identifier() {
        let mut timelines = Timelines::default();
        let unidentified = Claim { pod: 0, role: Role::Primary, system: None, timeline: None, passing: true };
        assert_eq!(timelines.judge(&[unidentified]), [None]);
        assert_eq!(timelines.judge(&[unidentified, claim(1, Role::Standby, 7, 0)]), [None, None]);
    }

    proptest! {
        #[test]
        fn leaves_at_most_one_primary_unfenced_on_the_newest_timeline(
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
                let adopted = timelines.system.is_some();
                let is_primary = |claim: &&Claim| adopted && claim.role == Role::Primary;
                for reported in claims.iter().filter(is_primary) {
                    let newest = newest.entry(reported.system.unwrap()).or_insert(0);
                    *newest = reported.timeline.unwrap().max(*newest);
                }
                let left: Vec<_> = claims
                    .iter()
                    .zip(&fences)
                    .filter(|(claim, fence)| is_primary(claim) && fence.is_none())
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
