//! A Pod that is absent from DNS is retained only while no Pod that DNS names serves its role.
//!
//! `docs/failure-modes.md`: "the Pod stays in use until another Pod serves the role". Not judged with faults that make
//! sessions read-only, because a primary then serves other targets than another one.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use super::{
    history::{Event, History, PodSample, Standing},
    pauses::Pauses,
    violation::{Violation, Violations},
};
use crate::adversary::Fault;

/// Time after which the pool has certainly judged a Pod again.
const SETTLED: Duration = Duration::from_secs(1);

pub(super) fn check(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    if history.plan.faults.iter().any(|window| matches!(window.fault, Fault::ReadOnly { .. })) {
        return violations.found();
    }
    let pauses = Pauses::of(history);
    let mut standings: BTreeMap<(u32, SocketAddr), Standing> = BTreeMap::new();
    // For each retained address, the time since which every sample has shown a named Pod that serves its role.
    let mut replaced: BTreeMap<(u32, SocketAddr), Duration> = BTreeMap::new();
    for record in &history.records {
        match &record.event {
            Event::Standing { client, address, standing } => drop(standings.insert((*client, *address), *standing)),
            Event::Sampled { client, pods } => {
                let is = |pod: &PodSample, standing| {
                    pod.usable && !pod.avoided && standings.get(&(*client, pod.address)) == Some(&standing)
                };
                for pod in pods {
                    let key = (*client, pod.address);
                    let replaces = |other: &&PodSample| is(other, Standing::Member) && other.standby == pod.standby;
                    let other = pods.iter().find(replaces);
                    let Some(other) = other.filter(|_| is(pod, Standing::Retained) && pod.standby.is_some()) else {
                        replaced.remove(&key);
                        continue;
                    };
                    let since = *replaced.entry(key).or_insert(record.at);
                    let took = pauses.running(*client, since, record.at);
                    if took > SETTLED {
                        let (on, other, took) = (pod.on, other.on, took.as_millis());
                        let text =
                            format!("client {client} has retained {on} for {took} ms although DNS names {other}");
                        violations.add(record.at, format!("{text}, which serves the same role"));
                    }
                }
            }
            _ => {}
        }
    }
    violations.found()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adversary::{Host, Window},
        properties::testing::{OTHER, POD, healthy, history, ms, sampled, standing, texts},
    };

    fn events(named: Standing, is_standby: bool) -> History {
        let pods = [healthy(POD, true), healthy(OTHER, is_standby)];
        let samples = (4..10).map(|number| (number * 250, sampled(&pods)));
        let standings = [(500, standing(POD, Standing::Retained)), (500, standing(OTHER, named))];
        history(standings.into_iter().chain(samples))
    }

    #[test]
    fn a_pod_whose_role_is_served_is_not_retained() {
        let found = |named, is_standby| texts(check("retained", &events(named, is_standby)));
        let expected = "client 0 has retained pod-0 for 1250 ms although DNS names pod-1, which serves the same role";
        assert_eq!(found(Standing::Member, true), [expected]);
        assert_eq!(found(Standing::Member, false), [""; 0]);
        assert_eq!(found(Standing::Retained, true), [""; 0]);
    }

    #[test]
    fn read_only_sessions_are_not_judged() {
        let mut history = events(Standing::Member, true);
        let fault = Fault::ReadOnly { pod: Host::Pod(0) };
        history.plan.faults = vec![Window { start: ms(0), end: ms(9_000), fault }];
        assert_eq!(texts(check("retained", &history)), [""; 0]);
    }
}
