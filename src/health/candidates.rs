//! Eligibility in, lists of candidates out: who may be chosen for each target. Pure.

use super::State;
use crate::{
    config::{LagFallback, Target},
    endpoint::{Role, snapshot::LISTS},
};

/// What the lists depend on, for one Pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Eligibility {
    /// Its state.
    pub(crate) state: State,
    /// Its role.
    pub(crate) role: Role,
    /// Whether its sessions are read-only by default (`default_transaction_read_only`).
    pub(crate) read_only: bool,
    /// It is not what it says it is; see [`fencing`](super::fencing).
    pub(crate) fenced: bool,
    /// It is a standby that is too far behind; see [`lag`](super::lag).
    pub(crate) late: bool,
}

/// The candidates of each target, as places among the facts, and whether this is panic.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Lists {
    /// The lists that there are: several targets can have the same.
    pub(crate) distinct: Vec<Vec<u32>>,
    /// Which of them each target has, in the order of [`Target::index`].
    pub(crate) of: [usize; LISTS],
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
pub(crate) fn candidates(facts: &[Eligibility], fallback: LagFallback) -> Lists {
    let panic = !facts.iter().any(|pod| pod.state == State::Healthy && !pod.fenced);
    let usable = if panic { State::Ejected } else { State::Healthy };
    let serves = |pod: &Eligibility| pod.state == usable && !pod.fenced && !pod.late;
    let room = || Vec::with_capacity(facts.len());
    let (mut any, mut standby, mut primary, mut writable) = (room(), room(), Vec::new(), Vec::new());
    for (place, pod) in facts.iter().enumerate().filter(|(_, pod)| serves(pod)) {
        let place = place as u32;
        any.push(place);
        match pod.role {
            Role::Primary => {
                primary.push(place);
                if !pod.read_only {
                    writable.push(place);
                }
            }
            Role::Standby => standby.push(place),
            Role::Unknown => {}
        }
    }
    let stand_in = fallback == LagFallback::Primary && standby.is_empty() && facts.iter().any(|pod| pod.late);
    let (no_standby, no_primary) = (standby.is_empty(), primary.is_empty());
    let all_write = writable.len() == primary.len();
    let panic = panic && !any.is_empty();

    let (of_any, of_primary, of_standby) = (0, 1, 2);
    let mut distinct = vec![any, primary, standby];
    let (mut of_writable, mut of_read_only) = (of_primary, of_standby);
    if !all_write {
        let reads = |pod: &Eligibility| pod.role == Role::Standby || pod.role == Role::Primary && pod.read_only;
        let places = facts.iter().enumerate().filter(|(_, pod)| serves(pod) && reads(pod));
        let read_only = places.map(|(place, _)| place as u32).collect();
        (of_writable, of_read_only) = (distinct.len(), distinct.len() + 1);
        distinct.extend([writable, read_only]);
    }
    let mut of = [of_any; LISTS];
    for target in Target::ALL {
        of[target.index()] = match target {
            Target::ReadWrite => of_writable,
            Target::ReadOnly | Target::Standby if stand_in => of_primary,
            Target::ReadOnly => of_read_only,
            Target::Primary => of_primary,
            Target::Standby => of_standby,
            Target::PreferStandby if !no_standby => of_standby,
            Target::PreferPrimary if !no_primary => of_primary,
            Target::Any | Target::PreferStandby | Target::PreferPrimary => of_any,
        };
    }
    Lists { distinct, of, panic }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROLES: [Role; 3] = [Role::Primary, Role::Standby, Role::Unknown];
    const STATES: [State; 4] = [State::Probing, State::Healthy, State::Ejected, State::Draining];

    fn pod(state: State, role: Role) -> Eligibility {
        Eligibility { state, role, read_only: false, fenced: false, late: false }
    }

    fn of(lists: &Lists, target: Target) -> &[u32] {
        &lists.distinct[lists.of[target.index()]]
    }

    #[test]
    fn each_target_gets_the_pods_that_libpq_would_accept() {
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
    fn a_preference_falls_back_and_a_demand_does_not() {
        let pods = [pod(State::Ejected, Role::Standby), pod(State::Healthy, Role::Primary)];
        let lists = candidates(&pods, LagFallback::Primary);
        assert_eq!(of(&lists, Target::PreferStandby), [1]);
        assert!(of(&lists, Target::Standby).is_empty());
    }

    #[test]
    fn who_is_fenced_or_late_is_left_out_and_the_primary_stands_in_if_told() {
        let late = Eligibility { late: true, ..pod(State::Healthy, Role::Standby) };
        let fenced = Eligibility { fenced: true, ..pod(State::Healthy, Role::Primary) };
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
                .map(|&(state, role, read_only, fenced)| Eligibility { read_only, fenced, ..pod(STATES[state], ROLES[role]) })
                .collect();
            let lists = candidates(&facts, LagFallback::Fail);
            let any_healthy = facts.iter().any(|pod| pod.state == State::Healthy && !pod.fenced);
            for target in Target::ALL {
                for &place in of(&lists, target) {
                    let pod = facts[place as usize];
                    // Nobody unproven or on the way out; nobody ejected while another serves.
                    prop_assert!(pod.state == State::Healthy || (!any_healthy && pod.state == State::Ejected));
                    prop_assert!(!pod.fenced);
                    // A role that is demanded is had.
                    prop_assert!(target != Target::Primary || pod.role == Role::Primary);
                    prop_assert!(target != Target::Standby || pod.role == Role::Standby);
                }
            }
            let usable = facts.iter().any(|pod| matches!(pod.state, State::Healthy | State::Ejected) && !pod.fenced);
            for target in [Target::Any, Target::PreferPrimary, Target::PreferStandby] {
                prop_assert_eq!(of(&lists, target).is_empty(), !usable);
            }
        }
    }
}
