//! Kubelets: termination, restarts in place, readiness.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    super::{Event, PodEvent, Reuse, StatefulSet},
    setup::World,
};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn set() -> StatefulSet {
    StatefulSet { pre_stop: secs(15), grace: secs(30), ..StatefulSet::new("db", 1) }
}

/// Returns the time since `start` of the first entry of the runtime's log that says `what`.
fn logged(world: &mut World, start: Instant, what: &str) -> Option<Duration> {
    let log = &world.cluster.runtime().log;
    log.iter().find(|(at, _, entry)| *at >= start && entry == what).map(|(at, ..)| *at - start)
}

fn is_within(actual: Option<Duration>, from: Duration, to: Duration) -> bool {
    actual.is_some_and(|actual| from <= actual && actual <= to)
}

#[test]
fn a_deleted_pod_gets_its_stop_signal_after_the_hook_and_is_killed_after_the_grace_period() {
    for (stops_after, killed) in [(Some(secs(3)), None), (None, Some(secs(30)))] {
        let mut world = World::ready(set());
        let start = world.now;
        world.cluster.runtime().stops_after = stops_after;
        world.cluster.delete(start, world.uid(0)).unwrap();
        world.run(secs(60));
        assert_eq!(logged(&mut world, start, "Interrupt"), Some(secs(15)));
        assert_eq!(logged(&mut world, start, "Kill"), killed);
        let end = killed.unwrap_or(secs(18));
        assert_eq!(logged(&mut world, start, "remove"), Some(end));
        let again = logged(&mut world, start, "start");
        assert!(is_within(again, end, end + Duration::from_millis(200)), "{again:?}");
    }
}

#[test]
fn a_hook_longer_than_the_grace_period_leaves_2_s_for_the_stop() {
    let mut world = World::ready(StatefulSet { pre_stop: secs(60), ..set() });
    let start = world.now;
    world.cluster.runtime().stops_after = None;
    world.cluster.delete(start, world.uid(0)).unwrap();
    world.run(secs(60));
    assert_eq!(logged(&mut world, start, "Interrupt"), Some(secs(30)));
    assert_eq!(logged(&mut world, start, "Kill"), Some(secs(32)));
}

#[test]
fn a_pod_that_is_deleted_by_force_is_replaced_before_its_process_ends() {
    let mut world = World::ready(set());
    let (start, old) = (world.now, world.uid(0));
    world.cluster.runtime().stops_after = None;
    world.cluster.delete_by_force(start, old).unwrap();
    world.run(Duration::from_millis(200));
    assert_ne!(world.uid(0), old);
    assert_eq!(world.cluster.runtime().running.len(), 2, "two processes of one name");
    assert!(world.cluster.pod(old).is_some_and(|pod| pod.is_gone));
    world.run(secs(5));
    assert_eq!(logged(&mut world, start, "Interrupt"), Some(secs(1)));
    assert_eq!(logged(&mut world, start, "Kill"), Some(secs(3)));
    assert!(world.cluster.pod(old).is_none());
}

#[test]
fn a_terminating_pod_that_is_deleted_by_force_ends_within_seconds() {
    for (forced, signalled, killed) in [(2, 3, 5), (20, 15, 22)] {
        let mut world = World::ready(set());
        let (start, old) = (world.now, world.uid(0));
        world.cluster.runtime().stops_after = None;
        world.cluster.delete(start, old).unwrap();
        world.run(secs(forced));
        world.cluster.delete_by_force(world.now, old).unwrap();
        world.run(secs(60));
        assert_eq!(logged(&mut world, start, "Interrupt"), Some(secs(signalled)));
        assert_eq!(logged(&mut world, start, "Kill"), Some(secs(killed)));
    }
}

