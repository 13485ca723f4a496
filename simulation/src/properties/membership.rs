//! The Pods that may be checked out: not drained, detached or fenced ones.
//!
//! `docs/failure-modes.md`: a Pod that leaves DNS "gets no new checkouts once its absence is confirmed", and a former
//! primary "receives no traffic for any target". Retained Pods are members.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use super::{
    bounds,
    history::{Event, History, Instance, Role, Standing},
    roles::Roles,
    violation::{Violation, Violations},
};
use crate::adversary::AbsentPods;

/// A Pod in a client's pool.
type Member = (u32, Instance);

/// An address in a client's pool. The pool decides for each address of a Pod whether it is used.
type Address = (u32, SocketAddr);

/// Checks that no Pod is checked out that the pool itself reports as drained, detached or fenced.
pub(super) fn reported(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    let calls = history.calls();
    let mut standings: BTreeMap<Address, (Duration, Standing)> = BTreeMap::new();
    let mut fences: BTreeMap<Member, Duration> = BTreeMap::new();
    for record in &history.records {
        match record.event {
            Event::Standing { client, address, standing } => {
                standings.insert((client, address), (record.at, standing));
            }
            Event::Fenced { client, on, fenced: true } => {
                fences.entry((client, on)).or_insert(record.at);
            }
            Event::Fenced { client, on, fenced: false } => {
                fences.remove(&(client, on));
            }
            Event::CheckedOut { call, on, address, .. } => {
                let Some(call) = calls.get(&call) else { continue };
                let is_old = |since: Duration| since + bounds::HANDOVER < record.at;
                let text = |state: &str| format!("call {} received a connection to {on}, which is {state}", call.id.0);
                match standings.get(&(call.client, address)) {
                    Some((since, Standing::Detached)) if is_old(*since) => violations.add(record.at, text("detached")),
                    Some((since, Standing::Drained)) if is_old(*since) => violations.add(record.at, text("drained")),
                    _ => {}
                }
                if fences.get(&(call.client, on)).is_some_and(|since| is_old(*since)) {
                    violations.add(record.at, text("fenced"));
                }
            }
            _ => {}
        }
    }
    violations.found()
}

/// The answers of the name servers without an address that passes its probes: the first and the last of them.
type Absence = (Duration, Duration);

/// Checks that no Pod is checked out whose absence two answers have confirmed, unless the pool reports it as retained.
///
/// `docs/architecture.md`: the absence must be confirmed of a Pod whose "probes still pass". A Pod that fails its
/// probes is removed instead, but not by an empty answer; when it passes them again, its absence must be confirmed.
pub(super) fn absent(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    if history.plan.settings.absent_pods == AbsentPods::Keep {
        return violations.found();
    }
    let calls = history.calls();
    let mut healthy: BTreeSet<Address> = BTreeSet::new();
    let mut absences: BTreeMap<Address, Absence> = BTreeMap::new();
    let mut retained: BTreeSet<Address> = BTreeSet::new();
    for record in &history.records {
        match &record.event {
            Event::Resolved { client, addresses, .. } => {
                for key in healthy.iter().filter(|(other, address)| other == client && !addresses.contains(address)) {
                    absences.entry(*key).and_modify(|(_, last)| *last = record.at).or_insert((record.at, record.at));
                }
                for address in addresses {
                    absences.remove(&(*client, *address));
                }
            }
            Event::Health { client, address, healthy: true } => {
                healthy.insert((*client, *address));
            }
            Event::Health { client, address, healthy: false } => {
                healthy.remove(&(*client, *address));
                absences.remove(&(*client, *address));
            }
            Event::Standing { client, address, standing } => match standing {
                Standing::Retained => drop(retained.insert((*client, *address))),
                _ => drop(retained.remove(&(*client, *address))),
            },
            Event::CheckedOut { call, on, address, .. } => {
                let Some(call) = calls.get(call) else { continue };
                let key = (call.client, *address);
                let is_confirmed = absences.get(&key).is_some_and(|(first, last)| {
                    *last >= *first + bounds::CONFIRM && *last + bounds::HANDOVER < record.at
                });
                if is_confirmed && !retained.contains(&key) {
                    let call = call.id.0;
                    let text =
                        format!("call {call} received a connection to {on}, whose absence from DNS is confirmed");
                    violations.add(record.at, text);
                }
            }
            _ => {}
        }
    }
    violations.found()
}

