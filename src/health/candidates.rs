//! Computes the candidates for each target. The target is the kind of server that a checkout requests, such as the
//! primary; the candidates are the Pods from which the checkout may choose.

use super::State;
use crate::{
    config::{LagFallback, Target},
    endpoint::{Role, snapshot::LISTS},
};

/// The properties of one Pod that determine for which targets it is a candidate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Eligibility {
    pub(crate) state: State,
    /// The Pod's role; [`Role::Unknown`] while the role is not verified.
    pub(crate) role: Role,
    /// True if transactions are read-only by default (`default_transaction_read_only`).
    pub(crate) read_only: bool,
    /// True if the Pod must not be used: it belongs to another cluster, it is a former or second primary (see
    /// [`fencing`](super::fencing)), it is detached (see [`absence`](super::absence)), or another address of the same
    /// Pod is used (see [`alternative`](super::alternative)).
    pub(crate) fenced: bool,
    /// True if the Pod is a standby that is too far behind its primary; see [`lag`](super::lag).
    pub(crate) late: bool,
    /// True if a session of the Pod has ended and the Pod has not responded since then; see
    /// [`suspicion`](super::suspicion). Other Pods are preferred.
    pub(crate) suspect: bool,
    /// True if this client uses the Pod only because of its role, in addition to the Pods of its subset.
    pub(crate) role_only: bool,
    /// The Pod's priority (RFC 2782). Of the Pods that can serve a target, only those with the lowest number do.
    pub(crate) priority: u16,
}

/// The candidates for every target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Lists {
    /// The lists of candidates, without duplicates. A list holds indexes into the slice that was passed to
    /// [`candidates`], in ascending order.
    pub(crate) distinct: Vec<Vec<u32>>,
    /// For each target, the index of its list in `distinct`. Indexed by [`Target::index`]. Targets with equal
    /// candidates share one list.
    pub(crate) of: [usize; LISTS],
    /// True if no Pod is healthy, so the candidates are ejected Pods.
    pub(crate) panic: bool,
}

// The kinds of Pods that the targets distinguish. Each kind is one bit of a bit set.
const WRITABLE_PRIMARY: u8 = 1;
const READ_ONLY_PRIMARY: u8 = 2;
const STANDBY: u8 = 4;
const UNKNOWN: u8 = 8;
/// The bit of a Pod that is used only for its role is the bit of its kind, shifted by this number.
const ROLE_ONLY: u32 = 4;

/// The kinds of Pods, each with the role and the read-only setting of its servers.
const KINDS: [(u8, Role, bool); 4] = [
    (WRITABLE_PRIMARY, Role::Primary, false),
    (READ_ONLY_PRIMARY, Role::Primary, true),
    (STANDBY, Role::Standby, true),
    // The read-only setting is ignored while the role is not verified.
    (UNKNOWN, Role::Unknown, false),
];

/// The kinds of Pods that each target accepts, indexed by [`Target::index`].
const ACCEPTED: [u8; LISTS] = kinds(false);
/// The kinds of Pods that each target prefers among the accepted ones, indexed by [`Target::index`].
const PREFERRED: [u8; LISTS] = kinds(true);
/// The kinds of Pods that serve each target even if they are used only for their role, indexed by [`Target::index`].
const ROLES: [u8; LISTS] = needed();

/// Returns the kinds of Pods that each target accepts. If `preferred` is true, returns only the accepted kinds that the
/// target also prefers.
const fn kinds(preferred: bool) -> [u8; LISTS] {
    let (mut kinds, mut i) = ([0; LISTS], 0);
    while i < LISTS {
        let (target, mut k) = (Target::ALL[i], 0);
        while k < KINDS.len() {
            let (kind, role, read_only) = KINDS[k];
            if target.accepts(role, read_only) && (!preferred || target.prefers(role)) {
                kinds[i] |= kind;
            }
            k += 1;
        }
        i += 1;
    }
    kinds
}

/// Returns the kinds of Pods that have the role that each target needs.
const fn needed() -> [u8; LISTS] {
    let (mut kinds, mut i) = ([0; LISTS], 0);
    while i < LISTS {
        kinds[i] = match Target::ALL[i].roles() {
            Target::WRITES => WRITABLE_PRIMARY | READ_ONLY_PRIMARY,
            Target::READS => STANDBY,
            _ => 0,
        };
        i += 1;
    }
    kinds
}

impl Eligibility {
    /// Returns the properties of a Pod to which no restriction applies.
    #[cfg(any(feature = "bench", test))]
    pub(crate) fn unrestricted(state: State, role: Role) -> Self {
        Self {
            state,
            role,
            read_only: false,
            fenced: false,
            late: false,
            suspect: false,
            role_only: false,
            priority: 0,
        }
    }

