//! The counts in a pool's status, compared with the numbers that follow from the history.
//!
//! `Status`: `in_use` counts connections that are checked out, pinged for a caller, or being recycled, so a connection
//! may count for a short time after its return. A call that waits may already have reserved a connection, for example
//! while it is pinged, and so may a probe. An overdue ping keeps its connection for `probe_timeout`, even if its caller
//! has stopped waiting. Time for which the client was stopped does not count, because nothing is recycled meanwhile.
//!
//! The counts and the limit are those of one address, whichever Pod has it. `Limits::pool_size`: connections to an
//! address that is no longer used do not count.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use super::{
    bounds,
    history::{CallId, Event, History, PodSample, Standing},
    pauses::Pauses,
    violation::{Violation, Violations},
};
use crate::adversary::{Settings, Target, Work};

/// Connections that the probe of a Pod may use at the same time.
const PROBES: u32 = 1;

/// Time after which a call that waits is in the queue: it has no connection left to ping.
const QUEUED_AFTER: Duration = Duration::from_millis(100);

/// Time after which a ping is overdue. `pool/checkout/ping.rs`: `HEDGE_AFTER`.
const OVERDUE: Duration = Duration::from_millis(1);

/// The state of a client's pool, as it follows from the history.
#[derive(Debug, Default)]
struct Derived {
    /// Calls that wait for a connection, each with the time since which it does.
    pending: BTreeMap<CallId, Duration>,
    /// The times at which calls have stopped waiting that waited for so long that a ping may be overdue.
    overdue: Vec<Duration>,
    /// Those of them that are certainly in the queue of each Pod that serves, after a while: calls of `get` for any
    /// Pod. None with a subset, because the pool may use a Pod only for callers that need its role
    /// (`Limits::subset_size`).
    queued: BTreeMap<CallId, Duration>,
    /// Connections that are checked out, without those to addresses that have been drained since then.
    out: BTreeMap<CallId, SocketAddr>,
    /// The last returns.
    returns: Vec<(Duration, SocketAddr)>,
}

impl Derived {
    fn out_at(&self, address: SocketAddr) -> u32 {
        self.out.values().filter(|other| **other == address).count() as u32
    }

    fn recycled_at(&self, address: SocketAddr) -> u32 {
        self.returns.iter().filter(|(_, other)| *other == address).count() as u32
    }

    /// Forgets the connections to an address that is drained. If the address is used again, its counts start at 0.
    fn drain(&mut self, address: SocketAddr) {
        self.out.retain(|_, other| *other != address);
        self.returns.retain(|(_, other)| *other != address);
    }

    /// Records that a call no longer waits.
    fn stop_waiting(&mut self, call: CallId, at: Duration) {
        self.queued.remove(&call);
        self.overdue.extend(self.pending.remove(&call).filter(|since| *since + OVERDUE <= at).map(|_| at));
    }

    /// Returns the minimum number of calls in the queue. A call that pings a connection is not in the queue, and the
    /// connection counts as in use.
    fn queued(&self, samples: &[PodSample], at: Duration) -> u32 {
        let waiting = self.queued.values().filter(|began| **began + QUEUED_AFTER < at).count() as u32;
        let reserved = samples.iter().map(|sample| sample.in_use.saturating_sub(self.out_at(sample.address)));
        waiting.saturating_sub(reserved.sum())
    }

    /// Compares a sample with the derived numbers. Returns a description of each difference.
    fn compare(&self, sample: &PodSample, settings: &Settings, queued: u32) -> Vec<String> {
        let PodSample { on, address, usable, avoided, open, idle, in_use, waiting, .. } = *sample;
        let (out, pending) = (self.out_at(address), self.pending.len() as u32);
        let most = out + pending + self.recycled_at(address) + self.overdue.len() as u32 + PROBES;
        let queued = if usable && !avoided { queued } else { 0 };
        let mut found = Vec::new();
        if in_use < out || in_use > most {
            found.push(format!("{on} has {in_use} connections in use, expected {out} to {most}"));
        }
        if open > settings.pool_size {
            found.push(format!("{on} has {open} open connections, expected at most {}", settings.pool_size));
        }
        if idle > open {
            found.push(format!("{on} has {idle} idle connections, but only {open} open ones"));
        }
        if waiting < queued || waiting > pending {
            found.push(format!("{on} has {waiting} waiting callers, expected {queued} to {pending}"));
        }
        found
    }
}

