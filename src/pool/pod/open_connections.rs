//! The list of a Pod's open connections, used for statistics, cancel requests and forced closing.
//!
//! A connection is added when it is opened. A connection that has ended stays in the list until the next one is added.
//! It is then removed, and its counts are added to `ended`.

use super::{
    conn::{ConnHandle, Reason},
    view::PodHealth,
};
use crate::{
    endpoint::slot::Slot,
    health::latency::Work,
    pool::owned::Owned,
    sync::{Mutex, lock},
    wire::CancelToken,
};

/// The open connections of one Pod.
#[derive(Debug, Default)]
pub(crate) struct OpenConnections(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    handles: Vec<ConnHandle>,
    /// Sums over the connections that were removed from `handles`.
    ended: Totals,
}

/// Sums over all connections of a Pod, including ended ones.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    /// Number of answered requests.
    pub(crate) answered: u64,
    /// Answered requests, without the first requests of each connection.
    pub(crate) work: Work,
    /// The part of `work` that was sent by callers whose target is `any`.
    pub(crate) any: Work,
    /// Number of requests in `answered` whose failure was the server's fault.
    pub(crate) failed: u64,
    /// Number of socket reads that returned at least one byte.
    pub(crate) reads: u64,
}

/// The state of the requests on a Pod's open connections.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Activity {
    /// True if at least one connection is waiting for a response.
    pub(crate) outstanding: bool,
    /// Longest current run of consecutive requests on one connection whose failure was the server's fault.
    pub(crate) failure_run: u32,
}

impl Totals {
    fn add(&mut self, handle: &ConnHandle) {
        self.answered += handle.record.answered();
        self.work.add(handle.record.warm());
        self.any.add(handle.record.warm_any());
        self.failed += handle.record.failed().0;
        self.reads += handle.record.reads();
    }
}

impl State {
    /// Returns the open connections that belong to the application, or that several callers share.
    fn owned(&self) -> impl Iterator<Item = (&ConnHandle, &Owned)> {
        let live = self.handles.iter().filter(|handle| !handle.record.has_ended());
        live.filter_map(|handle| Some((handle, handle.owned.as_deref()?)))
    }
}

impl OpenConnections {
    /// Adds a new connection, and removes connections that have ended.
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

    /// Empties the list after the pool was dropped. Does not close the connections: those in use are closed when they
    /// are returned.
    pub(crate) fn clear(&self) {
        let handles = {
            let State { handles, ended } = &mut *lock(&self.0);
            handles.iter().for_each(|handle| ended.add(handle));
            std::mem::take(handles)
        };
        drop(handles);
    }

    /// Returns true if a connection is open, in use or not.
    pub(crate) fn has_live(&self) -> bool {
        lock(&self.0).handles.iter().any(|handle| !handle.record.has_ended())
    }

    /// Returns the sums over all connections, including ended ones.
    pub(crate) fn totals(&self) -> Totals {
        let state = lock(&self.0);
        let mut totals = state.ended;
        state.handles.iter().for_each(|handle| totals.add(handle));
        totals
    }

    /// Returns the state of the callers' requests on the connections that have not ended.
    pub(crate) fn activity(&self) -> Activity {
        let state = lock(&self.0);
        let is_live = |handle: &&ConnHandle| !handle.record.has_ended() && !handle.record.is_probing();
        let live = state.handles.iter().filter(is_live);
        live.fold(Activity::default(), |Activity { outstanding, failure_run }, handle| Activity {
            outstanding: outstanding || handle.record.outstanding() > 0,
            failure_run: failure_run.max(handle.record.failed().1),
        })
    }

    /// Returns true if an idle connection may have to be closed because a connection has ended, has expired, or was
    /// unused for longer than `idle_timeout`. Times are in milliseconds of the pool's clock.
    pub(crate) fn may_need_reaping(&self, now: u64, idle_timeout: u64) -> bool {
        let mut state = lock(&self.0);
        // `fold` instead of `any`, which would stop at the first match: `unused_for` must be called for every
        // connection.
        state.handles.iter_mut().fold(false, |found, handle| {
            if handle.owned.is_some() {
                return found;
            }
            let unused_for = handle.unused_for(now);
            found || handle.record.has_ended() || now >= handle.expires_at || unused_for > idle_timeout
        })
    }

    /// Returns a cancel token for each connection that is in use or waiting for a response.
    pub(crate) fn cancel_tokens(&self) -> Vec<CancelToken> {
        lock(&self.0).handles.iter().filter_map(ConnHandle::cancel_token_if_in_use).collect()
    }

    /// Returns the number of connections that belong to the application.
    pub(crate) fn owned(&self) -> usize {
        lock(&self.0).owned().filter(|(_, owned)| !owned.is_shared()).count()
    }

    /// Closes the connections that belong to the application immediately, because the Pod was ejected or fenced. Closes
    /// those that are shared as soon as they are clean, like those that are checked out: no further statement is sent.
    pub(crate) fn abort_owned(&self) {
        for (handle, owned) in lock(&self.0).owned() {
            if owned.is_shared() {
                owned.close_when_clean(Reason::Ejected);
            } else {
                owned.set_reason(Reason::Ejected);
                handle.abort();
            }
        }
    }

    /// Closes the connections that belong to the application or are shared as soon as they are clean, because the Pod
    /// is drained or the pool has ended.
    pub(crate) fn drain_owned(&self) {
        lock(&self.0).owned().for_each(|(_, owned)| owned.close_when_clean(Reason::Drained));
    }

    /// Closes the connections that belong to the application and whose target the Pod no longer serves, as soon as they
    /// are clean.
    pub(crate) fn review_owned(&self, health: &PodHealth, slot: &Slot) {
        let state = lock(&self.0);
        let unfit = state.owned().filter(|(_, owned)| owned.is_unfit(health, slot));
        unfit.for_each(|(_, owned)| owned.close_when_clean(Reason::Discarded));
    }

    /// Closes the sockets of all connections, whether checked out or not. Returns the number of connections that the
    /// pool had not released yet. A released connection is not counted, because its driver was already sending
    /// Terminate.
    pub(crate) fn abort_all(&self) -> usize {
        let state = lock(&self.0);
        let live = state.handles.iter().filter(|handle| !handle.record.has_ended());
        live.inspect(|handle| handle.abort()).filter(|handle| !handle.record.is_released()).count()
    }
}
