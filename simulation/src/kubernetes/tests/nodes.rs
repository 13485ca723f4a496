//! Nodes that do not report, and the driver in simulated time.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    super::{Cluster, ClusterSettings, Event, Reuse, Service, SharedCluster, StatefulSet},
    setup::{Runtime, World},
};

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn world() -> (World, String) {
    let set = StatefulSet { pre_stop: secs(1), ..StatefulSet::new("db", 3) };
    let world = World::ready(set);
    let node = world.cluster.ordinal(0).unwrap().info.node.clone();
    let nodes: std::collections::BTreeSet<_> = world.cluster.pods().iter().map(|pod| pod.info.node.clone()).collect();
    assert_eq!(nodes.len(), 3, "each Pod has a node of its own");
    (world, node)
}

#[test]
fn the_pods_of_a_lost_node_are_not_ready_after_50_s_and_terminating_after_350_s() {
    let (mut world, node) = world();
    let pod = world.uid(0);
    world.cluster.lose_node(world.now, &node);
    world.run(Duration::from_millis(49_900));
    assert_eq!(world.named().len(), 3, "the process still runs");
    world.run(Duration::from_millis(200));
    assert_eq!(world.named(), ["db-1", "db-2"]);
    world.run(secs(301));
    assert!(world.cluster.pod(pod).is_some_and(|pod| pod.deletion.is_some()));
    world.run(secs(3600));
    assert_eq!(world.uid(0), pod, "it is not replaced while its node is silent");
    assert!(world.cluster.runtime().running.contains_key(&pod));
    world.cluster.return_node(world.now, &node);
    world.run(secs(60));
    assert!(world.uid(0) != pod && world.ready_ordinals() == [0, 1, 2]);
}

#[test]
fn a_pod_of_a_lost_node_that_is_deleted_by_force_runs_twice_until_the_node_is_back() {
    let (mut world, node) = world();
    let old = world.uid(0);
    world.cluster.lose_node(world.now, &node);
    world.cluster.delete_by_force(world.now, old).unwrap();
    world.run(secs(600));
    assert_eq!(world.ready_ordinals(), [0, 1, 2]);
    assert!(world.uid(0) != old && world.cluster.runtime().running.contains_key(&old), "the old process runs on");
    assert_ne!(world.cluster.ordinal(0).unwrap().info.node, node);
    world.cluster.return_node(world.now, &node);
    world.run(secs(5));
    assert!(world.cluster.pod(old).is_none());
    assert_eq!(world.cluster.runtime().running.len(), 3);
}

#[test]
fn a_short_outage_of_a_node_has_no_effect() {
    let (mut world, node) = world();
    world.events.clear();
    world.cluster.lose_node(world.now, &node);
    world.run(secs(40));
    world.cluster.return_node(world.now, &node);
    world.run(secs(600));
    let outage = |(_, event): &(Instant, Event)| matches!(event, Event::Node(..));
    assert!(world.events.iter().all(outage), "{:?}", world.events);
}

#[test]
fn a_node_that_lost_power_starts_its_pods_with_other_addresses() {
    let (mut world, node) = world();
    let pod = world.uid(0);
    let before = world.cluster.pod(pod).unwrap().info.addresses.clone();
    world.cluster.crash_node(world.now, &node);
    assert!(!world.cluster.runtime().running.contains_key(&pod));
    world.run(secs(60));
    assert_eq!(world.named(), ["db-1", "db-2"]);
    world.cluster.return_node(world.now, &node);
    world.run(secs(60));
    let info = world.cluster.pod(pod).unwrap().info.clone();
    assert_ne!(info.addresses, before);
    assert_eq!(world.named(), ["db-0", "db-1", "db-2"]);
}

