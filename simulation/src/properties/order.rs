//! The order in which waiting callers are served.
//!
//! `docs/architecture.md`: a returned connection "goes to the oldest waiter that the Pod can serve", and a "new caller
//! does not take a connection that a waiter could use".

use std::{collections::BTreeMap, time::Duration};

use super::{
    bounds,
    history::{CallId, Event, History, PodSample, Role},
    violation::{Violation, Violations},
};
use crate::adversary::Target;

/// Time by which two callers must differ to be compared, because a caller may ping a connection before it waits.
const APART: Duration = Duration::from_millis(250);
/// Number of later callers that may be served first: a connection that was handed to a waiter may turn out to be
/// closed, and the waiter then waits again.
const OVERTAKEN: u32 = 5;

/// A call that waits for its first connection.
struct Waiting {
    client: u32,
    target: Target,
    began: Duration,
    /// Number of later callers that have received a connection that this one could have received.
    overtaken: u32,
}

/// Checks the callers that wait after the world is whole and the pools have recovered. With a subset, a Pod may be used
/// for some targets only.
pub(super) fn check(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    let settings = &history.plan.settings;
    let is_judged = settings.uses_every_pod() && bounds::has_slots(&history.plan);
    let Some(healed) = history.healed.filter(|_| is_judged) else { return violations.found() };
    let from = healed + bounds::served(settings);
    let mut waiting: BTreeMap<CallId, Waiting> = BTreeMap::new();
    let mut samples: BTreeMap<u32, &[PodSample]> = BTreeMap::new();
    for record in &history.records {
        match &record.event {
            // A call on a shared connection checks nothing out.
            Event::Began { work, .. } if work.is_shared() => {}
            Event::Began { call, client, target, .. } => {
                let (client, target, began) = (*client, *target, record.at);
                waiting.insert(*call, Waiting { client, target, began, overtaken: 0 });
            }
            Event::Sampled { client, pods } => drop(samples.insert(*client, pods)),
            Event::Ended { call, .. } => drop(waiting.remove(call)),
            Event::CheckedOut { call, address, .. } => {
                let Some(served) = waiting.remove(call) else { continue };
                let pods = samples.get(&served.client).into_iter().flat_map(|pods| pods.iter());
                let Some(pod) = pods.clone().find(|pod| pod.address == *address && pod.usable && !pod.avoided) else {
                    continue;
                };
                let could_use = |other: &Waiting| {
                    let is_older = other.began + APART < served.began && from < other.began;
                    other.client == served.client && is_older && serves(pod, other.target)
                };
                for (other, overtaken) in waiting.iter_mut().filter(|(_, other)| could_use(other)) {
                    overtaken.overtaken += 1;
                    if overtaken.overtaken == OVERTAKEN {
                        let (id, target) = (other.0, overtaken.target.as_str());
                        let text = format!("call {id} with target {target} still waits, but {OVERTAKEN} later callers");
                        violations.add(record.at, format!("{text} have received connections that it could use"));
                    }
                }
            }
            _ => {}
        }
    }
    violations.found()
}

/// Returns true if a Pod certainly serves a target. A preferred role depends on the other Pods.
fn serves(pod: &PodSample, target: Target) -> bool {
    let role = match pod.standby {
        Some(true) => Role::STANDBY,
        Some(false) => Role::PRIMARY,
        None => return false,
    };
    !matches!(target, Target::PreferStandby | Target::PreferPrimary) && role.fits(target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::testing::{POD, began, healthy, history, ms, out, sampled, texts};

    fn found(target: Target, later: u64) -> Vec<String> {
        let start = [(0, sampled(&[healthy(POD, true)])), (50_000, began(1, target))];
        let later =
            (0..later).flat_map(|call| [(50_300, began(10 + call, Target::Any)), (51_000, out(10 + call, POD))]);
        texts(check("order", &History { healed: Some(ms(1_000)), ..history(start.into_iter().chain(later)) }))
    }

    #[test]
    fn callers_are_served_in_the_order_of_their_calls() {
        let expected = "call 1 with target standby still waits, but 5 later callers have received connections that it \
                        could use";
        assert_eq!(found(Target::Standby, 5), [expected]);
        assert_eq!(found(Target::Standby, 4), [""; 0]);
        assert_eq!(found(Target::Primary, 9), [""; 0]);
        assert_eq!(found(Target::PreferPrimary, 9), [""; 0]);
    }
}
