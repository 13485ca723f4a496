//! The list of a Pod's open connections: for statistics, cancel requests and forced closing.
//!
//! A connection is added when it is opened. Entries of ended connections stay until the next connection is added; their
//! counts then move to `ended`.

use super::conn::ConnHandle;
use crate::{
    health::latency::Work,
    sync::{Mutex, lock},
    wire::CancelToken,
};

/// The open connections of one Pod.
#[derive(Debug, Default)]
pub(crate) struct OpenConnections(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    handles: Vec<ConnHandle>,
    /// Counts of the connections that were removed from `handles`.
    ended: Totals,
}

/// Sums over all connections of a Pod, ended ones included.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    /// Answered requests.
    pub(crate) work: Work,
    /// The part of `work` from callers whose target is `any`.
    pub(crate) any: Work,
    /// The part of `work` that failed through the server's own fault.
    pub(crate) failed: u64,
    /// Socket reads that returned at least one byte.
    pub(crate) reads: u64,
}

/// The state of the requests on a Pod's open connections.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Activity {
    /// True if at least one connection waits for a response.
    pub(crate) outstanding: bool,
    /// The longest current run, on one connection, of failures through the server's own fault.
    pub(crate) failure_run: u32,
}

impl Totals {
    fn add(&mut self, handle: &ConnHandle) {
        self.work.add(handle.record.answered());
        self.any.add(handle.record.answered_any());
        self.failed += handle.record.failed().0;
        self.reads += handle.record.reads();
    }
}

impl OpenConnections {
    /// Adds a new connection, and removes the ended ones.
    pub(crate) fn add(&self, handle: ConnHandle) {
        let State { handles, ended } = &mut *lock(&self.0);
        handles.retain(|handle| {
            let has_ended = handle.record.has_ended();
            if has_ended {
                ended.add(handle);
            }
            !has_ended
        });
        handles.push(handle);
    }

    /// Returns the sums over all connections, ended ones included.
    pub(crate) fn totals(&self) -> Totals {
        let state = lock(&self.0);
        let mut totals = state.ended;
        state.handles.iter().for_each(|handle| totals.add(handle));
        totals
    }

    /// Returns the state of the requests on the connections that have not ended.
    pub(crate) fn activity(&self) -> Activity {
        let state = lock(&self.0);
        let live = state.handles.iter().filter(|handle| !handle.record.has_ended());
        live.fold(Activity::default(), |Activity { outstanding, failure_run }, handle| Activity {
            outstanding: outstanding || handle.record.outstanding() > 0,
            failure_run: failure_run.max(handle.record.failed().1),
        })
    }

    /// Returns a cancel token for each connection that waits for a response.
    pub(crate) fn cancel_tokens(&self) -> Vec<CancelToken> {
        lock(&self.0).handles.iter().filter_map(ConnHandle::cancel_token_if_busy).collect()
    }

    /// Closes the sockets of all connections, checked out or not. Returns how many of them were in use; the pool had
    /// already released the others, whose drivers were sending Terminate.
    pub(crate) fn abort_all(&self) -> usize {
        let state = lock(&self.0);
        let live = state.handles.iter().filter(|handle| !handle.record.has_ended());
        live.inspect(|handle| handle.abort()).filter(|handle| !handle.record.is_released()).count()
    }
}
