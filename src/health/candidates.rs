//! Facts in, lists of candidates out: who may be chosen for each target. Pure.

use super::State;
use crate::{
    config::{LagFallback, Target},
    endpoint::{Role, snapshot::LISTS},
};

/// What the lists depend on, for one Pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Facts {
    /// Its state.
    pub(crate) state: State,
    /// Its role.
    pub(crate) role: Role,
    /// Whether its sessions are read-only by default (`default_transaction_read_only`).
    pub(crate) read_only: bool,
    /// It is not what it says it is; see [`lineage`](super::lineage).
    pub(crate) fenced: bool,
    /// It is a standby that is too far behind; see [`lag`](super::lag).
    pub(crate) late: bool,
}

/// The candidates of each target, as places among the facts, and whether this is panic.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Lists {
    /// One list a target, in the order of [`Target::index`].
    pub(crate) lists: [Vec<u32>; LISTS],
    /// No Pod is healthy, so the ejected ones are used.
    pub(crate) panic: bool,
}

/// Makes the lists.
///
/// The healthy Pods are the candidates; only when there is none, the ejected ones are. A Pod that has never passed a
/// probe and one that is being drained are never candidates. What each target accepts is libpq's rule (PostgreSQL
/// manual, "libpq: Connection Parameters", `target_session_attrs`): `prefer-standby` takes any Pod when no standby is
/// there; `prefer-primary` is the same the other way round. A Pod that is fenced, or too late, is never a candidate; where
/// that leaves no standby at all, the primary can stand in for them.
pub(crate) fn candidates(facts: &[Facts], fallback: LagFallback) -> Lists {
    let panic = !facts.iter().any(|pod| pod.state == State::Healthy && !pod.fenced);
    let usable = if panic { State::Ejected } else { State::Healthy };
    let list = |fits: &dyn Fn(&Facts) -> bool| -> Vec<u32> {
        let serves = |pod: &Facts| pod.state == usable && !pod.fenced && !pod.late;
        let places = facts.iter().enumerate().filter(|(_, pod)| serves(pod) && fits(pod));
        places.map(|(place, _)| place as u32).collect()
    };
    let any = list(&|_| true);
    let primary = list(&|pod| pod.role == Role::Primary);
    let standby = list(&|pod| pod.role == Role::Standby);
    let all_late = facts.iter().any(|pod| pod.late) && standby.is_empty();
    let stand_in = all_late && fallback == LagFallback::Primary;
    let or_any = |list: &Vec<u32>| if list.is_empty() { any.clone() } else { list.clone() };
    let mut lists = Lists { panic: panic && !any.is_empty(), ..Lists::default() };
    for target in Target::ALL {
        lists.lists[target.index()] = match target {
            Target::Any => any.clone(),
            Target::ReadWrite => list(&|pod| pod.role == Role::Primary && !pod.read_only),
            Target::ReadOnly | Target::Standby if stand_in => primary.clone(),
            Target::ReadOnly => list(&|pod| pod.role == Role::Standby || pod.role == Role::Primary && pod.read_only),
            Target::Primary => primary.clone(),
            Target::Standby => standby.clone(),
            Target::PreferStandby => or_any(&standby),
            Target::PreferPrimary => or_any(&primary),
        };
    }
    lists
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROLES: [Role; 3] = [Role::Primary, Role::Standby, Role::Unknown];
    const STATES: [State; 4] = [State::Probing, State::Healthy, State::Ejected, State::Draining];

    fn pod(state: State, role: Role) -> Facts {
        Facts { state, role, read_only: false, fenced: false, late: false }
    }

    fn of(lists: &Lists, target: Target) -> &[u32] {
        &lists.lists[target.index()]
    }

    #[test]
    fn each_target_gets_the_pods_that_libpq_would_accept() {
        let lists = candidates(
            &[
                pod(State::Healthy, Role::Primary),
                pod(State::Healthy, Role::Standby),
                pod(State::Healthy, Role::Standby),
                Facts { read_only: true, ..pod(State::Healthy, Role::Primary) },
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
    fn a_preference_falls_back_and_a_demand_does_not() {
        let pods = [pod(State::Ejected, Role::Standby), pod(State::Healthy, Role::Primary)];
        let lists = candidates(&pods, LagFallback::Primary);
        assert_eq!(of(&lists, Target::PreferStandby), [1]);
        assert!(of(&lists, Target::Standby).is_empty());
    }

    #[test]
    fn who_is_fenced_or_late_is_left_out_and_the_primary_stands_in_if_told() {
        let late = Facts { late: true, ..pod(State::Healthy, Role::Standby) };
        let fenced = Facts { fenced: true, ..pod(State::Healthy, Role::Primary) };
        let pods = [late, fenced, pod(State::Healthy, Role::Primary)];
        let lists = candidates(&pods, LagFallback::Fail);
        assert_eq!(of(&lists, Target::Any), [2]);
        assert!(of(&lists, Target::Standby).is_empty());
        assert_eq!(of(&lists, Target::PreferStandby), [2]);
        assert_eq!(of(&candidates(&pods, LagFallback::Primary), Target::Standby), [2]);
        let timely = [late, pod(State::Healthy, Role::Standby), pods[2]];
        assert_eq!(of(&candidates(&timely, LagFallback::Primary), Target::Standby), [1]);
        assert!(of(&candidates(&[fenced], LagFallback::Fail), Target::Any).is_empty(), "not even alone");
    }

    proptest! {
        #[test]
        fn the_lists_are_never_empty_for_no_reason(
            pods in prop::collection::vec((0..4usize, 0..3usize, any::<bool>(), prop::bool::weighted(0.2)), 0..12)
        ) {
            let facts: Vec<_> = pods
                .iter()
                .map(|&(state, role, read_only, fenced)| Facts { read_only, fenced, ..pod(STATES[state], ROLES[role]) })
                .collect();
            let lists = candidates(&facts, LagFallback::Fail);
            let any_healthy = facts.iter().any(|pod| pod.state == State::Healthy && !pod.fenced);
            for (target, list) in Target::ALL.iter().zip(&lists.lists) {
                for &place in list {
                    let pod = facts[place as usize];
                    // Nobody unproven or on the way out; nobody ejected while another serves.
                    prop_assert!(pod.state == State::Healthy || (!any_healthy && pod.state == State::Ejected));
                    prop_assert!(!pod.fenced);
                    // A role that is demanded is had.
                    prop_assert!(*target != Target::Primary || pod.role == Role::Primary);
                    prop_assert!(*target != Target::Standby || pod.role == Role::Standby);
                }
            }
            let usable = facts.iter().any(|pod| matches!(pod.state, State::Healthy | State::Ejected) && !pod.fenced);
            for target in [Target::Any, Target::PreferPrimary, Target::PreferStandby] {
                prop_assert_eq!(of(&lists, target).is_empty(), !usable);
            }
        }
    }
}
