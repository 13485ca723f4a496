//! The StatefulSet controller: order of creation, scaling, and rolling updates.

use std::time::Duration;

use super::{
    super::{ClusterSettings, Event, PodEvent, Policy, StatefulSet, Unavailable},
    setup::World,
};

const MINUTE: Duration = Duration::from_secs(60);

fn set(replicas: u32, policy: Policy) -> StatefulSet {
    StatefulSet { policy, pre_stop: Duration::from_secs(1), ..StatefulSet::new("db", replicas) }
}

/// Returns the steps of Pods in order, as `ordinal what`.
fn steps(world: &World) -> Vec<String> {
    let step = |event: &Event| match event {
        Event::Pod(pod, PodEvent::Created) => Some(format!("{} created", pod.ordinal)),
        Event::Pod(pod, PodEvent::Ready(true)) => Some(format!("{} ready", pod.ordinal)),
        Event::Pod(pod, PodEvent::Deleted) => Some(format!("{} deleted", pod.ordinal)),
        Event::Pod(pod, PodEvent::Removed) => Some(format!("{} removed", pod.ordinal)),
        _ => None,
    };
    world.events.iter().filter_map(|(_, event)| step(event)).collect()
}

#[test]
fn ordered_ready_creates_and_deletes_pods_one_by_one() {
    let mut world = World::new(ClusterSettings::default(), set(2, Policy::OrderedReady), 1);
    world.run(MINUTE);
    assert_eq!(steps(&world), ["0 created", "0 ready", "1 created", "1 ready"]);
    world.events.clear();
    world.cluster.scale(world.now, 4).unwrap();
    world.run(MINUTE);
    assert_eq!(steps(&world), ["2 created", "2 ready", "3 created", "3 ready"]);
    world.events.clear();
    world.cluster.scale(world.now, 2).unwrap();
    world.run(MINUTE);
    assert_eq!(steps(&world), ["3 deleted", "3 removed", "2 deleted", "2 removed"]);
    assert_eq!(world.named(), ["db-0", "db-1"]);
}

#[test]
fn ordered_ready_waits_for_a_pod_that_is_not_ready() {
    let mut world = World::ready(set(3, Policy::OrderedReady));
    let first = world.uid(0);
    world.cluster.set_readiness(world.now, first, Some(false));
    world.cluster.scale(world.now, 4).unwrap();
    world.run(MINUTE);
    assert_eq!(steps(&world), [""; 0]);
    world.cluster.set_readiness(world.now, first, None);
    world.run(MINUTE);
    assert_eq!(steps(&world), ["0 ready", "3 created", "3 ready"]);
}

#[test]
fn parallel_creates_and_deletes_pods_at_once() {
    let mut world = World::new(ClusterSettings::default(), set(3, Policy::Parallel), 1);
    world.run(MINUTE);
    assert_eq!(steps(&world)[..3], ["0 created", "1 created", "2 created"]);
    world.events.clear();
    world.cluster.scale(world.now, 0).unwrap();
    world.run(MINUTE);
    assert_eq!(steps(&world)[..3], ["2 deleted", "1 deleted", "0 deleted"]);
    assert_eq!(world.named(), [""; 0]);
}

#[test]
fn a_rolling_update_replaces_pods_from_the_highest_ordinal_down_to_the_partition() {
    for policy in [Policy::OrderedReady, Policy::Parallel] {
        let mut world = World::ready(set(3, policy));
        world.cluster.update(world.now, 1).unwrap();
        world.run(5 * MINUTE);
        let replaced =
            |ordinal: u32| ["deleted", "removed", "created", "ready"].map(|what| format!("{ordinal} {what}"));
        assert_eq!(steps(&world), [replaced(2), replaced(1)].concat(), "{policy:?}");
        let revisions =
            |world: &World| -> Vec<u32> { world.cluster.pods().iter().map(|pod| pod.info.revision).collect() };
        assert_eq!((revisions(&world), world.cluster.set().current), (vec![1, 2, 2], 1));
        // A Pod below the partition comes back with the old template.
        world.cluster.delete(world.now, world.uid(0)).unwrap();
        world.run(MINUTE);
        assert_eq!(revisions(&world), [1, 2, 2]);
        world.cluster.set_partition(world.now, 0).unwrap();
        world.run(MINUTE);
        assert_eq!((revisions(&world), world.cluster.set().current), (vec![2, 2, 2], 2));
    }
}

#[test]
fn a_rolling_update_stops_at_a_pod_that_does_not_become_ready() {
    let mut world = World::ready(set(3, Policy::Parallel));
    world.cluster.runtime().readiness.insert("db-2".to_owned(), vec![(world.now, false)]);
    world.cluster.update(world.now, 0).unwrap();
    world.run(10 * MINUTE);
    assert_eq!(world.ready_ordinals(), [0, 1]);
    let revisions: Vec<u32> = world.cluster.pods().iter().map(|pod| pod.info.revision).collect();
    assert_eq!(revisions, [1, 1, 2]);
}

#[test]
fn the_labels_of_a_pod_decide_whether_the_service_has_it() {
    let mut world = World::ready(set(2, Policy::Parallel));
    let second = world.uid(1);
    world.cluster.set_selected(world.now, second, false).unwrap();
    world.run(Duration::from_secs(1));
    assert_eq!(world.named(), ["db-0"]);
    assert_eq!(world.ready_ordinals(), [0, 1]);
}

#[test]
fn nothing_changes_while_the_api_server_is_away_and_all_of_it_afterwards() {
    let mut world = World::ready(set(3, Policy::Parallel));
    let (now, first, second) = (world.now, world.uid(0), world.uid(1));
    world.cluster.set_available(now, false);
    assert_eq!(world.cluster.delete(now, first), Err(Unavailable));
    assert_eq!(world.cluster.scale(now, 5), Err(Unavailable));
    world.exit(first);
    world.cluster.runtime().readiness.insert("db-1".to_owned(), vec![(now, false)]);
    world.run(MINUTE);
    assert_eq!(world.named(), ["db-0", "db-1", "db-2"]);
    assert!(world.cluster.runtime().running.contains_key(&first), "the kubelet restarts without it");
    world.cluster.set_available(world.now, true);
    world.run(Duration::from_secs(1));
    assert_eq!(world.named(), ["db-0", "db-2"]);
    assert_eq!(world.cluster.pod(second).map(|pod| pod.ready), Some(false));
}

#[test]
fn a_deletion_that_the_api_server_interrupts_is_completed_afterwards() {
    let mut world = World::ready(set(1, Policy::Parallel));
    let old = world.uid(0);
    world.cluster.delete(world.now, old).unwrap();
    world.run(Duration::from_millis(500));
    world.cluster.set_available(world.now, false);
    world.run(MINUTE);
    assert_eq!(world.uid(0), old, "the API server still has it");
    assert!(!world.cluster.runtime().running.contains_key(&old), "its process has ended");
    world.cluster.set_available(world.now, true);
    world.run(MINUTE);
    assert!(world.uid(0) != old && world.ready_ordinals() == [0]);
}