/// The last sample of a Pod.
#[derive(Clone, Copy)]
struct Seen {
    at: Duration,
    standby: Option<bool>,
    timeline: Option<u32>,
}

/// Checks that a client that has seen a newer timeline does not check out a primary of an older one, unless the pool
/// reports that it has forgotten the timelines.
///
/// `docs/architecture.md`, "Two primaries": the fence is reported only after another probe, but does not wait for it.
/// Therefore the checkouts are compared with the timelines in the samples. A timeline that the server no longer has
/// does not count: a server may report its promotion on a connection, before the pool has read its new timeline.
pub(super) fn outdated(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    let (calls, roles) = (history.calls(), Roles::of(history));
    let mut seen: BTreeMap<Member, Seen> = BTreeMap::new();
    // For each client, the newest timeline, and the time at which it was first seen.
    let mut newest: BTreeMap<u32, (u32, Duration)> = BTreeMap::new();
    for record in &history.records {
        match &record.event {
            Event::Forgot { client } => {
                newest.remove(client);
                seen.retain(|(other, _), _| other != client);
            }
            Event::Sampled { client, pods } => {
                for pod in pods {
                    let (at, standby) = (record.at, pod.standby);
                    let timeline = pod.timeline.filter(|_| pod.timeline == pod.server_timeline);
                    seen.insert((*client, pod.on), Seen { at, standby, timeline });
                    let known = newest.entry(*client).or_insert((0, record.at));
                    if let Some(timeline) = pod.timeline.filter(|timeline| *timeline > known.0) {
                        *known = (timeline, record.at);
                    }
                }
            }
            Event::CheckedOut { call, on, .. } => {
                let Some(call) = calls.get(call) else { continue };
                let Some((newest, since)) = newest.get(&call.client) else { continue };
                let member = (call.client, *on);
                let Some(Seen { at, standby: Some(false), timeline: Some(timeline) }) = seen.get(&member) else {
                    continue;
                };
                // The server may have been promoted again, or demoted, since it was seen.
                let is_unchanged = roles.between(*on, *at, record.at).iter().all(|role| *role == Some(Role::PRIMARY));
                if timeline < newest && *since + bounds::HANDOVER < record.at && is_unchanged {
                    let (call, client) = (call.id.0, call.client);
                    let text = format!("call {call} received a connection to {on} with timeline {timeline}");
                    let text = format!("{text}, but client {client} has seen {newest}");
                    violations.add(record.at, text);
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
        adversary::Target,
        properties::{
            history::PodSample,
            testing::{
                OTHER, POD, began, fenced, health, healthy, history, out, resolved, role, sampled, standing, texts,
            },
        },
    };

    #[test]
    fn detached_and_drained_pods_are_not_checked_out() {
        let found = |state, at| {
            let events = [(0, began(1, Target::Any)), (100, standing(POD, state)), (at, out(1, POD))];
            texts(reported("membership", &history(events)))
        };
        assert_eq!(found(Standing::Member, 200), [""; 0]);
        assert_eq!(found(Standing::Retained, 200), [""; 0]);
        assert_eq!(found(Standing::Detached, 102), [""; 0]);
        assert_eq!(found(Standing::Detached, 200), ["call 1 received a connection to pod-0, which is detached"]);
        assert_eq!(found(Standing::Drained, 200), ["call 1 received a connection to pod-0, which is drained"]);
    }

    #[test]
    fn fenced_pods_are_not_checked_out() {
        let events = |at| [(0, began(1, Target::Any)), (100, fenced(POD, true)), (at, out(1, POD))];
        let found = |events| texts(reported("membership", &history(events)));
        assert_eq!(found(events(101).to_vec()), [""; 0]);
        assert_eq!(found(events(200).to_vec()), ["call 1 received a connection to pod-0, which is fenced"]);
        let mut lifted = events(200).to_vec();
        lifted.insert(2, (150, fenced(POD, false)));
        assert_eq!(found(lifted), [""; 0]);
    }

    #[test]
    fn two_answers_confirm_an_absence() {
        let found = |second, standing_at_the_end: Standing| {
            let mut events = vec![(0, began(1, Target::Any)), (1_000, health(POD, true))];
            events.extend([(2_000, resolved(&[OTHER])), (second, resolved(&[OTHER]))]);
            events.push((second, standing(POD, standing_at_the_end)));
            events.push((20_000, out(1, POD)));
            texts(absent("absence", &history(events)))
        };
        assert_eq!(found(6_000, Standing::Member), [""; 0]);
        assert_eq!(found(7_000, Standing::Retained), [""; 0]);
        let expected = "call 1 received a connection to pod-0, whose absence from DNS is confirmed";
        assert_eq!(found(7_000, Standing::Member), [expected]);
    }

    #[test]
    fn answers_count_while_the_pod_passes_its_probes() {
        let found = |between: &[(u64, Event)], last| {
            let start = [(1_000, health(POD, true)), (2_000, resolved(&[]))];
            let end = [(last, resolved(&[])), (20_000, began(1, Target::Any)), (20_000, out(1, POD))];
            texts(absent("absence", &history(start.iter().chain(between).chain(&end).cloned()))).len()
        };
        let ejected = [(3_000, health(POD, false)), (8_000, resolved(&[])), (9_000, health(POD, true))];
        assert_eq!((found(&[], 10_000), found(&ejected, 10_000)), (1, 0));
        let confirmed_afterwards = [ejected.as_slice(), &[(10_000, resolved(&[]))]].concat();
        assert_eq!((found(&confirmed_afterwards, 14_000), found(&confirmed_afterwards, 15_000)), (0, 1));
    }

    #[test]
    fn an_answer_with_the_pod_ends_its_absence() {
        let events = [
            (1_000, health(POD, true)),
            (1_000, resolved(&[POD])),
            (2_000, resolved(&[OTHER])),
            (5_000, resolved(&[POD])),
            (9_000, resolved(&[OTHER])),
            (9_500, began(1, Target::Any)),
            (9_600, out(1, POD)),
        ];
        assert_eq!(texts(absent("absence", &history(events))), [""; 0]);
    }

    #[test]
    fn a_primary_of_an_older_timeline_is_not_used() {
        let with = |on, timeline, server_timeline| PodSample { timeline, server_timeline, ..healthy(on, false) };
        let primary = |on, timeline| with(on, Some(timeline), Some(timeline));
        let start = [(0, role(POD, Role::PRIMARY)), (1, sampled(&[primary(POD, 1), healthy(OTHER, true)]))];
        let promoted = [(2, sampled(&[primary(POD, 1), primary(OTHER, 2)])), (3, began(1, Target::Any))];
        let found = |further: &[(u64, Event)]| {
            let events = start.iter().chain(&promoted).chain(further).cloned();
            texts(outdated("fencing", &history(events)))
        };
        let expected = "call 1 received a connection to pod-0 with timeline 1, but client 0 has seen 2";
        assert_eq!(found(&[(20, out(1, POD))]), [expected]);
        assert_eq!(found(&[(20, out(1, OTHER))]), [""; 0]);
        assert_eq!(found(&[(6, out(1, POD))]), [""; 0]);
        assert_eq!(found(&[(10, Event::Forgot { client: 0 }), (20, out(1, POD))]), [""; 0]);
        let promoted_again = (15, sampled(&[with(POD, Some(1), Some(3)), primary(OTHER, 2)]));
        assert_eq!(found(&[promoted_again, (20, out(1, POD))]), [""; 0]);
        let demoted = (15, role(POD, Role::STANDBY));
        assert_eq!(found(&[demoted, (20, out(1, POD))]), [""; 0]);
    }
}
