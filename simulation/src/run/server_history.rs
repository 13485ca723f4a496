//! The records of the servers: commits, reads, the states of sessions, and the rows at the end.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use super::{pods, recorder::Recorder};
use crate::{
    postgres::{self, Arrival, Server, Write},
    properties::{CallId, Confirmation, Event, Record},
};

/// Returns the number of the call in the comment of a statement.
fn call(comment: &str) -> Option<CallId> {
    comment.strip_prefix("call ")?.parse().ok().map(CallId)
}

/// The records of the servers.
pub(super) struct ServerHistory<'a> {
    pub(super) recorder: &'a Recorder,
    pub(super) history: &'a postgres::History,
    /// The ids on the last primary, with their numbers of rows.
    pub(super) rows: &'a Option<BTreeMap<i64, u32>>,
}

impl ServerHistory<'_> {
    fn since_start(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.recorder.started())
    }

    /// Returns the commits.
    pub(super) fn commits(&self) -> Vec<Record> {
        let mut records = Vec::new();
        for write in self.history.writes() {
            let Some(pod) = pods::ordinal(&write.server) else { continue };
            let at = self.since_start(write.committed);
            let confirmed = match (write.confirmation, write.acknowledged) {
                (postgres::Confirmation::Synchronous, _) => Confirmation::Synchronous,
                (postgres::Confirmation::None, _) | (_, None) => Confirmation::None,
                (postgres::Confirmation::Local | postgres::Confirmation::Cancelled, Some(_)) => Confirmation::Local,
            };
            let on = self.recorder.instance_at(pod, at);
            let commit = |id: &i64| Record { at, event: Event::Committed { id: *id, on, confirmed } };
            records.extend(write.ids.iter().map(commit));
        }
        records
    }

    /// Returns the reads, each with the time since which it lacks an acknowledged commit that survives.
    pub(super) fn reads(&self) -> Vec<Record> {
        let survives =
            |write: &&Write| self.rows.as_ref().is_some_and(|rows| write.ids.iter().all(|id| rows.contains_key(id)));
        let writes = self.history.writes();
        let mut writes: Vec<_> = writes.iter().filter(survives).collect();
        writes.sort_by_key(|write| (write.timeline, write.position));
        // For each write, the earliest acknowledgement of it and all later ones.
        let mut earliest = vec![None; writes.len()];
        let mut next: Option<Instant> = None;
        for (index, write) in writes.iter().enumerate().rev() {
            next = [next, write.acknowledged].into_iter().flatten().min();
            earliest[index] = next;
        }
        let mut records = Vec::new();
        for read in self.history.reads() {
            let Some(call) = read.comment.as_deref().and_then(call) else { continue };
            let Some(pod) = pods::ordinal(&read.server) else { continue };
            let is_visible = |write: &&Write| write.timeline <= read.timeline && write.position <= read.position;
            let first = writes.partition_point(is_visible);
            let lacks = earliest.get(first).copied().flatten().filter(|acknowledged| *acknowledged <= read.at);
            let at = self.since_start(read.at);
            let on = self.recorder.instance_at(pod, at);
            let lacks_since = lacks.map(|acknowledged| self.since_start(acknowledged));
            records.push(Record { at, event: Event::Read { call, on, lacks_since } });
        }
        records
    }

    /// Adds the states of the sessions to the checkouts: the state before the first statement of the call.
    pub(super) fn add_sessions(&self, records: &mut [Record]) {
        let mut arrivals: BTreeMap<CallId, Vec<Arrival>> = BTreeMap::new();
        for arrival in self.history.arrivals() {
            if let Some(call) = call(&arrival.comment) {
                arrivals.entry(call).or_default().push(arrival);
            }
        }
        let mut returns: BTreeMap<CallId, Vec<Duration>> = BTreeMap::new();
        for record in &*records {
            if let Event::Returned { call } = record.event {
                returns.entry(call).or_default().push(record.at);
            }
        }
        for Record { at, event } in records {
            let Event::CheckedOut { call, on, session, .. } = event else { continue };
            // A later attempt of the call uses another session.
            let returned = returns.get(call).into_iter().flatten().find(|returned| *returned >= at);
            let held = |arrival: &&Arrival| {
                let arrived = self.since_start(arrival.at);
                // A statement of the next attempt may arrive at the instant of the return.
                arrived >= *at && returned.is_none_or(|returned| arrived < *returned)
            };
            let arrived = arrivals.get(call).into_iter().flatten();
            let mut first = arrived.filter(|arrival| pods::ordinal(&arrival.server) == Some(on.pod));
            let Some(first) = first.find(held) else { continue };
            session.in_transaction = first.in_transaction;
            session.in_copy = first.in_copy;
            session.is_running = first.busy_until.is_some_and(|until| self.since_start(until) > *at);
            session.marker = first.marker.as_deref().and_then(|marker| marker.parse().ok()).map(CallId);
        }
    }
}

/// Returns the ids in the table of a server, with the number of rows of each.
pub(super) fn rows(server: &Server) -> BTreeMap<i64, u32> {
    let log = server.log();
    let mut rows = BTreeMap::new();
    for id in log.ids(log.end()) {
        *rows.entry(id).or_default() += 1;
    }
    rows
}
