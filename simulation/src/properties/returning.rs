//! The return of an ejected primary that has been replaced.
//!
//! `docs/architecture.md`: "An ejected primary may have been replaced while it was out of use. Before it returns, all
//! other Pods that pass their probes are probed again", and a former primary "receives no traffic for any target".

use std::{collections::BTreeMap, time::Duration};

use super::{
    bounds,
    history::{Event, History, Instance, PodSample, Role},
    roles::Roles,
    served,
    violation::{Violation, Violations},
};
use crate::adversary::Fault;

/// The return of a primary while another Pod was the primary of a newer timeline.
#[derive(Clone, Copy)]
struct Return {
    at: Duration,
    successor: Instance,
}

/// Checks that no primary is checked out that has returned although a Pod that passed its probes was the primary of a
/// newer timeline, and had been it for longer than a probe takes.
///
/// Judged only if every fault leaves the servers that run responsive, because a Pod may return if the probes of the
/// others fail.
pub(super) fn check(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    let plan = &history.plan;
    if !bounds::has_slots(plan) || !plan.faults.iter().all(|window| keeps_probes(&window.fault)) {
        return violations.found();
    }
    let (calls, roles) = (history.calls(), Roles::of(history));
    let mut samples: BTreeMap<u32, (Duration, &[PodSample])> = BTreeMap::new();
    let mut ejected: BTreeMap<(u32, Instance), Option<Return>> = BTreeMap::new();
    for record in &history.records {
        match &record.event {
            Event::Sampled { client, pods } => drop(samples.insert(*client, (record.at, pods))),
            Event::Ejected { client, on } => drop(ejected.insert((*client, *on), None)),
            Event::Health { client, address, healthy: true } => {
                let Some((sampled, pods)) = samples.get(client) else { continue };
                let Some(pod) = pods.iter().find(|pod| pod.address == *address) else { continue };
                let since = sampled.min(&record.at).saturating_sub(served::dial(plan));
                let leads = |other: &&PodSample| {
                    let (own, newer) = (pod.server_timeline, other.server_timeline);
                    let is_primary = |role: &Option<Role>| *role == Some(Role::PRIMARY);
                    other.healthy
                        && own.is_some_and(|own| newer.is_some_and(|newer| own < newer))
                        && roles.between(other.on, since, record.at).iter().all(is_primary)
                };
                let successor = pods.iter().find(leads).map(|other| other.on);
                if let Some(last) = ejected.get_mut(&(*client, pod.on)) {
                    *last = successor.map(|successor| Return { at: record.at, successor });
                }
            }
            Event::CheckedOut { call, on, .. } => {
                let Some(call) = calls.get(call) else { continue };
                let Some(Some(Return { at, successor })) = ejected.get(&(call.client, *on)) else { continue };
                let is_unchanged =
                    |on| roles.between(on, *at, record.at).iter().all(|role| *role == Some(Role::PRIMARY));
                if is_unchanged(*on) && is_unchanged(*successor) {
                    let (call, at) = (call.id.0, at.as_secs_f64());
                    let text = format!("call {call} received a connection to {on}, which returned at {at:.3} s");
                    violations.add(record.at, format!("{text} although {successor} was the newer primary"));
                }
            }
            _ => {}
        }
    }
    violations.found()
}

/// Returns true for a fault in which every server that runs responds to its probes.
fn keeps_probes(fault: &Fault) -> bool {
    use Fault::*;
    matches!(fault.family(), "dns" | "operator" | "clock")
        || matches!(fault, Crash { .. } | Stop { .. } | Terminate { .. } | Promoted { .. } | Delete { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adversary::{Host, Target, Window},
        properties::testing::{OTHER, POD, began, health, healthy, history, ms, out, role, sampled, texts},
    };

    /// A former primary that is ejected at 20 s and returns at 30 s, while another Pod is the primary since `promoted`.
    fn found(promoted: u64, faults: &[Fault]) -> Vec<String> {
        let with = |on, timeline| PodSample { server_timeline: Some(timeline), ..healthy(on, false) };
        let events = [
            (0, role(POD, Role::PRIMARY)),
            (0, role(OTHER, Role::STANDBY)),
            (promoted, role(OTHER, Role::PRIMARY)),
            (20_000, Event::Ejected { client: 0, on: POD }),
            (20_000, health(POD, false)),
            (29_900, sampled(&[with(POD, 1), with(OTHER, 2)])),
            (30_000, health(POD, true)),
            (30_001, began(1, Target::Any)),
            (30_001, out(1, POD)),
        ];
        let mut history = history(events);
        let window = |fault: &Fault| Window { start: ms(1), end: ms(2), fault: fault.clone() };
        history.plan.faults = faults.iter().map(window).collect();
        texts(check("returning", &history))
    }

    #[test]
    fn a_primary_does_not_return_while_a_newer_one_is_known() {
        let expected =
            "call 1 received a connection to pod-0, which returned at 30.000 s although pod-1 was the newer primary";
        assert_eq!(found(21_000, &[Fault::Promoted { pod: Host::Pod(1) }]), [expected]);
        assert_eq!(found(29_800, &[]), [""; 0]);
        assert_eq!(found(21_000, &[Fault::Hang { pod: Host::Pod(1) }]), [""; 0]);
    }
}
