//! The Pods that may be checked out: not drained, detached or fenced ones.
//!
//! `docs/failure-modes.md`: a Pod that leaves DNS "gets no new checkouts once its absence is confirmed", and a former
//! primary "receives no traffic for any target". Retained Pods are members.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{
    bounds,
    history::{Event, History, Instance, PodSample, Role, Standing},
    roles::Roles,
    violation::{Violation, Violations},
};
use crate::adversary::AbsentPods;

/// A Pod in a client's pool.
type Member = (u32, Instance);

/// Checks that no Pod is checked out that the pool itself reports as drained, detached or fenced.
pub(super) fn reported(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    let calls = history.calls();
    let mut standings: BTreeMap<Member, (Duration, Standing)> = BTreeMap::new();
    let mut fences: BTreeMap<Member, Duration> = BTreeMap::new();
    for record in &history.records {
        match record.event {
            Event::Standing { client, on, standing } => {
                let before = standings.insert((client, on), (record.at, standing));
                if before.is_some_and(|(_, before)| before == Standing::Drained) {
                    // The Pod was removed and has been added again.
                    fences.remove(&(client, on));
                }
            }
            Event::Fenced { client, on, fenced: true } => {
                fences.entry((client, on)).or_insert(record.at);
            }
            Event::Fenced { client, on, fenced: false } => {
                fences.remove(&(client, on));
            }
            Event::CheckedOut { call, on, .. } => {
                let Some(call) = calls.get(&call) else { continue };
                let is_old = |since: Duration| since + bounds::HANDOVER < record.at;
                let text = |state: &str| format!("call {} received a connection to {on}, which is {state}", call.id.0);
                let member = (call.client, on);
                match standings.get(&member) {
                    Some((since, Standing::Detached)) if is_old(*since) => violations.add(record.at, text("detached")),
                    Some((since, Standing::Drained)) if is_old(*since) => violations.add(record.at, text("drained")),
                    _ => {}
                }
                if fences.get(&member).is_some_and(|since| is_old(*since)) {
                    violations.add(record.at, text("fenced"));
                }
            }
            _ => {}
        }
    }
    violations.found()
}

/// The answers of the name servers without a Pod that the pool knows: the first and the last of them.
type Absence = (Duration, Duration);

