//! The steps after delta debugging: each returns plans that are a little smaller than the given one.

use std::time::Duration;

use crate::adversary::{Host, Plan, Window};

/// Shortest window to which a fault is narrowed.
const SHORTEST: Duration = Duration::from_millis(10);
/// Shortest time to which the active time and the tail are shortened.
const SECOND: Duration = Duration::from_secs(1);

/// Every step, in the order in which they are tried.
pub(super) const ALL: &[fn(&Plan) -> Vec<Plan>] =
    &[clients, pods, windows, magnitudes, topology, settings, callers, times];

/// Removes the last clients, with their callers and faults.
fn clients(plan: &Plan) -> Vec<Plan> {
    let number = plan.topology.clients;
    fewer(number).map(|number| with_hosts(plan, plan.topology.pods, number)).collect()
}

/// Removes the last Pods, with their faults.
fn pods(plan: &Plan) -> Vec<Plan> {
    let number = plan.topology.pods;
    fewer(number).map(|number| with_hosts(plan, number, plan.topology.clients)).collect()
}

/// Returns half of a number and one less, if they are at least 1 and smaller.
fn fewer(number: u32) -> impl Iterator<Item = u32> {
    [number / 2, number - 1].into_iter().filter(move |fewer| (1..number).contains(fewer))
}

/// Returns the plan with so many Pods and clients.
fn with_hosts(plan: &Plan, pods: u32, clients: u32) -> Plan {
    let mut smaller = plan.clone();
    let topology = &mut smaller.topology;
    (topology.pods, topology.clients) = (pods, clients);
    topology.synchronous = topology.synchronous.min(pods - 1);
    topology.nodes = topology.nodes.min(pods);
    if let Some(subset) = &mut smaller.settings.subset_size {
        *subset = (*subset).min(pods);
    }
    let exists = |host: Host| match host {
        Host::Client(number) => number < clients,
        Host::Pod(number) => number < pods,
        Host::NameServer(_) | Host::Operator => true,
    };
    smaller.callers.retain(|caller| caller.client < clients);
    smaller.faults.retain(|window| window.fault.hosts().into_iter().all(exists));
    smaller
}

/// Halves the window of a fault from either side.
fn windows(plan: &Plan) -> Vec<Plan> {
    each_fault(plan, |window| {
        let half = Duration::from_millis(window.end.saturating_sub(window.start).as_millis() as u64 / 2);
        if half < SHORTEST {
            return Vec::new();
        }
        let earlier = Window { end: window.start + half, ..window.clone() };
        let later = Window { start: window.end - half, ..window.clone() };
        vec![earlier, later]
    })
}

/// Makes a fault milder.
fn magnitudes(plan: &Plan) -> Vec<Plan> {
    each_fault(plan, |window| {
        window.fault.milder().into_iter().map(|fault| Window { fault, ..window.clone() }).collect()
    })
}

/// Sets one property of the hosts to its default, apart from their numbers.
fn topology(plan: &Plan) -> Vec<Plan> {
    let simpler = plan.topology.simpler().into_iter();
    let kept = simpler.filter(|simpler| simpler.pods == plan.topology.pods && simpler.clients == plan.topology.clients);
    kept.map(|topology| Plan { topology, ..plan.clone() }).collect()
}

/// Sets one setting to its default.
fn settings(plan: &Plan) -> Vec<Plan> {
    plan.settings.simpler().into_iter().map(|settings| Plan { settings, ..plan.clone() }).collect()
}

/// Sets one property of a caller to its default, apart from its client.
fn callers(plan: &Plan) -> Vec<Plan> {
    let mut plans = Vec::new();
    for (index, caller) in plan.callers.iter().enumerate() {
        for simpler in caller.simpler().into_iter().filter(|simpler| simpler.client == caller.client) {
            let mut smaller = plan.clone();
            smaller.callers[index] = simpler;
            plans.push(smaller);
        }
    }
    plans
}

/// Ends the active time with the last fault, and halves the tail.
fn times(plan: &Plan) -> Vec<Plan> {
    let last = plan.last_end().max(SECOND);
    let tail = Duration::from_millis(plan.tail.as_millis() as u64 / 2).max(SECOND);
    let mut plans = Vec::new();
    if last < plan.active {
        plans.push(Plan { active: last, ..plan.clone() });
    }
    if tail < plan.tail {
        plans.push(Plan { tail, ..plan.clone() });
    }
    plans
}

/// Returns the plans in which one window is replaced by each of the results of `replace`.
fn each_fault(plan: &Plan, replace: impl Fn(&Window) -> Vec<Window>) -> Vec<Plan> {
    let mut plans = Vec::new();
    for (index, window) in plan.faults.iter().enumerate() {
        for replaced in replace(window) {
            let mut smaller = plan.clone();
            smaller.faults[index] = replaced;
            smaller.faults.sort_by_key(|window| window.start);
            plans.push(smaller);
        }
    }
    plans
}