    fn kind(&self) -> u8 {
        let kind = match self.role {
            Role::Primary if self.read_only => READ_ONLY_PRIMARY,
            Role::Primary => WRITABLE_PRIMARY,
            Role::Standby => STANDBY,
            Role::Unknown => UNKNOWN,
        };
        if self.role_only { kind << ROLE_ONLY } else { kind }
    }
}

/// The Pods that serve a target: those with this priority whose kind is in the bit set.
type Serving = (u16, u8);

/// Returns the Pods that serve a target. `present` has the kinds of Pods with each priority, lowest number first. Pods
/// that are used only for their role serve a target that does not need this role only if no other Pod can serve the
/// target.
fn wanted(target: Target, present: &[Serving]) -> Serving {
    let (accepted, preferred) = (ACCEPTED[target.index()], PREFERRED[target.index()]);
    let with_role = |kinds: u8, roles: u8| kinds | (kinds & roles) << ROLE_ONLY;
    let mut choices = [ROLES[target.index()], u8::MAX].into_iter().flat_map(|roles| {
        let of_priority = move |&(priority, present): &Serving| {
            [preferred, accepted].map(|kinds| (priority, with_role(kinds, roles) & present))
        };
        present.iter().flat_map(of_priority)
    });
    choices.find(|(_, kinds)| *kinds != 0).unwrap_or_default()
}

