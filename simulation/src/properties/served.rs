//! Every caller is served after the world is whole again.
//!
//! Not judged if the settings do not let every caller be served: more load than connections, or a deadline that is
//! shorter than a dial. Nor are writes judged that may be sent to a standby: with a subset, the client uses a primary
//! outside of it "only for callers that need the role" (`Limits::subset_size`), which `prefer-primary` does not.

use std::time::Duration;

use super::{
    bounds,
    calls::Call,
    history::{History, Outcome},
    roles::Roles,
    violation::{Violation, Violations},
};
use crate::adversary::{Caller, Percent, Plan, Target, Work};

/// Time for which a connection that was left unclean is assumed to be recycled.
const RECYCLING: f64 = 0.5;

/// Checks that each call that begins after the limit succeeds, if a server of its target runs.
pub(super) fn check(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    let Some(healed) = history.healed.filter(|_| can_serve_all(&history.plan)) else { return violations.found() };
    let from = healed + bounds::served(&history.plan.settings);
    let (roles, fenced) = (Roles::of(history), history.fenced_for_good());
    let is_judged = |call: &&Call| match call.target {
        _ if call.work == Work::InsertThenFail => false,
        Target::Any | Target::PreferStandby => true,
        // Standbys that follow a fenced primary serve no reads.
        _ => !fenced.iter().any(|(client, _)| *client == call.client),
    };
    for call in history.calls().values().filter(|call| call.began >= from).filter(is_judged) {
        let Some((ended, Outcome::Failed { kind, .. })) = &call.ended else { continue };
        if roles.running(call.began).any(|(_, role)| role.fits(call.target)) {
            let (call, target, healed) = (call.id.0, call.target.as_str(), healed.as_secs_f64());
            let text =
                format!("call {call} with target {target} failed ({kind}); the world is whole since {healed:.3} s");
            violations.add(*ended, text);
        }
    }
    violations.found()
}

/// Returns true if the settings permit that every caller is served.
pub(super) fn can_serve_all(plan: &Plan) -> bool {
    let (settings, topology) = (&plan.settings, &plan.topology);
    let dial = dial(plan);
    let has_time = settings.acquire_timeout >= 2 * dial && settings.connect_timeout >= dial;
    // All calls of a client may need the same Pod.
    let used = settings.subset_size.unwrap_or(topology.pods).clamp(1, topology.pods);
    let per_pod = settings
        .max_connections
        .map_or(settings.pool_size, |limit| settings.pool_size.min(limit.saturating_sub(used) / used));
    let demand = |client| plan.callers.iter().filter(|caller| caller.client == client).map(demand).sum::<f64>();
    let has_connections = (0..topology.clients).all(|client| 2.0 * demand(client) <= f64::from(per_pod));
    has_time && has_connections && bounds::has_slots(plan)
}

/// Returns the time of two dials, each of which takes about ten round trips with TLS and SCRAM.
pub(super) fn dial(plan: &Plan) -> Duration {
    20 * plan.topology.round_trip + Duration::from_millis(100)
}

/// Returns the number of connections that a caller occupies.
fn demand(caller: &Caller) -> f64 {
    let share = |share: Option<Percent>| share.map_or(0.0, |percent| f64::from(percent.0) / 100.0);
    f64::from(caller.concurrency) + caller.rate() * (share(caller.leaked) + share(caller.cancelled)) * RECYCLING
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::{
        history::{Applied, Role},
        testing::{POD, began, done, failed, fenced, history, ms, role, texts},
    };

    fn failing(began_at: u64, server: Role) -> History {
        let call = [(began_at, began(1, Target::Primary)), (began_at + 9, failed(1, "no_endpoints", Applied::No))];
        let history = history([(0, role(POD, server))].into_iter().chain(call));
        History { healed: Some(ms(1_000)), ..history }
    }

    #[test]
    fn calls_succeed_after_the_limit() {
        let limit = bounds::served(&Plan::default().settings).as_millis() as u64;
        let check = |history| texts(check("served", &history));
        assert_eq!(check(failing(1_000 + limit - 1, Role::PRIMARY)), [""; 0]);
        let expected = "call 1 with target primary failed (no_endpoints); the world is whole since 1.000 s";
        assert_eq!(check(failing(1_000 + limit, Role::PRIMARY)), [expected]);
        assert_eq!(check(failing(1_000 + limit, Role::STANDBY)), [""; 0]);
        assert_eq!(check(History { healed: None, ..failing(90_000, Role::PRIMARY) }), [""; 0]);
        let events = [(0, role(POD, Role::PRIMARY)), (90_000, began(1, Target::Any)), (90_001, done(1))];
        assert_eq!(check(History { healed: Some(ms(1_000)), ..history(events) }), [""; 0]);
    }

    #[test]
    fn a_fence_that_cannot_be_disproved_is_not_judged() {
        let found = |read_all_stats| {
            let mut history = failing(90_000, Role::PRIMARY);
            let record = super::super::history::Record { at: ms(500), event: fenced(POD, true) };
            history.records.insert(1, record);
            history.plan.topology.read_all_stats = read_all_stats;
            texts(check("served", &history)).len()
        };
        assert_eq!((found(true), found(false)), (1, 0));
    }

    #[test]
    fn overload_is_not_judged() {
        let mut history = failing(90_000, Role::PRIMARY);
        history.plan.callers = vec![Caller { concurrency: 4, ..Caller::default() }];
        assert_eq!(texts(check("served", &history)).len(), 1);
        history.plan.callers = vec![Caller { concurrency: 5, ..Caller::default() }];
        assert_eq!(texts(check("served", &history)), [""; 0]);
        let mut history = failing(90_000, Role::PRIMARY);
        history.plan.settings.acquire_timeout = ms(200);
        assert_eq!(texts(check("served", &history)), [""; 0]);
        let mut history = failing(90_000, Role::PRIMARY);
        history.plan.topology.max_connections = 20;
        assert_eq!(texts(check("served", &history)), [""; 0]);
    }
}
