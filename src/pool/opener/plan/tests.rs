use proptest::prelude::*;

use super::*;
use crate::{config::Target, pool::pod::requirement::ALL_BITS};

/// The expected value of `Plan::open` if no connection is opened.
const NONE: [usize; 0] = [];
const LIMITS: Limits = Limits { per_pod: 2, total: 32, permits: usize::MAX };

fn pod(targets: &[Target], permits: usize) -> PodState {
    let targets = targets.iter().fold(0, |bits, target| bits | target.bit());
    PodState { targets, permits, ..PodState::default() }
}

fn waiters(counts: &[(Target, usize)]) -> [usize; CLASSES] {
    let mut waiters = [0; CLASSES];
    counts.iter().for_each(|(target, count)| waiters[target.index()] = *count);
    waiters
}

fn first(now: Instant, pods: &[PodState], counts: &[(Target, usize)], limits: Limits) -> Plan {
    plan(now, pods, &waiters(counts), limits, &mut |_| 0)
}

#[test]
fn opens_one_connection_per_waiter_up_to_each_limit() {
    let now = Instant::now();
    let pods = [pod(&[Target::Any], 8), pod(&[Target::Any], 1)];
    assert_eq!(first(now, &pods, &[], LIMITS).open, NONE);
    assert_eq!(first(now, &pods, &[(Target::Any, 1)], LIMITS).open, [0]);
    assert_eq!(
        first(now, &pods, &[(Target::Any, 9)], LIMITS).open,
        [0, 0, 1],
        "two handshakes to the first Pod, one permit of the second"
    );
    let limits = Limits { total: 2, ..LIMITS };
    assert_eq!(first(now, &pods, &[(Target::Any, 9)], limits).open, [0, 0]);
    let limits = Limits { permits: 1, ..LIMITS };
    assert_eq!(first(now, &pods, &[(Target::Any, 9)], limits).open, [0]);
}

#[test]
fn an_opening_covers_one_waiter_until_it_is_slow() {
    let start = Instant::now();
    let mut pods = [pod(&[Target::Any], 7), pod(&[Target::Any], 8)];
    pods[0].openings = vec![start];
    let early = first(start + SLOW / 2, &pods, &[(Target::Any, 1)], LIMITS);
    assert_eq!((early.open, early.again_at), (vec![], Some(start + SLOW)));
    let late = first(start + SLOW, &pods, &[(Target::Any, 1)], LIMITS);
    assert_eq!(late.open, [1], "the second opening goes to another Pod");
    pods[1].openings = vec![start];
    let slow = first(start + SLOW, &pods, &[(Target::Any, 1)], LIMITS);
    assert_eq!(slow.open, NONE, "at most two openings per waiter");
}

#[test]
fn a_connection_that_a_probe_uses_covers_one_waiter_until_the_probe_is_slow() {
    let start = Instant::now();
    let mut pods = [pod(&[Target::Any], 8)];
    pods[0].borrowed = Some(start);
    let early = first(start + SLOW / 2, &pods, &[(Target::Any, 1)], LIMITS);
    assert_eq!((early.open, early.again_at), (vec![], Some(start + SLOW)));
    assert_eq!(first(start + SLOW / 2, &pods, &[(Target::Any, 2)], LIMITS).open, [0], "covers one waiter only");
    assert_eq!(first(start + SLOW, &pods, &[(Target::Any, 1)], LIMITS).open, [0]);
}

#[test]
fn one_opening_does_not_cover_waiters_of_two_classes() {
    let now = Instant::now();
    let mut pods = [pod(&[Target::Any, Target::Primary], 8), pod(&[Target::Any, Target::Standby], 8)];
    pods[0].openings = vec![now];
    let counts = [(Target::Primary, 1), (Target::Any, 1)];
    assert_eq!(first(now, &pods, &counts, LIMITS).open, [0], "the opening covers only the waiter for the primary");
    pods[1].openings = vec![now];
    assert_eq!(first(now, &pods, &counts, LIMITS).open, NONE);
}

#[test]
fn opens_nothing_during_a_backoff_and_plans_again_at_its_end() {
    let now = Instant::now();
    let mut pods = [pod(&[Target::Any], 8)];
    pods[0].not_before = Some(now + SLOW);
    let plan = first(now, &pods, &[(Target::Any, 1)], LIMITS);
    assert_eq!((plan.open, plan.again_at, plan.openable), (vec![], Some(now + SLOW), 0));
    assert_eq!(first(now + SLOW, &pods, &[(Target::Any, 1)], LIMITS).open, [0]);
}

#[test]
fn prefers_pods_without_an_overdue_ping() {
    let now = Instant::now();
    let mut pods = [pod(&[Target::Any], 8), pod(&[Target::Any], 8)];
    pods[0].unresponsive = true;
    pods[0].openings = vec![now];
    assert_eq!(first(now, &pods, &[(Target::Any, 1)], LIMITS).open, [1]);
    pods[1].permits = 0;
    assert_eq!(first(now, &pods, &[(Target::Any, 1)], LIMITS).open, [0]);
}

#[test]
fn covers_deficits_after_waiters() {
    let now = Instant::now();
    let mut pods = [pod(&[Target::Any], 8), pod(&[Target::Any], 8), pod(&[Target::Any], 8)];
    pods.iter_mut().for_each(|pod| pod.missed = true);
    let limits = Limits { total: 3, ..LIMITS };
    assert_eq!(first(now, &pods, &[(Target::Any, 1)], limits).open, [0, 0, 1]);
    pods[2].openings = vec![now];
    assert_eq!(first(now, &pods, &[], LIMITS).open, [0, 1]);
}