/// Checks that no Pod is checked out whose absence two answers have confirmed, unless the pool reports it as retained.
pub(super) fn absent(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    if history.plan.settings.absent_pods == AbsentPods::Keep {
        return violations.found();
    }
    let calls = history.calls();
    let mut known: BTreeSet<Member> = BTreeSet::new();
    let mut absences: BTreeMap<Member, Absence> = BTreeMap::new();
    let mut retained: BTreeSet<Member> = BTreeSet::new();
    for record in &history.records {
        match &record.event {
            Event::Resolved { client, pods } => {
                for member in known.iter().filter(|(other, on)| other == client && !pods.contains(on)) {
                    absences.entry(*member).and_modify(|(_, last)| *last = record.at).or_insert((record.at, record.at));
                }
                for on in pods {
                    known.insert((*client, *on));
                    absences.remove(&(*client, *on));
                }
            }
            Event::Standing { client, on, standing: Standing::Retained } => {
                retained.insert((*client, *on));
            }
            Event::Standing { client, on, .. } => {
                retained.remove(&(*client, *on));
            }
            Event::CheckedOut { call, on, .. } => {
                let Some(call) = calls.get(call) else { continue };
                let member = (call.client, *on);
                let is_confirmed = absences.get(&member).is_some_and(|(first, last)| {
                    *last >= *first + bounds::CONFIRM && *last + bounds::HANDOVER < record.at
                });
                if is_confirmed && !retained.contains(&member) {
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
    healthy: bool,
}

/// Checks that a client that has seen a newer timeline does not check out a primary of an older one, unless the pool
/// reports that it has forgotten the timelines.
///
/// `docs/architecture.md`, "Two primaries": the fence is reported only after another probe, but does not wait for it.
/// Therefore the checkouts are compared with the timelines in the samples.
pub(super) fn outdated(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    let (calls, roles) = (history.calls(), Roles::of(history));
    let mut seen: BTreeMap<Member, Seen> = BTreeMap::new();
    // For each client, the newest timeline, and the time at which it was first seen.
    let mut newest: BTreeMap<u32, (u32, Duration)> = BTreeMap::new();
    // Checkouts from Pods that failed their health check. Unless they pass it again before the next sample, the pool
    // knew nothing newer of them.
    let mut unhealthy: Vec<(Member, Duration, String)> = Vec::new();
    for record in &history.records {
        match &record.event {
            Event::Forgot { client } => {
                newest.remove(client);
                seen.retain(|(other, _), _| other != client);
            }
            Event::Sampled { client, pods } => {
                let (of_client, rest) =
                    std::mem::take(&mut unhealthy).into_iter().partition(|((it, _), ..)| it == client);
                unhealthy = rest;
                for ((_, on), at, text) in of_client {
                    let still = |pod: &PodSample| pod.on == on && !pod.healthy;
                    if pods.iter().any(still) {
                        violations.add(at, text);
                    }
                }
                for pod in pods {
                    let (at, standby, timeline, healthy) = (record.at, pod.standby, pod.timeline, pod.healthy);
                    seen.insert((*client, pod.on), Seen { at, standby, timeline, healthy });
                    let known = newest.entry(*client).or_insert((0, record.at));
                    if let Some(timeline) = timeline.filter(|timeline| *timeline > known.0) {
                        *known = (timeline, record.at);
                    }
                }
            }
            Event::CheckedOut { call, on, .. } => {
                let Some(call) = calls.get(call) else { continue };
                let Some((newest, since)) = newest.get(&call.client) else { continue };
                let member = (call.client, *on);
                let Some(Seen { at, standby: Some(false), timeline: Some(timeline), healthy }) = seen.get(&member)
                else {
                    continue;
                };
                // The server may have been promoted again, or demoted, since it was seen.
                let is_unchanged = roles.between(*on, *at, record.at).iter().all(|role| *role == Some(Role::PRIMARY));
                if timeline < newest && *since + bounds::HANDOVER < record.at && is_unchanged {
                    let (call, client) = (call.id.0, call.client);
                    let text = format!("call {call} received a connection to {on} with timeline {timeline}");
                    let text = format!("{text}, but client {client} has seen {newest}");
                    match healthy {
                        true => violations.add(record.at, text),
                        false => unhealthy.push((member, record.at, text)),
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
        adversary::Target,
        properties::{
            history::PodSample,
            testing::{OTHER, POD, began, fenced, healthy, history, out, resolved, role, sampled, standing, texts},
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
        let mut added_again = events(200).to_vec();
        added_again.insert(2, (150, standing(POD, Standing::Drained)));
        added_again.insert(3, (160, standing(POD, Standing::Member)));
        assert_eq!(found(added_again), [""; 0]);
    }

    #[test]
    fn two_answers_confirm_an_absence() {
        let found = |second, standing_at_the_end: Standing| {
            let mut events = vec![(0, began(1, Target::Any)), (1_000, resolved(&[POD, OTHER]))];
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
    fn an_answer_with_the_pod_ends_its_absence() {
        let events = [
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
        let primary = |on, timeline| PodSample { timeline: Some(timeline), ..healthy(on, false) };
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
        // A Pod that passes its health check again has reported its timeline before it is used.
        let failing = |at| (at, sampled(&[PodSample { healthy: false, ..primary(POD, 1) }, primary(OTHER, 2)]));
        assert_eq!(found(&[failing(5), (20, out(1, POD)), failing(21)]), [expected]);
        assert_eq!(found(&[failing(5), (20, out(1, POD)), (21, sampled(&[primary(POD, 3)]))]), [""; 0]);
        let demoted = (15, role(POD, Role::STANDBY));
        assert_eq!(found(&[demoted, (20, out(1, POD))]), [""; 0]);
    }
}