/// Computes the candidates for every target.
///
/// The candidates are the healthy Pods, or the ejected Pods if no unfenced Pod is healthy. A Pod is never a candidate
/// while it has not passed a probe yet, is draining, is fenced, or is too far behind its primary. [`Target::accepts`]
/// and [`Target::prefers`] select the candidates for each target. A Pod that is used only for its role is a candidate
/// for targets that need this role, and for other targets only if they have no other candidate. The same holds for a
/// suspect Pod and all targets. If a target excludes the writable primary, no standby is usable, and at least one
/// standby is too far behind, `fallback` decides whether the primary serves the target instead.
///
/// Of the healthy Pods that a target accepts, only those with the lowest priority number are candidates, even if the
/// target would prefer the role of others. Ejected Pods are used whatever their priority.
pub(crate) fn candidates(pods: &[Eligibility], fallback: LagFallback) -> Lists {
    let panic = !pods.iter().any(|pod| pod.state == State::Healthy && !pod.fenced);
    let usable = if panic { State::Ejected } else { State::Healthy };
    let serving = || (0..).zip(pods).filter(|(_, pod)| pod.state == usable && !pod.fenced && !pod.late);
    let priority = |pod: &Eligibility| if panic { 0 } else { pod.priority };
    let mut present: Vec<Serving> = Vec::with_capacity(1);
    for (_, pod) in serving() {
        match present.binary_search_by_key(&priority(pod), |(priority, _)| *priority) {
            Ok(index) => present[index].1 |= pod.kind(),
            Err(index) => present.insert(index, (priority(pod), pod.kind())),
        }
    }
    let all = present.iter().fold(0, |all, (_, kinds)| all | kinds);
    let primary_replaces_standbys = fallback == LagFallback::Primary
        && all & (STANDBY | STANDBY << ROLE_ONLY) == 0
        && pods.iter().any(|pod| pod.late);
    let wanted = Target::ARRAY.map(|target| {
        let target = match target.excludes_writable_primary() && primary_replaces_standbys {
            true => Target::Primary,
            false => target,
        };
        wanted(target, &present)
    });

    let mut sets = Vec::with_capacity(LISTS);
    let of = wanted.map(|wanted| {
        sets.iter().position(|set| *set == wanted).unwrap_or_else(|| {
            sets.push(wanted);
            sets.len() - 1
        })
    });
    let mut distinct: Vec<Vec<u32>> = sets.iter().map(|_| Vec::with_capacity(pods.len())).collect();
    for (list, (wanted, kinds)) in distinct.iter_mut().zip(&sets) {
        let accepted = || serving().filter(|(_, pod)| pod.kind() & kinds != 0 && priority(pod) == *wanted);
        list.extend(accepted().filter(|(_, pod)| !pod.suspect).map(|(position, _)| position));
        if list.is_empty() {
            list.extend(accepted().map(|(position, _)| position));
        }
    }
    Lists { distinct, of, panic: panic && all != 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pod(state: State, role: Role) -> Eligibility {
        Eligibility::unrestricted(state, role)
    }

    fn of(lists: &Lists, target: Target) -> &[u32] {
        &lists.distinct[lists.of[target.index()]]
    }

    #[test]
    fn each_target_accepts_the_same_pods_as_libpq() {
        let lists = candidates(
            &[
                pod(State::Healthy, Role::Primary),
                pod(State::Healthy, Role::Standby),
                pod(State::Healthy, Role::Standby),
                Eligibility { read_only: true, ..pod(State::Healthy, Role::Primary) },
            ],
            LagFallback::Fail,
        );
        assert_eq!(of(&lists, Target::Any), [0, 1, 2, 3]);
        assert_eq!(of(&lists, Target::ReadWrite), [0]);
        assert_eq!(of(&lists, Target::ReadOnly), [1, 2, 3]);
        assert_eq!(of(&lists, Target::Primary), [0, 3]);
        assert_eq!(of(&lists, Target::Standby), [1, 2]);
        assert_eq!(of(&lists, Target::PreferStandby), [1, 2]);
        assert_eq!(of(&lists, Target::PreferPrimary), [0, 3]);
        assert!(!lists.panic);
    }

    #[test]
    fn only_prefer_targets_fall_back_to_other_roles() {
        let pods = [pod(State::Ejected, Role::Standby), pod(State::Healthy, Role::Primary)];
        let lists = candidates(&pods, LagFallback::Primary);
        assert_eq!(of(&lists, Target::PreferStandby), [1]);
        assert!(of(&lists, Target::Standby).is_empty());
    }

    #[test]
    fn lag_fallback_lets_the_primary_replace_late_standbys() {
        let late = Eligibility { late: true, ..pod(State::Healthy, Role::Standby) };
        let fenced = Eligibility { fenced: true, ..pod(State::Healthy, Role::Primary) };
        let pods = [late, fenced, pod(State::Healthy, Role::Primary)];
        let lists = candidates(&pods, LagFallback::Fail);
        assert_eq!(of(&lists, Target::Any), [2]);
        assert!(of(&lists, Target::Standby).is_empty());
        assert_eq!(of(&lists, Target::PreferStandby), [2]);
        assert_eq!(of(&candidates(&pods, LagFallback::Primary), Target::Standby), [2]);
        let one_not_late = [late, pod(State::Healthy, Role::Standby), pods[2]];
        assert_eq!(of(&candidates(&one_not_late, LagFallback::Primary), Target::Standby), [1]);
        let lists = candidates(&[fenced], LagFallback::Fail);
        assert!(of(&lists, Target::Any).is_empty(), "a fenced Pod is not used even if it is the only one");
    }

    #[test]
    fn pods_of_unknown_role_serve_only_targets_that_accept_all() {
        let unknown = Eligibility { read_only: true, ..pod(State::Healthy, Role::Unknown) };
        let lists = candidates(&[unknown], LagFallback::Fail);
        for target in Target::ARRAY {
            let all = [Target::Any, Target::PreferStandby, Target::PreferPrimary].contains(&target);
            assert_eq!(of(&lists, target).len(), usize::from(all), "{target}");
        }
    }

    #[test]
    fn a_pod_used_only_for_its_role_serves_only_targets_that_need_the_role() {
        let role_only = |role| Eligibility { role_only: true, ..pod(State::Healthy, role) };
        let standby = pod(State::Healthy, Role::Standby);
        let lists = candidates(&[role_only(Role::Primary), standby, standby], LagFallback::Fail);
        for target in [Target::Any, Target::PreferStandby, Target::Standby, Target::ReadOnly] {
            assert_eq!(of(&lists, target), [1, 2], "{target}");
        }
        for target in [Target::Primary, Target::ReadWrite, Target::PreferPrimary] {
            assert_eq!(of(&lists, target), [0], "{target}");
        }
        let lists = candidates(&[pod(State::Healthy, Role::Primary), role_only(Role::Standby)], LagFallback::Fail);
        for target in [Target::Any, Target::Primary, Target::PreferPrimary] {
            assert_eq!(of(&lists, target), [0], "{target}");
        }
        for target in [Target::PreferStandby, Target::Standby, Target::ReadOnly] {
            assert_eq!(of(&lists, target), [1], "{target}");
        }
    }

    #[test]
    fn a_pod_used_only_for_its_role_replaces_the_last_candidate() {
        let primary = Eligibility { role_only: true, ..pod(State::Healthy, Role::Primary) };
        let late = Eligibility { late: true, ..pod(State::Healthy, Role::Standby) };
        for other in [pod(State::Ejected, Role::Standby), late] {
            let lists = candidates(&[primary, other], LagFallback::Fail);
            assert_eq!((of(&lists, Target::Any), of(&lists, Target::PreferStandby)), (&[0][..], &[0][..]));
            assert!(of(&lists, Target::Standby).is_empty());
        }
        assert_eq!(of(&candidates(&[primary, late], LagFallback::Primary), Target::Standby), [0]);
    }

    #[test]
    fn a_higher_priority_number_serves_only_what_no_lower_one_can() {
        let at = |priority, pod: Eligibility| Eligibility { priority, ..pod };
        let (primary, standby) = (pod(State::Healthy, Role::Primary), pod(State::Healthy, Role::Standby));
        let mut pods = [at(0, primary), at(10, standby), at(10, standby), at(20, standby)];
        let lists = candidates(&pods, LagFallback::Fail);
        for target in [Target::Any, Target::PreferStandby, Target::PreferPrimary, Target::Primary] {
            assert_eq!(of(&lists, target), [0], "{target}");
        }
        assert_eq!(of(&lists, Target::Standby), [1, 2]);
        // A suspect Pod is healthy, so it is not replaced by Pods with a higher number.
        pods[1].suspect = true;
        assert_eq!(of(&candidates(&pods, LagFallback::Fail), Target::Standby), [2]);
        pods[2].suspect = true;
        assert_eq!(of(&candidates(&pods, LagFallback::Fail), Target::Standby), [1, 2]);
        // Pods that are ejected or late are replaced, by the lowest number that remains.
        pods[0].state = State::Ejected;
        pods[1].late = true;
        let lists = candidates(&pods, LagFallback::Fail);
        assert_eq!((of(&lists, Target::Any), of(&lists, Target::Standby)), (&[2][..], &[2][..]));
        pods[2].fenced = true;
        assert_eq!(of(&candidates(&pods, LagFallback::Fail), Target::Any), [3]);
        pods[3].role_only = true;
        assert_eq!(of(&candidates(&pods, LagFallback::Fail), Target::Any), [3]);
        pods[0] = at(30, primary);
        let lists = candidates(&pods, LagFallback::Fail);
        assert_eq!((of(&lists, Target::Any), of(&lists, Target::Standby)), (&[0][..], &[3][..]));
        // If no Pod is healthy, all ejected ones are tried.
        let ejected = [0, 10].map(|priority| at(priority, pod(State::Ejected, Role::Standby)));
        assert_eq!(of(&candidates(&ejected, LagFallback::Fail), Target::Any), [0, 1]);
    }

    proptest! {
        #[test]
        fn all_candidates_have_the_lowest_priority_number_that_serves(
            pods in prop::collection::vec(
                (0..State::ALL.len(), 0..Role::ALL.len(), any::<bool>(), prop::bool::weighted(0.2), 0..4u16), 0..12)
        ) {
            let pods: Vec<_> = pods
                .iter()
                .map(|&(state, role, read_only, fenced, priority)| {
                    let role = Role::ALL[role];
                    let read_only = read_only && role != Role::Unknown;
                    Eligibility { read_only, fenced, priority, ..pod(State::ALL[state], role) }
                })
                .collect();
            let lists = candidates(&pods, LagFallback::Fail);
            for target in Target::ARRAY {
                let accepted = pods.iter().filter(|pod| {
                    pod.state == State::Healthy && !pod.fenced && target.accepts(pod.role, pod.read_only)
                });
                let lowest = accepted.map(|pod| pod.priority).min();
                for &position in of(&lists, target) {
                    let pod = pods[position as usize];
                    prop_assert!(lists.panic || Some(pod.priority) == lowest, "{target}: {pod:?}");
                }
                // Priorities leave no target without a candidate.
                let equal: Vec<_> = pods.iter().map(|pod| Eligibility { priority: 0, ..*pod }).collect();
                let without = candidates(&equal, LagFallback::Fail);
                prop_assert_eq!(of(&lists, target).is_empty(), of(&without, target).is_empty());
            }
        }

        #[test]
        fn candidates_are_usable_and_exist_if_any_pod_is_usable(
            pods in prop::collection::vec(
                (0..State::ALL.len(), 0..Role::ALL.len(), any::<bool>(), prop::bool::weighted(0.2), any::<bool>()),
                0..12)
        ) {
            let pods: Vec<_> = pods
                .iter()
                .map(|&(state, role, read_only, fenced, role_only)| {
                    Eligibility { read_only, fenced, role_only, ..pod(State::ALL[state], Role::ALL[role]) }
                })
                .collect();
            let lists = candidates(&pods, LagFallback::Fail);
            let any_healthy = pods.iter().any(|pod| pod.state == State::Healthy && !pod.fenced);
            for target in Target::ARRAY {
                for &position in of(&lists, target) {
                    let pod = pods[position as usize];
                    // A candidate is neither new nor draining, and is ejected only if no Pod is healthy.
                    prop_assert!(pod.state == State::Healthy || (!any_healthy && pod.state == State::Ejected));
                    prop_assert!(!pod.fenced);
                    // A candidate has the required role.
                    prop_assert!(target != Target::Primary || pod.role == Role::Primary);
                    prop_assert!(target != Target::Standby || pod.role == Role::Standby);
                }
            }
            let usable = pods.iter().any(|pod| matches!(pod.state, State::Healthy | State::Ejected) && !pod.fenced);
            for target in [Target::Any, Target::PreferPrimary, Target::PreferStandby] {
                prop_assert_eq!(of(&lists, target).is_empty(), !usable);
            }
        }
    }
}
