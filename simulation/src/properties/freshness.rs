//! The age of the data that a standby serves, with `max_lag`.
//!
//! The pool compares a standby with the primary. While a client sees no primary, each standby keeps its last result
//! (`health/lag.rs`), so the limit is promised only for a client that has seen a healthy primary all the time.

use std::{collections::BTreeMap, time::Duration};

use super::{
    bounds,
    history::{Event, History},
    pauses::Pauses,
    roles::Roles,
    violation::{Violation, Violations},
};
use crate::adversary::{Fault, Host};

pub(super) fn check(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    let settings = &history.plan.settings;
    let Some(max_lag) = settings.max_lag else { return violations.found() };
    let limit = max_lag + bounds::lag_error(settings);
    let (roles, calls) = (Roles::of(history), history.calls());
    let (primaries, pauses) = (Primaries::of(history), Pauses::of(history));
    for record in &history.records {
        let Event::Read { call, on, lacks_since: Some(since) } = record.event else { continue };
        let Some(call) = calls.get(&call) else { continue };
        // The age at the checkout counts: a connection may be held for longer.
        let last = call.checkouts.iter().rev().find(|checkout| checkout.on == on && checkout.at <= record.at);
        let Some(checkout) = last else { continue };
        let age = checkout.at.saturating_sub(since);
        let is_standby = roles.at(on, checkout.at).is_some_and(|role| role.standby);
        let from = checkout.at.saturating_sub(limit);
        let is_promised =
            || primaries.are_seen(call.client, from, checkout.at) && pauses.is_running(call.client, from, checkout.at);
        if is_standby && age > limit && is_promised() {
            let (call, age, limit) = (call.id.0, age.as_millis(), limit.as_millis());
            let text = format!("call {call} read data on {on} that was {age} ms old; the limit is {limit} ms");
            violations.add(checkout.at, text);
        }
    }
    violations.found()
}

/// Checks that no standby is excluded before its data can be older than `max_lag`, if the first fault of the plan stops
/// its replay.
///
/// `docs/failure-modes.md`: "excluded 6.8 s after replay stopped (the limit and one probe)", with a limit of 2 s.
pub(super) fn early(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    let settings = &history.plan.settings;
    let (Some(max_lag), None) = (settings.max_lag, settings.max_lag_bytes) else { return violations.found() };
    let Some(window) = history.plan.faults.first() else { return violations.found() };
    let Fault::ReplayPaused { pod: Host::Pod(ordinal) } = window.fault else { return violations.found() };
    let until = window.start + max_lag.saturating_sub(bounds::TOLERANCE);
    let next = history.plan.faults.iter().skip(1).find(|other| other.fault.family() != "clock");
    let until = next.map_or(until, |other| until.min(other.start));
    for record in history.records.iter().filter(|record| record.at > window.start && record.at < until) {
        let Event::Sampled { client, pods } = &record.event else { continue };
        for pod in pods.iter().filter(|pod| pod.on.pod == ordinal && pod.usable && pod.avoided) {
            let (on, since) = (pod.on, (record.at - window.start).as_millis());
            let text = format!("client {client} does not use {on} {since} ms after its replay stopped");
            violations.add(record.at, format!("{text}; the limit is {} ms", max_lag.as_millis()));
        }
    }
    violations.found()
}

/// For each client, the times of the samples, each with whether it contains a healthy primary.
struct Primaries(BTreeMap<u32, Vec<(Duration, bool)>>);

impl Primaries {
    fn of(history: &History) -> Self {
        let mut samples: BTreeMap<u32, Vec<_>> = BTreeMap::new();
        for record in &history.records {
            if let Event::Sampled { client, pods } = &record.event {
                let has_primary = pods.iter().any(|pod| pod.usable && pod.standby == Some(false));
                samples.entry(*client).or_default().push((record.at, has_primary));
            }
        }
        Self(samples)
    }

    /// Returns true if a client has seen a healthy primary in each sample from one time to another, and in the last one
    /// before.
    fn are_seen(&self, client: u32, from: Duration, to: Duration) -> bool {
        let samples = self.0.get(&client).map_or(&[][..], Vec::as_slice);
        let (first, end) =
            (samples.partition_point(|(at, _)| *at <= from), samples.partition_point(|(at, _)| *at <= to));
        first.checked_sub(1).is_some_and(|last_before| samples[last_before..end].iter().all(|(_, has)| *has))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adversary::{Target, Window},
        properties::{
            history::{CallId, PodSample, Role},
            testing::{OTHER, POD, began, healthy, history, ms, out, role, sampled, texts},
        },
    };

    /// A read at 60 s on a standby that lacks a commit of the time `lacks`. The client saw the primary in the samples
    /// before the time `sees_until`.
    fn found(lacks: u64, sees_until: u64, max_lag: Option<Duration>) -> Vec<String> {
        let mut events = vec![(0, role(POD, Role::STANDBY)), (0, role(OTHER, Role::PRIMARY))];
        events.extend((1..60).map(|second| {
            let mut primary = healthy(OTHER, false);
            primary.usable = second * 1000 < sees_until;
            (second * 1000, sampled(&[healthy(POD, true), primary]))
        }));
        events.extend([(60_000, began(1, Target::Any)), (60_000, out(1, POD))]);
        events.push((60_001, Event::Read { call: CallId(1), on: POD, lacks_since: Some(ms(lacks)) }));
        let mut history = history(events);
        history.plan.settings.max_lag = max_lag;
        texts(check("freshness", &history))
    }

    #[test]
    fn old_data_is_not_read() {
        let expected = "call 1 read data on pod-0 that was 40000 ms old; the limit is 25500 ms";
        assert_eq!(found(20_000, 60_000, Some(ms(2_000))), [expected]);
        assert_eq!(found(40_000, 60_000, Some(ms(2_000))), [""; 0]);
    }

    #[test]
    fn a_standby_is_used_until_its_data_is_too_old() {
        let found = |at, max_lag| {
            let late = PodSample { avoided: true, ..healthy(POD, true) };
            let mut history = history([(at, sampled(&[late, healthy(OTHER, false)]))]);
            history.plan.settings.max_lag = max_lag;
            let fault = Fault::ReplayPaused { pod: Host::Pod(0) };
            history.plan.faults = vec![Window { start: ms(1_000), end: ms(9_000), fault }];
            texts(early("patience", &history))
        };
        let expected = "client 0 does not use pod-0 1900 ms after its replay stopped; the limit is 2000 ms";
        assert_eq!(found(2_900, Some(ms(2_000))), [expected]);
        assert_eq!(found(3_000, Some(ms(2_000))), [""; 0]);
        assert_eq!(found(900, Some(ms(2_000))), [""; 0]);
        assert_eq!(found(2_900, None), [""; 0]);
    }

    #[test]
    fn nothing_is_promised_without_a_limit_or_without_a_primary() {
        assert_eq!(found(20_000, 60_000, None), [""; 0]);
        assert_eq!(found(20_000, 50_000, Some(ms(2_000))), [""; 0]);
    }
}
