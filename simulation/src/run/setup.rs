//! Builds the world of a plan: Kubernetes, the servers with their operator, and the name servers.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    Simulation,
    client::PASSWORD,
    faults, healed,
    name_servers::Dns,
    operators::Operator,
    paths::Paths,
    pods::{Pods, Runtime},
    recorder::Recorder,
    secrets::{self, Secrets},
};
use crate::{
    adversary::{self, Plan, Topology},
    kubernetes::{
        Cluster as Kubernetes, ClusterSettings, Family, Port, ReadinessProbe, Reuse, Service, ServiceKind,
        SharedCluster, StatefulSet,
    },
    network::Link,
    operator::bootstrap,
    postgres::{Authentication, Certificate, Cluster, Settings},
    world::World,
};

/// Time between two checks during the setup.
const CHECK: Duration = Duration::from_millis(100);
/// Time within which the setup must end.
const LIMIT: Duration = Duration::from_secs(120);

/// Builds the world of a plan, and waits until all servers run.
///
/// # Panics
///
/// Panics if the servers do not run in time.
pub(super) async fn build(world: &World, plan: &Plan) -> Simulation {
    let topology = &plan.topology;
    let half = topology.round_trip / 2;
    // The mean of a path's delay is half of the round trip.
    let link = Link { latency: half.mul_f64(0.8), jitter: half.mul_f64(0.4), ..Link::default() };
    let paths = Paths::new(world.network(), link, world.rng("paths"));
    let trace = world.trace().clone();
    let cluster = Cluster::new(7, Arc::new(paths.clone()), move |host, text| trace.event(&Arc::from(host), text));
    let recorder = Recorder::default();
    let pods = Pods::new(world, &recorder, &paths, &cluster, settings(topology));
    let names: Vec<_> = (0..topology.name_servers).map(|number| Dns::start(world, topology, number)).collect();
    let nodes: Vec<_> = (0..topology.nodes).map(|number| format!("node-{number}")).collect();
    start_kubernetes(world, topology, &nodes, &pods, &names);
    let began = Instant::now();
    while pods.all().len() < topology.pods as usize {
        wait(began).await;
    }
    bootstrap(&pods.servers()).await.expect("the servers start without faults");
    let operator = Operator::new(world, plan, faults::most_pods(plan), &pods);
    operator.start(&pods).await;
    let (plan, world) = (plan.clone(), world.clone());
    let simulation =
        Simulation { plan, world, pods, operator, names, nodes, clients: Vec::new(), secrets: Secrets::new() };
    let is_synchronous = || {
        let primary = simulation.pods.primary();
        let status = primary.map(|(_, pod)| pod.server.status());
        simulation.plan.topology.synchronous == 0 || status.is_some_and(|status| !status.synchronous.names.is_empty())
    };
    while !(healed::is_whole(&simulation) && is_synchronous()) {
        wait(began).await;
    }
    simulation
}

async fn wait(began: Instant) {
    assert!(began.elapsed() < LIMIT, "the world is not whole after {} s", LIMIT.as_secs());
    sleep(CHECK).await;
}

/// Returns the settings of the servers. Delays that only lengthen recoveries are shorter than usual, so that more of
/// them fit into a simulation.
fn settings(topology: &Topology) -> Settings {
    let version = match topology.postgres {
        13 => "13.21".to_owned(),
        major => format!("{major}.4"),
    };
    Settings {
        version,
        authentication: match topology.password {
            true => secrets::authentication(topology.clients, PASSWORD),
            false => Authentication::Trust,
        },
        certificate: topology.tls.then(Certificate::first),
        databases: vec![super::client::DATABASE.to_owned()],
        max_connections: topology.max_connections as usize,
        read_all_stats: topology.read_all_stats,
        statement: topology.statement,
        replication_timeout: Duration::from_secs(6),
        replication_retry: Duration::from_secs(1),
        rewind: Duration::from_secs(1),
        clone: Duration::from_secs(1),
        ..Settings::default()
    }
}

fn start_kubernetes(world: &World, topology: &Topology, nodes: &[String], pods: &Arc<Pods>, names: &[Dns]) {
    let mut families = vec![Family::V4];
    if topology.dual_stack {
        families.push(Family::V6);
    }
    let service = Service {
        namespace: "shop".to_owned(),
        name: "postgresql".to_owned(),
        kind: ServiceKind::Headless,
        ports: vec![Port { name: adversary::Settings::PORT_NAME.to_owned(), number: 5432 }],
        families,
        publish_not_ready: topology.publish_not_ready,
    };
    let probe = ReadinessProbe {
        initial_delay: Duration::ZERO,
        period: Duration::from_secs(1),
        failure_threshold: 2,
        success_threshold: 1,
    };
    let set = StatefulSet {
        pre_stop: Duration::from_secs(2),
        grace: Duration::from_secs(20),
        probe,
        ..StatefulSet::new("pod", topology.pods)
    };
    let settings = ClusterSettings {
        nodes: nodes.to_vec(),
        reuse: if topology.reuse_addresses { Reuse::Lowest } else { Reuse::Never },
        ..ClusterSettings::default()
    };
    let runtime = Runtime(Arc::downgrade(pods));
    let kubernetes = Kubernetes::new(Instant::now(), settings, service, set, runtime, world.rng("kubernetes"));
    let (shared, driver) = SharedCluster::new(kubernetes);
    pods.set_kubernetes(shared);
    let (trace, host, names) = (world.trace().clone(), Arc::<str>::from("kubernetes"), names.to_vec());
    tokio::task::spawn_local(driver.run(move |now, event| {
        trace.event(&host, &event);
        if let Some(change) = event.change() {
            names.iter().for_each(|dns| dns.observe(now, &change));
        }
    }));
}
