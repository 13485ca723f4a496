//! Short forms of records, for the tests of the properties.

use std::{net::SocketAddr, time::Duration};

use super::{
    history::{
        Applied, CallId, Confirmation, Event, History, Instance, Outcome, PodSample, Record, Role, Session, Standing,
    },
    violation::Violation,
};
use crate::adversary::{Target, Work};

pub(super) const POD: Instance = Instance { pod: 0, incarnation: 0 };
pub(super) const OTHER: Instance = Instance { pod: 1, incarnation: 0 };

pub(super) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Returns the address of a Pod.
pub(super) fn address(on: Instance) -> SocketAddr {
    ([10, 0, on.incarnation as u8, on.pod as u8], 5432).into()
}

/// Creates a history of the default plan. The times are in milliseconds.
pub(super) fn history(events: impl IntoIterator<Item = (u64, Event)>) -> History {
    let records: Vec<_> = events.into_iter().map(|(at, event)| Record { at: ms(at), event }).collect();
    let end = records.last().map_or(Duration::ZERO, |record| record.at);
    History { end, records, ..History::default() }
}

/// Returns the texts of the violations.
pub(super) fn texts(violations: Vec<Violation>) -> Vec<String> {
    violations.into_iter().map(|violation| violation.text).collect()
}

pub(super) fn began(call: u64, target: Target) -> Event {
    Event::Began { call: CallId(call), client: 0, caller: 0, work: Work::Checkout, target, ids: Vec::new() }
}

pub(super) fn insert(call: u64, ids: &[i64]) -> Event {
    let (client, caller, target) = (0, 0, Target::Primary);
    Event::Began { call: CallId(call), client, caller, work: Work::Insert, target, ids: ids.to_vec() }
}

pub(super) fn out(call: u64, on: Instance) -> Event {
    out_at(call, on, address(on))
}

pub(super) fn out_at(call: u64, on: Instance, address: SocketAddr) -> Event {
    Event::CheckedOut { call: CallId(call), on, address, role: None, session: Session::default() }
}

pub(super) fn out_as(call: u64, on: Instance, role: Role) -> Event {
    Event::CheckedOut { call: CallId(call), on, address: address(on), role: Some(role), session: Session::default() }
}

pub(super) fn out_with(call: u64, session: Session) -> Event {
    Event::CheckedOut { call: CallId(call), on: POD, address: address(POD), role: None, session }
}

pub(super) fn returned(call: u64) -> Event {
    Event::Returned { call: CallId(call) }
}

pub(super) fn done(call: u64) -> Event {
    Event::Ended { call: CallId(call), outcome: Outcome::Done }
}

pub(super) fn failed(call: u64, kind: &str, applied: Applied) -> Event {
    Event::Ended { call: CallId(call), outcome: Outcome::Failed { kind: kind.to_owned(), applied } }
}

pub(super) fn committed(id: i64, on: Instance, confirmed: Confirmation) -> Event {
    Event::Committed { id, on, confirmed }
}

pub(super) fn role(on: Instance, role: Role) -> Event {
    Event::Role { on, role: Some(role) }
}

pub(super) fn down(on: Instance) -> Event {
    Event::Role { on, role: None }
}

pub(super) fn standing(on: Instance, standing: Standing) -> Event {
    Event::Standing { client: 0, address: address(on), standing }
}

pub(super) fn health(on: Instance, healthy: bool) -> Event {
    Event::Health { client: 0, address: address(on), healthy }
}

pub(super) fn fenced(on: Instance, fenced: bool) -> Event {
    Event::Fenced { client: 0, on, fenced }
}

pub(super) fn paused(paused: bool) -> Event {
    Event::Paused { client: 0, paused }
}

pub(super) fn resolved(pods: &[Instance]) -> Event {
    let addresses = pods.iter().copied().map(address).collect();
    Event::Resolved { client: 0, pods: pods.iter().copied().collect(), addresses }
}

pub(super) fn sampled(pods: &[PodSample]) -> Event {
    Event::Sampled { client: 0, pods: pods.to_vec() }
}

/// The sample of a healthy Pod with one idle connection.
pub(super) fn healthy(on: Instance, standby: bool) -> PodSample {
    PodSample {
        on,
        address: address(on),
        alternatives: 0,
        healthy: true,
        usable: true,
        avoided: false,
        standby: Some(standby),
        timeline: Some(1),
        server_timeline: Some(1),
        open: 1,
        idle: 1,
        in_use: 0,
        waiting: 0,
        sessions: Some(1),
    }
}