pub(super) fn check(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    let (calls, pauses, settings) = (history.calls(), Pauses::of(history), &history.plan.settings);
    let uses_all = settings.uses_every_pod();
    let mut clients: BTreeMap<u32, Derived> = BTreeMap::new();
    for record in &history.records {
        match &record.event {
            Event::Began { call, client, work, target, .. } => {
                let derived = clients.entry(*client).or_default();
                derived.pending.insert(*call, record.at);
                if uses_all && (*work, *target) == (Work::Checkout, Target::Any) {
                    derived.queued.insert(*call, record.at);
                }
            }
            // A call that began shortly before the pause may not be in the queue yet.
            Event::Paused { client, .. } => clients.entry(*client).or_default().queued.clear(),
            Event::Standing { client, address, standing: Standing::Drained } => {
                clients.entry(*client).or_default().drain(*address);
            }
            Event::CheckedOut { call: id, on, address, .. } => {
                let Some(call) = calls.get(id) else { continue };
                let derived = clients.entry(call.client).or_default();
                derived.stop_waiting(*id, record.at);
                derived.out.insert(*id, *address);
                let out = derived.out_at(*address);
                if out > settings.pool_size {
                    let limit = settings.pool_size;
                    violations.add(record.at, format!("{out} connections to {on} are checked out, of at most {limit}"));
                }
            }
            Event::Returned { call: id } => {
                let Some(call) = calls.get(id) else { continue };
                let derived = clients.entry(call.client).or_default();
                derived.returns.extend(derived.out.remove(id).map(|address| (record.at, address)));
                derived.pending.insert(*id, record.at);
            }
            Event::Ended { call: id, .. } => {
                let Some(call) = calls.get(id) else { continue };
                let derived = clients.entry(call.client).or_default();
                derived.stop_waiting(*id, record.at);
                derived.returns.extend(derived.out.remove(id).map(|address| (record.at, address)));
            }
            Event::Sampled { client, pods } => {
                let derived = clients.entry(*client).or_default();
                derived.returns.retain(|(at, _)| pauses.running(*client, *at, record.at) <= bounds::RECYCLE);
                let pinged = settings.probe_timeout + bounds::TOLERANCE;
                derived.overdue.retain(|at| pauses.running(*client, *at, record.at) <= pinged);
                let queued = derived.queued(pods, record.at);
                let found = pods.iter().flat_map(|sample| derived.compare(sample, settings, queued));
                found.for_each(|text| violations.add(record.at, format!("client {client}: {text}")));
                let open: u32 = pods.iter().map(|sample| sample.open).sum();
                if let Some(limit) = settings.max_connections.filter(|limit| open > *limit) {
                    let text = format!("client {client} has {open} open connections, expected at most {limit}");
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
    use crate::properties::{
        history::Applied,
        testing::{
            OTHER, POD, address, began, done, failed, healthy, history, out, out_at, paused, returned, sampled,
            standing, texts,
        },
    };

    fn sample(in_use: u32, waiting: u32) -> Event {
        sampled(&[PodSample { in_use, waiting, open: 8, idle: 0, ..healthy(POD, true) }])
    }

    fn found(events: impl IntoIterator<Item = (u64, Event)>) -> Vec<String> {
        texts(check("counts", &history(events)))
    }

    #[test]
    fn connections_in_use_are_counted() {
        let call = [(2, began(1, Target::Any)), (2, out(1, POD))];
        let with = |sample| call.clone().into_iter().chain([(3, sample)]);
        assert_eq!(found(with(sample(1, 0))), [""; 0]);
        assert_eq!(found(with(sample(0, 0))), ["client 0: pod-0 has 0 connections in use, expected 1 to 2"]);
        assert_eq!(found(with(sample(3, 0))).len(), 1);
    }

    #[test]
    fn a_returned_connection_counts_until_it_is_recycled() {
        let call = [(1, began(1, Target::Any)), (2, out(1, POD)), (3, returned(1)), (3, done(1))];
        let at = |at| call.clone().into_iter().chain([(at, sample(2, 0))]);
        assert_eq!(found(at(3_000)), [""; 0]);
        assert_eq!(found(at(3_200)), ["client 0: pod-0 has 2 connections in use, expected 0 to 1"]);
        let stopped = [(100, paused(true)), (9_000, paused(false)), (9_000, sample(2, 0))];
        assert_eq!(found(call.iter().cloned().chain(stopped)), [""; 0]);
    }

    #[test]
    fn an_overdue_ping_counts_after_its_caller_has_stopped_waiting() {
        let at = |began_at, at| {
            let call = [(began_at, began(1, Target::Any)), (200, failed(1, "pool_timeout", Applied::No))];
            found(call.into_iter().chain([(at, sample(2, 0))]))
        };
        let timeout = Settings::default().probe_timeout.as_millis() as u64;
        assert_eq!(at(199, 200 + timeout), [""; 0]);
        let expected = ["client 0: pod-0 has 2 connections in use, expected 0 to 1"];
        assert_eq!(at(199, 300 + timeout), expected);
        assert_eq!(at(200, 200), expected);
    }

    #[test]
    fn connections_are_counted_by_address() {
        let call = [(1, began(1, Target::Any)), (2, out_at(1, OTHER, address(POD)))];
        let with = |sample| found(call.iter().cloned().chain([(3, sample)]));
        assert_eq!(with(sample(1, 0)), [""; 0]);
        let other = PodSample { address: address(OTHER), ..healthy(POD, true) };
        assert_eq!(with(sampled(&[other])), [""; 0]);
    }

    #[test]
    fn connections_to_a_drained_address_do_not_count() {
        let calls = [(1, began(1, Target::Any)), (1, began(2, Target::Any)), (2, out(1, POD))];
        let drained = [(3, standing(POD, Standing::Drained)), (4, out(2, POD)), (5, sample(1, 0))];
        let mut history = history(calls.into_iter().chain(drained));
        history.plan.settings.pool_size = 8;
        assert_eq!(texts(check("counts", &history)), [""; 0]);
        history.plan.settings.pool_size = 1;
        history.records.retain(|record| !matches!(record.event, Event::Sampled { .. }));
        assert_eq!(texts(check("counts", &history)), [""; 0]);
    }

    #[test]
    fn only_calls_without_a_connection_wait() {
        let call = [(1, began(1, Target::Any))];
        assert_eq!(found(call.clone().into_iter().chain([(2, sample(0, 1))])), [""; 0]);
        let served = call.into_iter().chain([(2, out(1, POD)), (3, sample(1, 1))]);
        assert_eq!(found(served), ["client 0: pod-0 has 1 waiting callers, expected 0 to 0"]);
    }

    #[test]
    fn calls_wait_in_the_queue_of_each_pod() {
        let waits = |at, waiting| found([(1, began(1, Target::Any)), (at, sample(0, waiting))]);
        assert_eq!(waits(101, 0), [""; 0]);
        assert_eq!(waits(102, 1), [""; 0]);
        assert_eq!(waits(102, 0), ["client 0: pod-0 has 0 waiting callers, expected 1 to 1"]);
        assert_eq!(found([(1, began(1, Target::Any)), (102, sample(1, 0))]), [""; 0]);
        assert_eq!(found([(1, began(1, Target::Standby)), (200, sample(0, 0))]), [""; 0]);
        let stopped = [(1, began(1, Target::Any)), (2, paused(true)), (300, paused(false)), (300, sample(0, 0))];
        assert_eq!(found(stopped), [""; 0]);
        let avoided = sampled(&[PodSample { avoided: true, ..healthy(POD, true) }]);
        assert_eq!(found([(1, began(1, Target::Any)), (200, avoided)]), [""; 0]);
        let mut subset = history([(1, began(1, Target::Any)), (200, sample(0, 0))]);
        subset.plan.settings.subset_size = Some(1);
        assert_eq!(texts(check("counts", &subset)), [""; 0]);
    }

    #[test]
    fn limits_are_kept() {
        let over = PodSample { open: 9, idle: 10, ..healthy(POD, true) };
        let expected = [
            "client 0: pod-0 has 9 open connections, expected at most 8",
            "client 0: pod-0 has 10 idle connections, but only 9 open ones",
        ];
        assert_eq!(found([(1, sampled(&[over]))]), expected);
        let mut history = history([(1, sampled(&[healthy(POD, true), healthy(OTHER, true)]))]);
        history.plan.settings.max_connections = Some(1);
        let expected = ["client 0 has 2 open connections, expected at most 1"];
        assert_eq!(texts(check("counts", &history)), expected);
    }

    #[test]
    fn checkouts_do_not_exceed_the_pool_size() {
        let mut history = history([(1, began(1, Target::Any)), (1, began(2, Target::Any)), (2, out(1, POD))]);
        history.plan.settings.pool_size = 1;
        assert_eq!(texts(check("counts", &history)), [""; 0]);
        history.records.push(super::super::history::Record { at: Duration::from_millis(3), event: out(2, POD) });
        let expected = ["2 connections to pod-0 are checked out, of at most 1"];
        assert_eq!(texts(check("counts", &history)), expected);
    }
}
