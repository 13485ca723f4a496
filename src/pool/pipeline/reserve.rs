//! Finds a place for a statement: on a shared connection of the Pod that the policy picks, else on one of another Pod
//! that fits. If there is none, the statement waits in the [queue](super::queue), and a connection is opened if one is
//! missing.

use std::{cell::Cell, sync::Arc};

use tokio::select;

use super::{
    connection::SharedConnection,
    open,
    place::{Opening, Place},
    queue::{Lead, Waiting, Wake},
};
use crate::{
    balance::select,
    error::{Error, Phase},
    pool::{
        checkout::{
            abandoned::Unended,
            error::{cannot_succeed, fail_early},
        },
        inner::Inner,
        pod::{Pod, conn::Permit, requirement::Requirement, shared::count, view::View},
    },
    sync::lock,
    time::{Duration, Instant},
};

/// Time that a caller waits after a permit before it asks for another one. A permit that it cannot use may be available
/// again immediately.
const BETWEEN_PERMITS: Duration = Duration::from_millis(10);

/// One in so many of the callers that wait behind others looks for a place and for a connection itself.
const LOOKS_AGAIN: u64 = 16;

impl Inner {
    /// Reserves a place for a statement, and waits for it until the deadline.
    pub(super) async fn reserve(
        self: &Arc<Self>,
        requested: Requirement,
        deadline: Instant,
        now: Instant,
    ) -> Result<Place, Error> {
        self.shared.request_target(requested.target());
        let requirement = if requested.step().is_some() { self.with_fallback(requested) } else { requested };
        if self.queue.waiting() & requirement.bit() == 0
            && let Some(place) = self.try_reserve(requirement, now)
        {
            return Ok(place);
        }
        Box::pin(self.reserve_slowly(requested, deadline)).await
    }

    /// Reserves a place if one is free. Opens a connection to the Pod that was picked first if it has none.
    fn try_reserve(self: &Arc<Self>, requirement: Requirement, now: Instant) -> Option<Place> {
        let target = requirement.target();
        let wanted = self.shared.limits.shared_connections;
        let mut unserved: Option<Arc<Pod>> = None;
        let place = self.with_view(|View { snapshot, .. }, rng, scratch| {
            let any_pending = Cell::new(false);
            let mut find = |is_pinged: bool| {
                let take = |pod: &Arc<Pod>| {
                    if pod.slot.is_closed() || !requirement.is_within_limit(&pod.slot) {
                        return None;
                    }
                    if pod.has_pending_ping() != is_pinged {
                        any_pending.set(true);
                        return None;
                    }
                    let fits = |record: &_| self.fits(record, target);
                    let place = pod.shared_connections.reserve(wanted, now, |shared| fits(&shared.record))?;
                    Some((pod.clone(), place))
                };
                select(snapshot, target.index(), &self.chooser, rng, scratch, take, |pod| {
                    unserved = Some(pod.clone());
                })
            };
            // A Pod on which a caller of `get` waits for the response to a ping is only the second choice.
            let place = find(false);
            if place.is_none() && any_pending.get() { find(true) } else { place }
        });
        if let Some(pod) = unserved {
            self.open_if_needed(&pod, now);
        }
        place.map(|(pod, (connection, reserved))| Place::new(self.clone(), pod, connection, reserved))
    }

    /// Opens a connection to a Pod if it needs another one and the limits permit it.
    fn open_if_needed(self: &Arc<Self>, pod: &Arc<Pod>, now: Instant) -> bool {
        // A shared connection serves many callers, so it does not wait for those of `get`.
        let is_unavailable =
            pod.has_pending_ping() || pod.slot.is_closed() || lock(&pod.last_failure).not_before(now).is_some();
        if is_unavailable || !pod.shared_connections.needs_another(&self.shared.limits, now) {
            return false;
        }
        // Taken before the connection counts, so that no caller waits for one that is not opened.
        let Some(permit) = Permit::take(pod) else { return false };
        let Some(opening) = Opening::begin(pod) else { return false };
        open::start(self, permit, opening);
        true
    }

    /// Opens a connection to one of the Pods that fulfill a requirement. Returns true if one of them has a connection
    /// that serves, or if one is being opened.
    fn open_for(self: &Arc<Self>, requirement: Requirement) -> bool {
        let mut candidates = Vec::new();
        let is_served = self.with_view(|View { snapshot, .. }, _, _| {
            let list = snapshot.candidates(requirement.target().index());
            let pods = list.iter().map(|candidate| snapshot.pod(*candidate));
            let pods = pods.filter(|pod| !pod.slot.is_closed() && requirement.is_within_limit(&pod.slot));
            let is_served = pods.clone().any(|pod| pod.shared_connections.is_served());
            if !is_served {
                candidates.extend(pods.cloned());
            }
            is_served
        });
        let now = Instant::now();
        is_served || candidates.iter().any(|pod| self.open_if_needed(pod, now))
    }

    async fn reserve_slowly(self: &Arc<Self>, requested: Requirement, deadline: Instant) -> Result<Place, Error> {
        count(&self.shared.counters.waits);
        let unended = Unended::new(&self.shared, Phase::Wait);
        let result = self.wait_for_place(requested, deadline).await;
        unended.end();
        result.map_err(|error| error.of_pool(self.shared.name()))
    }

