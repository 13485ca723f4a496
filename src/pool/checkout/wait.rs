//! The slow path of a checkout: the caller waits in the queue until it is handed a connection.
//!
//! A waiter is handed a connection when another caller returns one, when the [opener](crate::pool::opener) has opened
//! one, when an overdue ping ends, or when a newly published view of the Pods lets a Pod with idle connections serve
//! the waiter. A caller that enters the queue also hands the connections that are idle at that time to the oldest
//! waiters. If the connection turns out to be unusable, the caller enters the queue again at its old position.

use std::sync::Arc;

use super::error;
use crate::{
    balance::{Rng, select},
    endpoint::snapshot::Candidate,
    error::{Error, Phase},
    pool::{
        inner::Inner,
        pod::{
            Pod,
            client::Client,
            requirement::{self, Requirement},
            view::View,
            wait_queue::{Waiting, Wake},
        },
    },
    time::Instant,
};

/// The wait of one caller, during which the caller may enter the queue several times.
pub(crate) struct Wait {
    pub(crate) requirement: Requirement,
    pub(crate) started: Instant,
    pub(crate) deadline: Instant,
    /// The ticket from the first entry into the queue. The caller enters again with this ticket to keep its position.
    pub(crate) ticket: Option<u64>,
    /// True after a ping for this caller was overdue. The caller then takes no idle connections of Pods with an overdue
    /// ping. If the response arrives, the pinged connection is handed to a waiter.
    pub(crate) avoid_pending_pings: bool,
}

impl Inner {
    /// Waits in the queue for a connection.
    pub(crate) async fn queue(&self, wait: &mut Wait) -> Result<Client, Error> {
        let shared = &self.shared;
        loop {
            let mut waiting = shared.waiters.enter(wait.requirement, wait.ticket);
            wait.ticket = Some(waiting.ticket());
            // Called only after the caller has entered the queue; see "Orderings" in `wait_queue`.
            self.with_view(|view, rng, rest| self.announce(view, rng, rest, wait, &mut waiting))?;
            let wake = tokio::select! {
                biased;
                wake = waiting.woken() => wake,
                // Checks for a connection once more, because one may have been handed over just before the deadline.
                () = shared.alarms.at(wait.deadline) => waiting.try_woken().unwrap_or(Wake::Reevaluate),
            };
            match wake {
                Wake::Connection(client) => return Ok(client),
                Wake::Reevaluate => {}
            }
        }
    }

    /// Announces a caller that has entered the queue to the Pods that can serve it, and hands idle connections of these
    /// Pods to the oldest waiters. Returns an error if the caller must not wait any longer.
    fn announce(
        &self,
        view: &View,
        rng: &mut Rng,
        rest: &mut Vec<Candidate>,
        wait: &Wait,
        waiting: &mut Waiting<'_, Client>,
    ) -> Result<(), Error> {
        let (shared, now) = (&self.shared, Instant::now());
        let failed = |error: Error| error.with_elapsed(now - wait.started);
        if let Some(error) = error::fail_early(view, wait.requirement, shared, now) {
            return Err(failed(error));
        }
        if now >= wait.deadline {
            shared.counters.timed_out.increment(Phase::Wait);
            return Err(failed(error::cannot_succeed(view, wait.requirement, shared)));
        }
        let target = wait.requirement.target().index();
        let candidates = view.snapshot.candidates(target);
        for candidate in candidates {
            view.snapshot.slots().slot(candidate.slot).set_has_waiters();
        }
        // The following runs only after the slots' flags have been set; see "Orderings" in `endpoint::slot`.
        let pods = || candidates.iter().map(|candidate| view.snapshot.pod(*candidate));
        // The policy chooses the Pod for this caller: if round trips are longer than a ping may take, most callers come
        // here, and the first Pod of the list would serve all of them. The rest serve other waiters, in any order.
        let is_free = |pod: &Pod| pod.has_idle() && !pod.has_pending_ping();
        if pods().any(|pod| is_free(pod)) {
            let take = |pod: &Arc<Pod>| {
                if is_free(pod) {
                    shared.waiters.serve(&pod.slot, || pod.try_take());
                }
                waiting.is_woken().then_some(())
            };
            select(&view.snapshot, target, &self.chooser, rng, rest, take, |_| {});
        }
        let serve = |pending_ping: bool| {
            for pod in pods().filter(|pod| pod.has_idle() && pod.has_pending_ping() == pending_ping) {
                shared.waiters.serve(&pod.slot, || pod.try_take());
            }
        };
        serve(false);
        if !wait.avoid_pending_pings && !waiting.is_woken() {
            serve(true);
        }
        Ok(())
    }

    /// Hands idle connections to waiters after a new view was published, because the set of Pods that can serve them
    /// may have changed.
    pub(crate) fn serve_waiters(&self, view: &View) {
        for (_, pod) in view.snapshot.pods() {
            Self::serve_waiters_of(pod);
        }
    }

    /// Hands idle connections of a Pod to waiters after the set of waiters that the Pod can serve may have changed.
    pub(crate) fn serve_waiters_of(pod: &Pod) {
        let waiters = &pod.shared().waiters;
        // Reads the mask of waiting classes under the queue's lock; see "Orderings" in `wait_queue`.
        if requirement::serves(&pod.slot, waiters.waiting_for(requirement::ALL_BITS)) {
            pod.slot.set_has_waiters();
            waiters.serve(&pod.slot, || pod.try_take());
            // A waiter that has found no idle connection needs a new one. The Pod may not have served it before.
            waiters.wake_opener();
        }
    }
}
