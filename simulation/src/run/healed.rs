//! The time at which the world is whole again after the last fault.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use tokio::time::sleep;

use super::Simulation;
use crate::adversary::{Discovery, Settings};

/// Time between two checks.
const CHECK: Duration = Duration::from_millis(250);

/// Watches the world from the end of the last fault until the task is dropped. Sets `healed` to the time since which
/// the world has been whole, or to `None` while it is not.
pub(super) async fn watch(simulation: &Simulation, healed: &std::cell::Cell<Option<Duration>>) {
    loop {
        match (is_whole(simulation), healed.get()) {
            (true, None) => healed.set(Some(simulation.pods.recorder.now())),
            (false, Some(_)) => healed.set(None),
            _ => {}
        }
        sleep(CHECK).await;
    }
}

/// Returns true if one primary serves, every other server replicates from it, every Pod is ready, and every name server
/// names exactly the Pods.
pub(super) fn is_whole(simulation: &Simulation) -> bool {
    replicates(simulation) && is_ready(simulation) && are_named(simulation)
}

/// Returns true if one primary serves, and every other server of the StatefulSet is a standby that has its log.
pub(super) fn replicates(simulation: &Simulation) -> bool {
    let Some((primary, leader)) = simulation.pods.primary() else { return false };
    let (pods, end) = (simulation.pods.all(), leader.server.status());
    let name = leader.server.name();
    !end.hung
        && (0..simulation.plan.topology.pods).filter(|ordinal| *ordinal != primary).all(|ordinal| {
            pods.get(&ordinal).is_some_and(|pod| {
                let status = pod.server.status();
                let follows = status.upstream.as_deref() == Some(name) && status.receiving;
                // Records that are on their way are younger than a few round trips.
                let has_log = end.position.0.saturating_sub(status.replayed.0) < 100_000;
                status.is_standby() && follows && has_log && !status.hung
            })
        })
}

fn is_ready(simulation: &Simulation) -> bool {
    let expected = simulation.plan.topology.pods as usize;
    simulation.pods.kubernetes().with(|cluster, _| {
        let pods = cluster.pods();
        pods.len() == expected && pods.iter().all(|pod| pod.ready && pod.deletion.is_none())
    })
}

fn are_named(simulation: &Simulation) -> bool {
    let addresses: BTreeSet<IpAddr> = simulation.pods.all().into_values().flat_map(|pod| pod.addresses).collect();
    let uses_srv = simulation.plan.settings.discovery == Discovery::Srv;
    simulation.names.iter().all(|dns| dns.names(&addresses, uses_srv, Settings::PORT_NAME))
}
