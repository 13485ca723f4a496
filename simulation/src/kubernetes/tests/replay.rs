//! The cluster goes through the same states as the recorded one, at the same times.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{
    super::{ClusterSettings, Event, Family, Service, SliceEvent, StatefulSet},
    setup::World,
    watches::{self, Step},
};

/// What the recorded case does, with its time in milliseconds.
#[derive(Clone, Copy)]
enum Operation {
    Delete(u32),
    DeleteByForce(u32),
    Scale(u32),
}

/// A recorded case.
struct Case {
    name: &'static str,
    replicas: u32,
    operations: &'static [(u64, Operation)],
    settings: ClusterSettings,
    families: Vec<Family>,
    publish_not_ready: bool,
    /// When the StatefulSet is created, if that is part of the case.
    created: Option<u64>,
    /// The largest difference between a recorded time and that of the cluster, in milliseconds.
    tolerance: u64,
}

fn case(name: &'static str, operations: &'static [(u64, Operation)]) -> Case {
    Case {
        name,
        replicas: 3,
        operations,
        settings: ClusterSettings::default(),
        families: vec![Family::V4],
        publish_not_ready: false,
        created: None,
        tolerance: 60,
    }
}

fn cases() -> Vec<Case> {
    // The stand-in for the kubelet took up to 270 ms to start the first three Pods, in an order of its own.
    let slow = Duration::from_millis(150)..=Duration::from_millis(250);
    let default = ClusterSettings::default;
    vec![
        Case {
            created: Some(345),
            settings: ClusterSettings { sandbox_delay: slow, ..default() },
            tolerance: 130,
            ..case("birth", &[])
        },
        Case { families: vec![Family::V4, Family::V6], ..case("dual-stack-delete", &[(3, Operation::Delete(2))]) },
        case("force-delete", &[(5, Operation::DeleteByForce(2))]),
        case("graceful-delete", &[(3, Operation::Delete(2))]),
        case("not-ready-and-back", &[]),
        Case { publish_not_ready: true, ..case("publish-not-ready-addresses", &[(1010, Operation::Delete(2))]) },
        Case {
            settings: ClusterSettings { endpoints_per_slice: 3, ..default() },
            // The five servers took up to 110 ms to stop.
            tolerance: 110,
            ..case("several-slices", &[(250, Operation::Scale(8)), (15_875, Operation::Scale(3))])
        },
    ]
}

/// Returns when each Pod becomes ready or not, according to the recording, by name and number of predecessors.
fn readiness(steps: &BTreeMap<String, Vec<Step>>, start: Instant) -> BTreeMap<String, Vec<(Instant, bool)>> {
    let mut changes: BTreeMap<String, Vec<(Instant, bool)>> = BTreeMap::new();
    for (pod, steps) in steps {
        for (ms, state) in steps.iter().filter(|(_, state)| !state.contains("terminating=true") && state != "gone") {
            let (predecessors, _) = state.split_once(' ').expect("a state begins with the number of predecessors");
            // The probe runs every 10 ms, and the slice is written some milliseconds later.
            let at = start + Duration::from_millis(ms.saturating_sub(15));
            changes.entry(format!("{pod}/{predecessors}")).or_default().push((at, state.contains("serving=true")));
        }
    }
    changes
}

#[test]
fn each_pod_goes_through_the_recorded_states_at_the_recorded_times() {
    for case in cases() {
        for seed in 0..10 {
            replay(&case, seed);
        }
    }
}

fn replay(case: &Case, seed: u64) {
    let watch = watches::read(case.name);
    let mut set = StatefulSet::new("postgresql-sfs", case.replicas);
    set.pre_stop = Duration::from_secs(15);
    set.probe.period = Duration::from_millis(10);
    set.probe.failure_threshold = 1;
    let service = Service {
        families: case.families.clone(),
        publish_not_ready: case.publish_not_ready,
        ..Service::headless("k8s-training", "postgresql-svc", "postgresql-port", 5432)
    };
    let mut world = World::with_service(case.settings.clone(), service, set, seed);
    let start = match case.created {
        Some(ms) => world.now - Duration::from_millis(ms),
        None => {
            world.run(Duration::from_secs(5));
            world.events.clear();
            world.now
        }
    };
    let before: Vec<_> = if case.created.is_some() { Vec::new() } else { world.cluster.slices().cloned().collect() };
    let recorded = watches::steps(&watch.before, &watch.events, Family::V4);
    let mut readiness = readiness(&recorded, start);
    for endpoint in watch.before.iter().flat_map(|slice| &slice.endpoints) {
        let changes = readiness.entry(format!("{}/0", endpoint.pod)).or_default();
        changes.insert(0, (start - Duration::from_secs(60), true));
    }
    world.cluster.runtime().readiness = readiness;
    for (ms, operation) in case.operations {
        let at = start + Duration::from_millis(*ms);
        world.run(at - world.now);
        match *operation {
            Operation::Delete(ordinal) => world.cluster.delete(at, world.uid(ordinal)),
            Operation::DeleteByForce(ordinal) => world.cluster.delete_by_force(at, world.uid(ordinal)),
            Operation::Scale(replicas) => world.cluster.scale(at, replicas),
        }
        .expect("the API server is there");
    }
    world.run(Duration::from_secs(40));

    let ms = |at: Instant| (at - start).as_millis() as u64;
    let event = |(at, event): &(Instant, Event)| match event {
        Event::Slice(event) => Some((ms(*at), event.clone())),
        _ => None,
    };
    let events: Vec<(u64, SliceEvent)> = world.events.iter().filter_map(event).collect();
    for family in &case.families {
        let recorded = watches::steps(&watch.before, &watch.events, *family);
        let actual = watches::steps(&before, &events, *family);
        let states = |steps: &BTreeMap<String, Vec<Step>>| -> BTreeMap<String, Vec<String>> {
            steps
                .iter()
                .map(|(pod, steps)| (pod.clone(), steps.iter().map(|(_, state)| state.clone()).collect()))
                .collect()
        };
        let context = format!("{} {family:?}, seed {seed}", case.name);
        assert_eq!(
            states(&actual),
            states(&recorded),
            "{context}: {actual:?}\nrecorded {recorded:?}\n{:?}",
            watches::describe(&world.cluster.pods())
        );
        for (pod, steps) in &recorded {
            for ((expected, state), (actual, _)) in steps.iter().zip(&actual[pod]) {
                let difference = expected.abs_diff(*actual);
                assert!(
                    difference <= case.tolerance,
                    "{context}: {pod} {state} at {actual} ms, recorded at {expected} ms"
                );
            }
        }
    }
}
