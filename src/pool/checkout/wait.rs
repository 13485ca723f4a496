//! The slow path of a checkout: a caller in the wait queue looks for an idle connection, has connections opened, and
//! sleeps until one is handed over or its candidates must be re-evaluated.

use tokio::select;

use super::{error, try_idle::PendingPings};
use crate::{
    balance::{Candidates, Rng},
    config::Target,
    endpoint::snapshot::Candidate,
    error::{Error, Phase},
    pool::{
        inner::Inner,
        pod::{client::Client, connect, view::View},
    },
    sync::lock,
    time::Instant,
};

/// The result of one evaluation of the candidates.
enum Look {
    /// A connection was taken.
    Found(Client),
    /// The checkout fails, because waiting longer cannot help or the deadline has passed.
    Failed(Error),
    /// No Pod can serve the target.
    NoCandidate,
    /// No connection is idle. If all Pods with room are in back-off, this is the end of the first back-off.
    Busy(Option<Instant>),
}

impl Inner {
    /// Waits in the queue for a connection. A caller that has waited before (`again`) joins at the head.
    pub(crate) async fn queue(
        &self,
        target: Target,
        started: Instant,
        deadline: Instant,
        again: bool,
        pending_pings: PendingPings,
    ) -> Result<Client, Error> {
        let shared = &self.shared;
        let mut waiter = shared.waiters.enter(target, deadline, again);
        let mut urgent = None;
        let mut now = if again { Instant::now() } else { started };
        loop {
            let look = self
                .with_view(|view, rng, scratch| self.look(view, target, pending_pings, now, deadline, rng, scratch));
            let look_again = match look {
                Look::Found(client) => return Ok(client),
                Look::Failed(error) => return Err(error.with_elapsed(now - started)),
                Look::NoCandidate => {
                    if urgent.is_none() {
                        urgent = Some(shared.urgent_probing.begin(now));
                    }
                    None
                }
                Look::Busy(look_again) => {
                    urgent = None;
                    look_again
                }
            };
            let handed_over = if look_again.is_none() && waiter.is_reminded(now) {
                // Most waiters are served long before their deadlines, and a timer has a cost.
                waiter.woken().await
            } else {
                let until = look_again.map_or(deadline, |at| at.min(deadline));
                select! {
                    biased;
                    client = waiter.woken() => client,
                    // A connection may have been handed over just as the time was up.
                    () = self.sleep_until(until) => waiter.take(),
                }
            };
            if let Some(client) = handed_over {
                return Ok(client);
            }
            now = Instant::now();
        }
    }

    /// Evaluates the candidates once.
    #[allow(clippy::too_many_arguments, reason = "the state of one waiter")]
    fn look(
        &self,
        view: &View,
        target: Target,
        pending_pings: PendingPings,
        now: Instant,
        deadline: Instant,
        rng: &mut Rng,
        scratch: &mut Vec<Candidate>,
    ) -> Look {
        let shared = &self.shared;
        if let Some(error) = error::fail_early(view, target, shared, now) {
            return Look::Failed(error);
        }
        if now >= deadline {
            shared.counters.timed_out.increment(Phase::Wait);
            return Look::Failed(error::timed_out(view, target, shared));
        }
        let candidates = view.snapshot.candidates(target.index());
        for candidate in candidates {
            view.snapshot.slots().slot(candidate.slot).set_has_waiters();
        }
        // After `set_has_waiters`; see the orderings of `endpoint::slot`. In most cases nothing is idle, and this check
        // saves the choice among the candidates.
        let any_idle = candidates.iter().any(|candidate| view.snapshot.pod(*candidate).has_idle());
        if any_idle && let Some(client) = self.take_idle(view, target, pending_pings, rng, scratch, |_| {}) {
            return Look::Found(client);
        }
        if candidates.is_empty() {
            return Look::NoCandidate;
        }
        Look::Busy(self.open_for(view, candidates, pending_pings, now, rng))
    }

    /// Has a connection opened if fewer are being opened than callers wait for one of these Pods. Returns the end of
    /// the first back-off if all Pods with room are in back-off.
    fn open_for(
        &self,
        view: &View,
        candidates: &[Candidate],
        pending_pings: PendingPings,
        now: Instant,
        rng: &mut Rng,
    ) -> Option<Instant> {
        let pod = |candidate: &Candidate| view.snapshot.pod(*candidate);
        if !candidates.iter().any(|candidate| pod(candidate).has_permit()) {
            return None;
        }
        let responsive = |candidate: &&Candidate| !pod(candidate).has_pending_ping();
        let opening: usize =
            candidates.iter().filter(responsive).map(|candidate| pod(candidate).opening_unless_slow()).sum();
        let serves = |target: Target| candidates.iter().any(|candidate| pod(candidate).slot.serves(target.bit()));
        if opening >= self.shared.waiters.count(serves) {
            return None;
        }
        let mut again = None;
        let mut open: Vec<_> = candidates.iter().copied().filter(|candidate| pod(candidate).has_permit()).collect();
        open.retain(|candidate| match lock(&pod(candidate).last_failure).not_before(now) {
            Some(at) => {
                again = Some(again.map_or(at, |earlier: Instant| earlier.min(at)));
                false
            }
            None => true,
        });
        if open.iter().any(|candidate| responsive(&candidate)) {
            open.retain(|candidate| responsive(&candidate));
        } else if let PendingPings::Avoid { open_after } = pending_pings
            && open_after > now
            && !open.is_empty()
        {
            return Some(again.map_or(open_after, |again: Instant| again.min(open_after)));
        }
        while !open.is_empty() {
            let picked = self.chooser.pick(&Candidates::new(&view.snapshot, &open), rng)?;
            if connect::open(pod(&open.swap_remove(picked))) {
                return None;
            }
        }
        again
    }
}
