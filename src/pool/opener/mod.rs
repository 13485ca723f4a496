//! The opener: the only task that opens connections, for waiting callers and to keep `min_idle` connections open.
//!
//! These events wake the task: a new waiter that a new connection could serve, a checkout that found no idle connection
//! to its Pod, the end of a dial, a released connection permit, a probe that failed permanently, a new division of
//! `max_connections`, a newly published list of Pods, and the tick of the upkeep task once a second. Each time, the
//! opener computes a [`plan`] from the current state and [opens](connect::open) the planned connections. The plan
//! includes the time of the next plan, for example the end of a backoff.
//!
//! The opener has two further duties. While a caller waits and no Pod can serve the role that the caller requested, the
//! opener turns on urgent probing, which shortens the probe intervals of all Pods. It also wakes all waiters as soon as
//! waiting has become pointless, for example because every Pod rejects the login.

#[cfg(all(test, not(podpool_loom)))]
mod model;
mod plan;

use std::sync::Arc;

use tokio::{select, time::sleep_until};

use self::plan::{Limits, PodState, plan};
use super::{
    checkout::{error, ping},
    inner::Inner,
    pod::{
        Pod, connect,
        message::Message,
        requirement,
        view::{PodHealth, View},
    },
};
use crate::{
    balance::{Candidates, Rng},
    config::Target,
    endpoint::snapshot::Candidate,
    sync::lock,
    time::Instant,
};

/// The state of the opener task.
struct Opener {
    rng: Rng,
    /// Bit set of the targets (requested roles) for which a caller waits and that no Pod can serve.
    starving: u32,
}

/// Runs the opener until the task is aborted.
pub(crate) async fn run(inner: Arc<Inner>) {
    let mut opener = Opener { rng: Rng::from_os(), starving: 0 };
    inner.shared.group.urgent_probing.set(inner.shared.id, false, Instant::now());
    inner.shared.send(Message::Starving { pool: inner.shared.id, targets: 0 });
    loop {
        let again_at = opener.round(&inner, Instant::now());
        select! {
            () = inner.shared.waiters.opener_woken() => {}
            () = sleep_until(again_at.unwrap_or_else(Instant::now)), if again_at.is_some() => {}
        }
    }
}

impl Opener {
    /// Makes and executes one plan. Returns the time of the next plan, unless the task is woken earlier.
    fn round(&mut self, inner: &Inner, now: Instant) -> Option<Instant> {
        let shared = &inner.shared;
        let mut waiters = shared.waiters.begin_plan();
        let view = inner.published.load();
        let waiting = shared.waiters.waiting() != 0;
        if waiting && error::fails_early(&view, shared, now) {
            shared.waiters.reevaluate(requirement::ALL_BITS);
            waiters = shared.waiters.begin_plan();
        }
        let pods: Vec<_> = view.pods().map(|(pod, health)| state(pod, health, now)).collect();
        let candidates = candidates(&view);
        let limits = Limits {
            per_pod: shared.limits.handshakes_per_pod,
            total: shared.limits.handshakes,
            permits: shared.connection_limit.available(),
        };
        let mut choose = |pods: &[usize]| {
            let eligible: Vec<_> = pods.iter().map(|pod| candidates[*pod]).collect();
            inner.chooser.pick(&Candidates::new(&view.snapshot, &eligible), &mut self.rng).unwrap_or(0)
        };
        let plan = plan(now, &pods, &waiters, limits, &mut choose);
        shared.waiters.end_plan(plan.openable, plan.starving);
        // A target that a Pod serves, but with too old data, lacks no Pod.
        let served = pods.iter().fold(0, |targets, pod| targets | pod.targets & Target::ALL_BITS);
        // Urgent probing does not help a pool whose logins are refused.
        let is_refused = view.health.iter().any(|health| health.is_up() && health.refused);
        let starving = if is_refused { 0 } else { requirement::targets(plan.starving) & !served };
        if self.starving != starving {
            self.starving = starving;
            shared.group.urgent_probing.set(shared.id, starving != 0, now);
            shared.send(Message::Starving { pool: shared.id, targets: starving });
        }
        let by_index: Vec<_> = view.pods().map(|(pod, _)| pod).collect();
        for pod in plan.open {
            connect::open(by_index[pod]);
        }
        let fails_at = view.none_healthy_since.filter(|_| waiting).map(|since| since + shared.limits.acquire_timeout);
        // `fails_early` is true only after `fails_at`, so the next plan is made slightly later than `fails_at`.
        let fails_at = fails_at.map(|at| at + ping::HEDGE_AFTER).filter(|at| *at > now);
        plan.again_at.into_iter().chain(fails_at).min()
    }
}

/// Returns the Pod's state in the form that [`plan`] needs.
fn state(pod: &Pod, health: &PodHealth, now: Instant) -> PodState {
    let waiting = pod.shared().waiters.waiting();
    let pings_pending_since = pod.pending_pings.since();
    let (backoff, is_failing) = {
        let failure = lock(&pod.last_failure);
        (failure.not_before(now), failure.is_failing())
    };
    let permits = pod.permits();
    let openings = pod.openings();
    // Only a Pod that is healthy, not suspect, not fenced, not detached, not drained and used for callers is kept at
    // `min_idle` open connections. The probe of a suspect Pod shows whether its server still accepts connections; many
    // clients may have lost their connections to it at the same moment.
    let in_use = health.is_usable() && !health.suspect && health.warm && !pod.slot.is_closed();
    let missed = pod.take_missed() && permits > 0;
    // After a failed dial, connections are opened only for waiters while there are any. The server may have no free
    // connection slots, and connections opened ahead of demand would take slots from other clients.
    let is_pressed = is_failing && requirement::serves(&pod.slot, waiting);
    let lacking = if in_use { pod.shared().limits.min_idle.saturating_sub(pod.open()) } else { 0 };
    PodState {
        targets: if waiting > Target::ALL_BITS { requirement::served(&pod.slot) } else { pod.slot.targets() },
        permits,
        lacking: if is_pressed { 0 } else { lacking },
        missed: missed && !is_pressed,
        openings,
        borrowed: pod.borrowed_since(),
        not_before: pings_pending_since.map(|since| since + ping::OPEN_AFTER).into_iter().chain(backoff).max(),
        unresponsive: pings_pending_since.is_some(),
    }
}

/// Returns the view's Pods as candidates for load balancing, with the same weights as in the view's candidate lists:
/// each has weight 1 if all candidates weigh the same.
fn candidates(view: &View) -> Vec<Candidate> {
    let even = view.snapshot.heaviest() == 1;
    let weight = |pod: &Pod| if even { 1 } else { pod.endpoint.weight().into() };
    view.pods().map(|(pod, _)| Candidate { slot: pod.slot.number(), weight: weight(pod) }).collect()
}
