//! Facts in, lists of candidates out: who may be chosen for each target. Pure.

use super::State;
use crate::{
    config::Target,
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
/// there; `prefer-primary` is the same the other way round.
pub(crate) fn candidates(facts: &[Facts]) -> Lists {
    let panic = !facts.iter().any(|pod| pod.state == State::Healthy);
    let usable = if panic { State::Ejected } else { State::Healthy };
    let room = || Vec::with_capacity(facts.len());
    let (mut any, mut primary, mut standby, mut writable, mut read_only) = (room(), room(), room(), room(), room());
    for (place, pod) in facts.iter().enumerate().filter(|(_, pod)| pod.state == usable) {
        let place = place as u32;
        any.push(place);
        match pod.role {
            Role::Primary => {
                primary.push(place);
                if pod.read_only { &mut read_only } else { &mut writable }.push(place);
            }
            Role::Standby => {
                standby.push(place);
                read_only.push(place);
            }
            Role::Unknown => {}
        }
    }
    let or_any = |list: &Vec<u32>| if list.is_empty() { any.clone() } else { list.clone() };
    let (prefer_standby, prefer_primary) = (or_any(&standby), or_any(&primary));
    let mut lists = Lists { panic: panic && !any.is_empty(), ..Lists::default() };
    for (target, list) in [
        (Target::Any, any),
        (Target::ReadWrite, writable),
        (Target::ReadOnly, read_only),
        (Target::Primary, primary),
        (Target::Standby, standby),
        (Target::PreferStandby, prefer_standby),
        (Target::PreferPrimary, prefer_primary),
    ] {
        lists.lists[target.index()] = list;
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
        Facts { state, role, read_only: false }
    }

    fn of(lists: &Lists, target: Target) -> &[u32] {
        &lists.lists[target.index()]
    }

    #[test]
    fn each_target_gets_the_pods_that_libpq_would_accept() {
        let lists = candidates(&[
            pod(State::Healthy, Role::Primary),
            pod(State::Healthy, Role::Standby),
            pod(State::Healthy, Role::Standby),
            Facts { read_only: true, ..pod(State::Healthy, Role::Primary) },
        ]);
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
        let lists = candidates(&[pod(State::Ejected, Role::Standby), pod(State::Healthy, Role::Primary)]);
        assert_eq!(of(&lists, Target::PreferStandby), [1]);
        assert!(of(&lists, Target::Standby).is_empty());
    }

    proptest! {
        #[test]
        fn the_lists_are_never_empty_for_no_reason(
            pods in prop::collection::vec((0..4usize, 0..3usize, any::<bool>()), 0..12)
        ) {
            let facts: Vec<_> = pods
                .iter()
                .map(|&(state, role, read_only)| Facts { state: STATES[state], role: ROLES[role], read_only })
                .collect();
            let lists = candidates(&facts);
            let any_healthy = facts.iter().any(|pod| pod.state == State::Healthy);
            for (target, list) in Target::ALL.iter().zip(&lists.lists) {
                for &place in list {
                    let pod = facts[place as usize];
                    // Nobody unproven or on the way out; nobody ejected while another serves.
                    prop_assert!(pod.state == State::Healthy || (!any_healthy && pod.state == State::Ejected));
                    // A role that is demanded is had.
                    prop_assert!(*target != Target::Primary || pod.role == Role::Primary);
                    prop_assert!(*target != Target::Standby || pod.role == Role::Standby);
                }
            }
            let usable = facts.iter().any(|pod| matches!(pod.state, State::Healthy | State::Ejected));
            for target in [Target::Any, Target::PreferPrimary, Target::PreferStandby] {
                prop_assert_eq!(of(&lists, target).is_empty(), !usable);
            }
        }
    }
}
