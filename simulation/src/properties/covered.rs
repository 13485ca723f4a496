//! No caller waits while a Pod that serves its target has a free connection, or may open one.
//!
//! `docs/architecture.md`: "one attempt is under way for each waiter, on a Pod that can serve the waiter, as far as the
//! limits on connections and handshakes and the backoffs after failed dials allow".

use std::{collections::BTreeMap, time::Duration};

use super::{
    bounds,
    history::{CallId, Event, History, PodSample, Role},
    pauses::Pauses,
    served,
    violation::{Violation, Violations},
};
use crate::adversary::{Plan, Target};

/// Number of dials within which a caller must be served: other callers may wait before it, and a dial may fail.
const DIALS: u32 = 10;
/// Time for which a Pod may not be dialed after failures. `pool/pod/last_failure.rs`: at most 1 s, and its jitter.
const BACKOFF: Duration = Duration::from_millis(1_250);

/// A call that waits for its first connection.
struct Waiting {
    target: Target,
    began: Duration,
}

/// Checks the callers that wait after the world is whole. With a limit for all Pods together, the free capacity of a
/// Pod cannot be told from its own counts.
pub(super) fn check(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    let (plan, pauses) = (&history.plan, Pauses::of(history));
    let is_judged = plan.settings.uses_every_pod() && bounds::has_slots(plan);
    let Some(healed) = history.healed.filter(|_| is_judged) else { return violations.found() };
    let from = healed + BACKOFF;
    let limit = BACKOFF + DIALS * served::dial(plan);
    let calls = history.calls();
    let mut waiting: BTreeMap<CallId, Waiting> = BTreeMap::new();
    // For each client and Pod, the time since which every sample has shown free capacity, and the last sample.
    let mut free: BTreeMap<(u32, u32), (Duration, PodSample)> = BTreeMap::new();
    for record in &history.records {
        match &record.event {
            Event::Began { call, target, .. } => {
                waiting.insert(*call, Waiting { target: *target, began: record.at });
            }
            Event::CheckedOut { call, .. } | Event::Ended { call, .. } => drop(waiting.remove(call)),
            Event::Sampled { client, pods } if record.at >= from => {
                free.retain(|(other, ordinal), (_, last)| {
                    other != client || pods.iter().any(|pod| pod.on == last.on && pod.on.pod == *ordinal)
                });
                for pod in pods {
                    let key = (*client, pod.on.pod);
                    if is_free(pod, plan) {
                        free.entry(key).and_modify(|(_, last)| *last = *pod).or_insert((record.at, *pod));
                    } else {
                        free.remove(&key);
                    }
                }
                let overdue = waiting.iter().filter(|(_, call)| call.began + limit < record.at);
                let overdue = overdue.filter(|(id, _)| calls.get(id).is_some_and(|call| call.client == *client));
                for (id, call) in overdue {
                    let fits = |pod: &PodSample| role(pod).is_some_and(|role| role.fits(call.target));
                    let pods = free.iter().filter(|((other, _), (_, pod))| other == client && fits(pod));
                    let mut pods = pods.filter(|(_, (since, _))| *since + limit < record.at);
                    let was_running = || pauses.is_running(*client, record.at.saturating_sub(limit), record.at);
                    if let Some((_, (_, PodSample { on, open, idle, .. }))) = pods.next().filter(|_| was_running()) {
                        let (id, waited) = (id.0, (record.at - call.began).as_millis());
                        let text = format!("call {id} has waited for {waited} ms although {on} has free capacity");
                        violations.add(record.at, format!("{text} ({open} open connections, {idle} idle)"));
                    }
                }
            }
            _ => {}
        }
    }
    violations.found()
}

/// Returns true if a Pod has an idle connection, or may open one.
fn is_free(pod: &PodSample, plan: &Plan) -> bool {
    pod.usable && !pod.avoided && (pod.open < plan.settings.pool_size || pod.idle > 0)
}

fn role(pod: &PodSample) -> Option<Role> {
    // Whether a primary is read-only is not in the status, and not the case in a world that is whole.
    Some(if pod.standby? { Role::STANDBY } else { Role::PRIMARY })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::history::Applied;
    use crate::properties::testing::{POD, began, failed, healthy, history, ms, out, sampled, texts};

    fn found(target: Target, open: u32, further: &[(u64, Event)]) -> Vec<String> {
        let free = |at| (at, sampled(&[PodSample { open, idle: 0, ..healthy(POD, true) }]));
        let samples = (0..40).map(|number| free(1_000 + number * 250));
        let mut events: Vec<_> = [(3_000, began(1, target))].into_iter().chain(samples).collect();
        events.extend_from_slice(further);
        events.sort_by_key(|(at, _)| *at);
        texts(check("covered", &History { healed: Some(ms(1_000)), ..history(events) }))
    }

    #[test]
    fn callers_do_not_wait_beside_free_capacity() {
        let expected = "call 1 has waited for 2500 ms although pod-0 has free capacity (1 open connections, 0 idle)";
        assert_eq!(found(Target::Any, 1, &[])[0], expected);
        assert_eq!(found(Target::Any, 8, &[]), [""; 0]);
        assert_eq!(found(Target::Primary, 1, &[]), [""; 0]);
        assert_eq!(found(Target::Any, 1, &[(5_000, out(1, POD))]), [""; 0]);
        assert_eq!(found(Target::Any, 1, &[(5_000, failed(1, "pool_timeout", Applied::No))]), [""; 0]);
        let lost = [(5_100, sampled(&[PodSample { usable: false, ..healthy(POD, true) }]))];
        assert_eq!(found(Target::Any, 1, &lost)[0], expected.replace("2500", "4750"));
    }
}