    async fn wait_for_place(self: &Arc<Self>, requested: Requirement, deadline: Instant) -> Result<Place, Error> {
        let started = Instant::now();
        let (mut ticket, mut lead, mut not_before) = (None, None, started);
        loop {
            let requirement = if requested.step().is_some() { self.with_fallback(requested) } else { requested };
            if lead.as_ref().is_some_and(|lead: &Lead<'_, Place>| !lead.is_of(requirement)) {
                lead = None;
            }
            let is_new = ticket.is_none();
            let mut waiting = self.queue.enter(requirement, ticket);
            ticket = Some(waiting.ticket);
            // Those before it have looked for a place and for a connection. Some look again, because the time alone can
            // change the result: a standby catches up, or a Pod may be dialled again.
            let follows = is_new && waiting.follows && !waiting.ticket.is_multiple_of(LOOKS_AGAIN);
            let is_served = follows || {
                self.serve_shared();
                self.open_for(requirement)
            };
            let now = Instant::now();
            if let Some(error) = fail_early(&self.published.load(), requirement, &self.shared, now) {
                return Err(error.with_elapsed(now - started));
            }
            if is_served {
                drop(lead.take());
            } else if lead.is_none() {
                lead = self.queue.lead(requirement);
            }
            let next = if lead.is_some() {
                Box::pin(self.wait_as_leader(&mut waiting, requirement, not_before, deadline)).await
            } else {
                select! {
                    biased;
                    wake = waiting.woken() => Some(Ok(Next::Woken(wake))),
                    () = self.shared.alarms.at(deadline) => None,
                }
            };
            match next {
                Some(Ok(Next::Woken(Wake::Reserved(place)))) => return Ok(place),
                Some(Ok(Next::Permit(Some(permit)))) => {
                    let opening = Opening::begin(&permit);
                    match opening {
                        Some(opening) => open::start(self, permit, opening),
                        None => drop(permit), // another caller opens a connection
                    }
                    not_before = Instant::now() + BETWEEN_PERMITS;
                }
                Some(Ok(Next::Permit(None))) if Instant::now() < deadline => {
                    not_before = Instant::now() + BETWEEN_PERMITS;
                }
                Some(Ok(Next::Woken(Wake::Reevaluate))) if Instant::now() < deadline => {}
                Some(Err(error)) => return Err(error.with_elapsed(started.elapsed())),
                Some(Ok(_)) | None => {
                    self.shared.counters.timed_out.increment(Phase::Wait);
                    let error = cannot_succeed(&self.published.load(), requirement, &self.shared);
                    return Err(error.with_elapsed(started.elapsed()));
                }
            }
        }
    }

    /// Waits for a place, and for the permit to open a connection. Returns `None` if there was neither by the deadline.
    async fn wait_as_leader(
        &self,
        waiting: &mut Waiting<'_, Place>,
        requirement: Requirement,
        not_before: Instant,
        deadline: Instant,
    ) -> Option<Result<Next, Error>> {
        let permit = async {
            self.shared.alarms.at(not_before).await;
            // Waits like `get` until a Pod serves the target and permits another connection.
            self.wait_for_permit(requirement, deadline).await
        };
        let next = async {
            select! {
                biased;
                wake = waiting.woken() => Ok(Next::Woken(wake)),
                permit = permit => permit.map(Next::Permit),
            }
        };
        self.within(deadline, next).await
    }

    /// Hands free places to the statements that wait.
    #[inline]
    pub(crate) fn serve_shared(self: &Arc<Self>) {
        if self.queue.waiting() != 0 {
            let now = Instant::now();
            self.queue.serve(usize::MAX, |requirement| self.try_reserve(requirement, now));
        }
    }

    /// Hands the place of a statement that has ended on this connection to a statement that waits.
    #[inline]
    pub(super) fn serve_one_shared(self: &Arc<Self>, pod: &Arc<Pod>, connection: &Arc<SharedConnection>, now: Instant) {
        if self.queue.waiting() == 0 {
            return;
        }
        let is_served = self.queue.serve_oldest(|requirement| self.try_reserve_on(pod, connection, requirement, now));
        if !is_served {
            self.queue.serve(1, |requirement| self.try_reserve(requirement, now));
        }
    }

    /// Reserves a place on a connection, if it serves the requirement and its Pod would not be only the second choice.
    /// While statements wait, the other connections have no free place.
    fn try_reserve_on(
        self: &Arc<Self>,
        pod: &Arc<Pod>,
        connection: &Arc<SharedConnection>,
        requirement: Requirement,
        now: Instant,
    ) -> Option<Place> {
        let target = requirement.target();
        let is_candidate = !pod.slot.is_closed()
            && pod.slot.serves(target.bit())
            && !pod.has_pending_ping()
            && requirement.is_within_limit(&pod.slot)
            && self.fits(&connection.record, target);
        let reserved = is_candidate.then(|| connection.reserve(now)).flatten()?;
        Some(Place::new(self.clone(), pod.clone(), connection.clone(), reserved))
    }

    /// Wakes the statements that wait, because the state of the Pods or of the connections has changed.
    pub(crate) fn reevaluate_shared(&self) {
        self.queue.reevaluate();
    }
}

/// The end of one wait.
enum Next {
    Woken(Wake<Place>),
    Permit(Option<Permit>),
}