#[test]
fn a_process_that_ends_is_restarted_in_place_with_back_off() {
    let mut world = World::ready(set());
    let pod = world.uid(0);
    let address = world.cluster.pod(pod).unwrap().info.addresses.clone();
    for (restart, pause) in [0, 10, 20, 40, 80, 160, 300, 300].into_iter().enumerate() {
        let start = world.now;
        world.exit(pod);
        world.run(Duration::from_millis(100));
        assert_eq!(world.named().len(), 1 - usize::from(pause > 0), "restart {restart}");
        world.run(secs(pause));
        let again = logged(&mut world, start, "start");
        assert!(is_within(again, secs(pause), secs(pause) + Duration::from_millis(50)), "{restart}: {again:?}");
        let info = &world.cluster.pod(pod).unwrap().info;
        assert_eq!((&info.addresses, info.restarts), (&address, restart as u32 + 1));
    }
    world.run(secs(601));
    let start = world.now;
    world.exit(pod);
    world.run(secs(1));
    assert!(is_within(logged(&mut world, start, "start"), Duration::ZERO, secs(1)), "the back-off is reset");
}

#[test]
fn a_pod_that_is_deleted_while_it_waits_for_its_restart_is_removed_without_a_signal() {
    let mut world = World::ready(set());
    let pod = world.uid(0);
    world.exit(pod);
    world.run(Duration::from_millis(100));
    world.exit(pod);
    world.run(Duration::from_millis(100));
    let start = world.now;
    world.cluster.delete(start, pod).unwrap();
    world.run(secs(1));
    assert_eq!(logged(&mut world, start, "Interrupt"), None);
    assert!(world.uid(0) != pod && world.cluster.pod(pod).is_none());
}

#[test]
fn the_probe_decides_after_as_many_results_as_its_thresholds() {
    let mut set = set();
    set.probe.success_threshold = 3;
    let mut world = World::ready(set);
    let start = world.now;
    world.cluster.runtime().readiness.insert("db-0".to_owned(), vec![(start, false), (start + secs(60), true)]);
    world.run(secs(120));
    let changes: Vec<_> = world
        .events
        .iter()
        .filter_map(|(at, event)| match event {
            Event::Pod(_, PodEvent::Ready(ready)) => Some((*at - start, *ready)),
            _ => None,
        })
        .collect();
    let [(lost, false), (found, true)] = changes[..] else { panic!("{changes:?}") };
    assert!(is_within(Some(lost), secs(5), secs(10)), "two failures, 5 s apart: {lost:?}");
    assert!(is_within(Some(found), secs(70), secs(75)), "three successes, 5 s apart: {found:?}");
}

#[test]
fn an_operator_can_hold_the_readiness() {
    let mut world = World::ready(set());
    let pod = world.uid(0);
    world.cluster.set_readiness(world.now, pod, Some(false));
    world.run(secs(60));
    assert_eq!((world.named().len(), world.ready_ordinals().len()), (0, 0));
    world.cluster.set_readiness(world.now, pod, Some(true));
    world.run(secs(1));
    assert_eq!(world.named(), ["db-0"]);
}

#[test]
fn publishing_addresses_that_are_not_ready_keeps_every_pod_named() {
    let mut world = World::ready(set());
    let pod = world.uid(0);
    world.cluster.set_publish_not_ready(world.now, true).unwrap();
    world.cluster.set_readiness(world.now, pod, Some(false));
    world.run(secs(1));
    assert_eq!((world.named().len(), world.ready_ordinals().len()), (1, 0));
    world.cluster.set_publish_not_ready(world.now, false).unwrap();
    world.run(secs(1));
    assert_eq!(world.named().len(), 0);
}

#[test]
fn a_pod_is_created_again_with_a_new_address_or_with_one_of_a_pod_that_is_gone() {
    for (reuse, is_same) in [(Reuse::Never, false), (Reuse::Lowest, true)] {
        let settings = super::super::ClusterSettings { reuse, ..super::super::ClusterSettings::default() };
        let mut world = World::new(settings, set(), 1);
        world.run(secs(10));
        let address = |world: &World| world.cluster.ordinal(0).unwrap().info.addresses.clone();
        let before = address(&world);
        world.cluster.delete(world.now, world.uid(0)).unwrap();
        world.run(secs(60));
        assert_eq!(before == address(&world), is_same, "{reuse:?}");
    }
}
