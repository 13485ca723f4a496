//! Standing in the queue until there is a connection.

use tokio::select;

use super::{error, try_idle::PingPending};
use crate::{
    balance::{Candidates, Rng},
    config::Target,
    endpoint::snapshot::Candidate,
    error::{Error, Phase},
    pool::{
        inner::Inner,
        pod::{client::Client, connect, shared::count, view::View},
    },
    sync::lock,
    time::Instant,
};

/// What one who stands in the queue finds.
enum Look {
    /// A connection.
    Found(Client),
    /// Nothing, and waiting longer is of no use.
    Hopeless(Error),
    /// No Pod fits.
    Nobody,
    /// Nothing is idle; where every Pod that has room failed just now, it may be tried again at this time.
    Busy(Option<Instant>),
}

impl Inner {
    /// Stands in the queue until there is a connection: at its end, or at its head who has been there before.
    pub(crate) async fn queue(
        &self,
        target: Target,
        started: Instant,
        deadline: Instant,
        again: bool,
        mute: PingPending,
    ) -> Result<Client, Error> {
        let shared = &self.shared;
        let mut place = shared.waiters.enter(target, deadline, again);
        let mut urgent = None;
        let mut now = if again { Instant::now() } else { started };
        loop {
            let look = self.with_view(|view, rng, rest| self.look(view, target, mute, now, deadline, rng, rest));
            let again = match look {
                Look::Found(client) => return Ok(client),
                Look::Hopeless(error) => return Err(error.with_elapsed(now - started)),
                Look::Nobody => {
                    if urgent.is_none() {
                        urgent = Some(shared.urgent_probing.begin(now));
                    }
                    None
                }
                Look::Busy(again) => {
                    urgent = None;
                    again
                }
            };
            let handed_over = if again.is_none() && place.is_reminded(now) {
                // Most who wait are served long before their time is up, and a timer is not for nothing.
                place.woken().await
            } else {
                let until = again.map_or(deadline, |again| again.min(deadline));
                select! {
                    biased;
                    client = place.woken() => client,
                    // Or in the moment in which the time was up.
                    () = self.sleep_until(until) => place.take(),
                }
            };
            if let Some(client) = handed_over {
                return Ok(client);
            }
            now = Instant::now();
        }
    }

    /// One look around by one who stands in the queue.
    #[allow(clippy::too_many_arguments, reason = "what one who waits knows")]
    fn look(
        &self,
        view: &View,
        target: Target,
        mute: PingPending,
        now: Instant,
        deadline: Instant,
        rng: &mut Rng,
        rest: &mut Vec<Candidate>,
    ) -> Look {
        let shared = &self.shared;
        if let Some(error) = error::hopeless(view, target, shared, now) {
            return Look::Hopeless(error);
        }
        if now >= deadline {
            count(&shared.counters.timeouts);
            shared.counters.timed_out.count(Phase::Wait);
            return Look::Hopeless(error::timed_out(view, target, shared));
        }
        let candidates = view.snapshot.candidates(target.index());
        for candidate in candidates {
            view.snapshot.slots().slot(candidate.slot).set_waited();
        }
        // Only after saying that somebody waits: see the orderings of `endpoint::slot`. Most find nothing, and need not choose.
        let any_idle = candidates.iter().any(|candidate| view.snapshot.pod(*candidate).has_idle());
        if any_idle && let Some(client) = self.take_idle(view, target, mute, rng, rest, |_| {}) {
            return Look::Found(client);
        }
        if candidates.is_empty() {
            return Look::Nobody;
        }
        Look::Busy(self.open_for(view, candidates, mute, now, rng))
    }

    /// Has a connection opened, if those being opened are fewer than those who wait for one of these Pods. Where every
    /// Pod that has room failed just now: when the first of them may be tried again.
    fn open_for(
        &self,
        view: &View,
        candidates: &[Candidate],
        mute: PingPending,
        now: Instant,
        rng: &mut Rng,
    ) -> Option<Instant> {
        let pod = |candidate: &Candidate| view.snapshot.pod(*candidate);
        if !candidates.iter().any(|candidate| pod(candidate).has_permit()) {
            return None;
        }
        let speaks = |candidate: &&Candidate| !pod(candidate).has_pending_ping();
        let opening: usize = candidates.iter().filter(speaks).map(|candidate| pod(candidate).opening_lately()).sum();
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
        if open.iter().any(|candidate| speaks(&candidate)) {
            open.retain(|candidate| speaks(&candidate));
        } else if let PingPending::Never(until) = mute
            && until > now
            && !open.is_empty()
        {
            return Some(again.map_or(until, |again: Instant| again.min(until)));
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