#[test]
fn connections_for_waiters_count_towards_the_minimum() {
    let now = Instant::now();
    let mut pods = [pod(&[Target::Any], 8), pod(&[Target::Any], 8)];
    pods.iter_mut().for_each(|pod| pod.lacking = 1);
    assert_eq!(first(now, &pods, &[(Target::Any, 1)], LIMITS).open, [0, 1]);
    pods[0].openings = vec![now];
    assert_eq!(first(now, &pods, &[(Target::Any, 1)], LIMITS).open, [1]);
}

#[test]
fn reports_classes_without_a_candidate_as_starving() {
    let now = Instant::now();
    let pods = [pod(&[Target::Any, Target::Standby], 8)];
    let plan = first(now, &pods, &[(Target::Primary, 3), (Target::Any, 1)], LIMITS);
    assert_eq!((plan.starving, plan.open), (Target::Primary.bit(), vec![0]));
    assert_eq!(plan.openable, Target::Any.bit() | Target::Standby.bit());
    assert_eq!(first(now, &[], &[(Target::Any, 1)], LIMITS).starving, Target::Any.bit());
}

#[test]
fn slow_openings_to_pods_that_serve_no_waiter_delay_no_waiter() {
    let now = Instant::now() + Duration::from_secs(10);
    let slow = PodState { openings: vec![now - SLOW; 2], ..pod(&[Target::Standby], 8) };
    let pods = [slow.clone(), slow.clone(), slow, pod(&[Target::Primary], 8)];
    assert_eq!(first(now, &pods, &[(Target::Primary, 1)], LIMITS).open, [3]);
}

/// The targets, the permits, the ages of the openings in milliseconds, the number of lacking connections, and whether a
/// checkout has missed the Pod, its backoff applies, and it is unresponsive.
type RandomPod = (u32, usize, Vec<u64>, usize, [bool; 3]);

fn pods() -> impl Strategy<Value = Vec<RandomPod>> {
    let openings = prop::collection::vec(0u64..500, 0..3);
    prop::collection::vec((0..=ALL_BITS, 0usize..6, openings, 0usize..3, any::<[bool; 3]>()), 0..6)
}

proptest! {
    #[test]
    fn every_plan_stays_within_the_limits_and_covers_all_waiters_it_can(
        pods in pods(),
        waiters in prop::array::uniform31(prop_oneof![4 => Just(0usize), 1 => 0usize..5]),
        (per_pod, total, permits) in (1usize..4, 1usize..12, 0usize..12),
        seed in any::<usize>(),
    ) {
        let now = Instant::now() + Duration::from_secs(10);
        let state = |(targets, permits, ages, lacking, [missed, in_backoff, unresponsive]): RandomPod| PodState {
            targets,
            permits,
            openings: ages.into_iter().map(|age| now - Duration::from_millis(age)).collect(),
            borrowed: None,
            lacking,
            missed,
            not_before: in_backoff.then_some(now + SLOW),
            unresponsive,
        };
        let pods: Vec<_> = pods.into_iter().map(state).collect();
        let limits = Limits { per_pod, total, permits };
        let mut seed = seed;
        let mut choose = |pods: &[usize]| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            seed % pods.len()
        };
        let plan = plan(now, &pods, &waiters, limits, &mut choose);
        let young = |pod: &PodState| pod.openings.iter().filter(|start| **start + SLOW > now).count();
        let before: usize = pods.iter().map(|pod| pod.openings.len()).sum();
        let wanted: usize = waiters.iter().sum::<usize>() + pods.iter().map(PodState::deficit).sum::<usize>();
        let waiting = (0..CLASSES).filter(|class| waiters[*class] > 0).fold(0, |mask, class| mask | 1 << class);
        let is_wanted = |pod: &&PodState| pod.targets & waiting != 0 || pod.deficit() > 0;
        let wanted_before: usize = pods.iter().filter(is_wanted).map(|pod| pod.openings.len()).sum();
        if !plan.open.is_empty() {
            prop_assert!(wanted_before + plan.open.len() <= 2 * wanted, "{plan:?}");
            prop_assert!(before + plan.open.len() <= total, "{plan:?}");
            prop_assert!(plan.open.len() <= permits);
        }
        for (index, pod) in pods.iter().enumerate() {
            let opened = plan.open.iter().filter(|other| **other == index).count();
            prop_assert!(opened <= pod.permits);
            prop_assert!(opened == 0 || pod.openings.len() + opened <= per_pod && pod.not_before.is_none());
        }
        // A plan adds at most one opening per waiter and per missing connection.
        prop_assert!(plan.open.len() <= wanted, "{plan:?}");
        // If some waiters of a class have no opening, no Pod that serves the class can take another opening.
        let under_way = before + plan.open.len();
        let covered: usize = pods.iter().map(young).sum::<usize>() + plan.open.len();
        for class in (0..CLASSES).filter(|class| waiters[*class] > covered) {
            let can_open = pods.iter().enumerate().any(|(index, pod)| {
                let opened = plan.open.iter().filter(|other| **other == index).count();
                pod.targets & (1 << class) != 0
                    && pod.permits > opened
                    && pod.openings.len() + opened < per_pod
                    && pod.not_before.is_none()
            });
            let below_maximum = wanted_before + plan.open.len() < 2 * wanted;
            let room = under_way < total && plan.open.len() < permits && below_maximum;
            prop_assert!(!(can_open && room), "class {class} of {waiters:?} is not covered by {plan:?}");
        }
    }
}