#[test]
fn the_address_of_a_pod_whose_node_lost_power_can_belong_to_another_pod() {
    let settings = ClusterSettings { reuse: Reuse::Lowest, ..ClusterSettings::default() };
    let set = StatefulSet { pre_stop: secs(1), ..StatefulSet::new("db", 3) };
    let mut world = World::new(settings, set, 1);
    world.run(secs(60));
    let addresses = |world: &World, pod| world.cluster.pod(pod).unwrap().info.addresses.clone();
    let (pod, node) = (world.uid(0), world.cluster.ordinal(0).unwrap().info.node.clone());
    let before = addresses(&world, pod);
    world.cluster.crash_node(world.now, &node);
    world.cluster.scale(world.now, 4).unwrap();
    world.run(secs(10));
    let fourth = world.uid(3);
    assert_eq!(addresses(&world, fourth), before, "the new Pod has the address of the old one");
    assert_eq!(addresses(&world, pod), before, "which the API server does not know yet");
    world.cluster.delete_by_force(world.now, pod).unwrap();
    world.cluster.return_node(world.now, &node);
    world.run(secs(60));
    let mut all: Vec<_> = world.cluster.pods().iter().flat_map(|pod| pod.info.addresses.clone()).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 4, "each Pod has an address of its own");
}

#[test]
fn a_deletion_by_force_that_the_api_server_interrupts_is_completed_afterwards() {
    let (mut world, node) = world();
    let old = world.uid(0);
    world.cluster.lose_node(world.now, &node);
    world.cluster.delete_by_force(world.now, old).unwrap();
    world.cluster.set_available(world.now, false);
    world.run(secs(10));
    assert_eq!(world.uid(0), old);
    world.cluster.set_available(world.now, true);
    world.run(secs(60));
    assert!(world.uid(0) != old && world.ready_ordinals() == [0, 1, 2]);
}

#[test]
fn a_pod_waits_for_a_node_while_none_reports() {
    let (mut world, _) = world();
    for node in ClusterSettings::default().nodes {
        world.cluster.lose_node(world.now, &node);
    }
    let old = world.uid(0);
    world.cluster.delete_by_force(world.now, old).unwrap();
    world.run(secs(10));
    assert!(world.cluster.ordinal(0).is_none());
    world.cluster.return_node(world.now, "node-b");
    world.run(secs(10));
    assert_eq!(world.cluster.ordinal(0).map(|pod| pod.info.node.clone()), Some("node-b".to_owned()));
}

#[test]
fn the_same_seed_gives_the_same_history() {
    let history = |seed| {
        let set = StatefulSet { pre_stop: secs(1), ..StatefulSet::new("db", 5) };
        let mut world = World::new(ClusterSettings::default(), set, seed);
        let start = world.now;
        world.run(secs(30));
        world.cluster.update(world.now, 0).unwrap();
        world.run(secs(60));
        let lines = world.events.iter().map(|(at, event)| format!("{:?} {event}", *at - start));
        lines.collect::<Vec<_>>()
    };
    assert_eq!(history(1), history(1));
    assert_ne!(history(1), history(2));
}

#[tokio::test(start_paused = true)]
async fn the_driver_runs_each_timer_at_its_time() {
    let service = Service::headless("k8s-training", "postgresql-svc", "postgresql-port", 5432);
    let random = fastrand::Rng::with_seed(1);
    let set = StatefulSet { pre_stop: secs(15), ..StatefulSet::new("db", 1) };
    let start = Instant::now();
    let cluster = Cluster::new(start, ClusterSettings::default(), service, set, Runtime::default(), random);
    let (shared, driver) = SharedCluster::new(cluster);
    let events = Arc::new(Mutex::new(Vec::new()));
    let recorded = Arc::clone(&events);
    let task = tokio::spawn(driver.run(move |at, event| recorded.lock().unwrap().push((at - start, event))));

    tokio::time::sleep(secs(100)).await;
    let pod = shared.with(|cluster, now| {
        let pod = cluster.ordinal(0).expect("it is created").info.uid;
        cluster.delete(now, pod).expect("the API server is there");
        pod
    });
    tokio::time::sleep(secs(20)).await;
    assert!(shared.with(|cluster, _| cluster.runtime().ending.contains_key(&pod)), "it got its signal");
    task.abort();
    let events = events.lock().unwrap();
    let of = |what: &str| events.iter().find(|(_, event)| event.to_string().contains(what)).map(|(at, _)| *at);
    assert_eq!(of("Deleted"), Some(secs(100)));
    assert_eq!(of("Signalled"), Some(secs(115)));
}
