//! Faults that no server is to blame for: they eject no Pod. Faults of the name servers and of the readiness fail no
//! call, and ended sessions fail no read through `retry`. Judged before the first other fault.
//!
//! `docs/failure-modes.md`: of a client that is stopped, "timeouts during the pause are not counted against the Pods";
//! of a Pod that leaves DNS, "none: the Pod stays in use until another Pod serves the role"; and of lookups that fail,
//! that the pool keeps the last known Pods. `LagFallback::Primary`: while every standby lags, the checkout "returns a
//! connection to the primary". `health/suspicion.rs`: "The end of one session is evidence about that
//! session only". `docs/failure-modes.md`, "`pg_terminate_backend` on every session": "no failed read".

use std::{collections::BTreeMap, time::Duration};

use super::{
    calls::Call,
    history::{Event, History, Instance, Outcome},
    roles::Roles,
    served,
    violation::{Violation, Violations},
};
use crate::adversary::{Fault, LagFallback, Plan, Window, Work};

/// The sessions of each client that a fault has ended on each Pod.
type Ended = BTreeMap<(u32, Instance), u32>;

pub(super) fn check(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    let plan = &history.plan;
    ejections(history, first(plan, |fault| !ejects_nothing(fault)), &mut violations);
    if served::can_serve_all(plan) {
        failures(history, first(plan, |fault| !fails_nothing(fault, plan)), &mut violations);
    }
    violations.found()
}

/// Returns the start of the first fault of a kind.
fn first(plan: &Plan, is_of_kind: impl Fn(&Fault) -> bool) -> Duration {
    let starts = plan.faults.iter().filter(|window| is_of_kind(&window.fault)).map(|window| window.start);
    starts.min().unwrap_or(Duration::MAX)
}

/// Returns true for a fault that fails no call, apart from calls on a session that it ends. A Pod that is not ready
/// leaves DNS. With a `drain_timeout` of zero, its removal ends the calls that use it. Without a limit, a standby that
/// replays nothing is used, and with `lag_fallback=primary`, the primary serves its reads.
fn fails_nothing(fault: &Fault, plan: &Plan) -> bool {
    use Fault::*;
    let settings = &plan.settings;
    let has_limit = settings.max_lag.is_some() || settings.max_lag_bytes.is_some();
    match fault {
        Terminate { .. } => true,
        Unready { .. } => !settings.drain_timeout.is_zero(),
        ReplayPaused { .. } => !has_limit || settings.lag_fallback == LagFallback::Primary,
        _ => is_of_names(fault),
    }
}

/// Returns true for a fault of the names.
fn is_of_names(fault: &Fault) -> bool {
    fault.family() == "dns"
}

/// Returns true for a fault in which every server serves every client that runs.
fn ejects_nothing(fault: &Fault) -> bool {
    use Fault::*;
    is_of_names(fault) || matches!(fault, ClientPaused { .. } | ClientStarved { .. } | Skew { .. } | Terminate { .. })
}

/// Checks that no client ejects a Pod before a time, unless several of its sessions on the Pod have been ended.
fn ejections(history: &History, until: Duration, violations: &mut Violations) {
    let mut ended = Ended::new();
    for record in history.records.iter().take_while(|record| record.at < until) {
        match record.event {
            Event::Terminated { client, on, sessions } => *ended.entry((client, on)).or_default() += sessions,
            Event::Ejected { client, on } => {
                let sessions = ended.get(&(client, on)).copied().unwrap_or_default();
                if sessions < 2 {
                    let text = format!("client {client} ejected {on}, of which {sessions} sessions have been ended");
                    violations.add(record.at, text);
                }
            }
            _ => {}
        }
    }
}

/// Checks that no call fails that begins after the first fault and ends before a time, while a server of its target
/// runs. If sessions are ended, only the reads through `retry` are judged.
fn failures(history: &History, until: Duration, violations: &mut Violations) {
    let plan = &history.plan;
    let Some(first) = plan.faults.iter().map(|window| window.start).min() else { return };
    let ends_sessions = |window: &Window| window.start < until && matches!(window.fault, Fault::Terminate { .. });
    let only_reads = plan.faults.iter().any(ends_sessions);
    let roles = Roles::of(history);
    let is_judged = |call: &&Call| {
        let ended = call.ended.as_ref().map_or(Duration::MAX, |(ended, _)| *ended);
        let is_within = call.began >= first && ended < until;
        is_within && call.work != Work::InsertThenFail && (!only_reads || call.work == Work::Read)
    };
    for call in history.calls().values().filter(is_judged) {
        let Some((ended, Outcome::Failed { kind, .. })) = &call.ended else { continue };
        if roles.running(call.began).any(|(_, role)| role.fits(call.target)) {
            let (call, target) = (call.id.0, call.target.as_str());
            let text = format!("call {call} with target {target} failed ({kind}), but no server is faulty");
            violations.add(*ended, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adversary::{Host, Percent, Target, Window},
        properties::{
            history::{Applied, CallId, Role},
            testing::{POD, began, failed, history, ms, role, texts},
        },
    };

    fn with(fault: Fault, events: impl IntoIterator<Item = (u64, Event)>) -> Vec<String> {
        let mut history = history(events);
        history.plan.faults = vec![Window { start: ms(2_000), end: ms(9_000), fault }];
        texts(check("blameless", &history))
    }

    fn ejected() -> (u64, Event) {
        (3_000, Event::Ejected { client: 0, on: POD })
    }

    #[test]
    fn a_stopped_client_ejects_no_pod() {
        let text = "client 0 ejected pod-0, of which 0 sessions have been ended";
        assert_eq!(with(Fault::ClientPaused { client: Host::Client(0) }, [ejected()]), [text]);
        assert_eq!(with(Fault::Hang { pod: Host::Pod(0) }, [ejected()]), [""; 0]);
    }

    #[test]
    fn one_ended_session_is_no_reason_to_eject() {
        let ended = |sessions| {
            let terminated = (2_500, Event::Terminated { client: 0, on: POD, sessions });
            with(Fault::Terminate { pod: Host::Pod(0), share: Percent(20) }, [terminated, ejected()])
        };
        assert_eq!(ended(1), ["client 0 ejected pod-0, of which 1 sessions have been ended"]);
        assert_eq!(ended(2), [""; 0]);
    }

    #[test]
    fn ended_sessions_fail_no_read_through_retry() {
        let call = |work| {
            let (call, target, ids) = (CallId(1), Target::Primary, Vec::new());
            let began = Event::Began { call, client: 0, caller: 0, work, target, ids };
            let events = [(1, role(POD, Role::PRIMARY)), (2_000, began), (2_009, failed(1, "query", Applied::No))];
            with(Fault::Terminate { pod: Host::Pod(0), share: Percent(100) }, events)
        };
        assert_eq!(call(Work::Read).len(), 1);
        assert_eq!(call(Work::Insert), [""; 0]);
    }

    #[test]
    fn a_lagging_standby_fails_no_call_if_the_primary_replaces_it() {
        let found = |max_lag, lag_fallback| {
            let call = [(2_500, began(1, Target::Standby)), (2_509, failed(1, "no_endpoints", Applied::No))];
            let mut history = history([(1, role(POD, Role::STANDBY))].into_iter().chain(call));
            let fault = Fault::ReplayPaused { pod: Host::Pod(0) };
            history.plan.faults = vec![Window { start: ms(2_000), end: ms(9_000), fault }];
            (history.plan.settings.max_lag, history.plan.settings.lag_fallback) = (max_lag, lag_fallback);
            texts(check("blameless", &history)).len()
        };
        assert_eq!(found(Some(ms(1_000)), LagFallback::Primary), 1);
        assert_eq!(found(None, LagFallback::Fail), 1);
        assert_eq!(found(Some(ms(1_000)), LagFallback::Fail), 0);
    }

    #[test]
    fn faults_of_name_servers_fail_no_call() {
        let call = |start| {
            let call = [(start, began(1, Target::Primary)), (start + 9, failed(1, "connect", Applied::No))];
            [(1, role(POD, Role::PRIMARY))].into_iter().chain(call)
        };
        let text = "call 1 with target primary failed (connect), but no server is faulty";
        assert_eq!(with(Fault::Stale { server: None }, call(2_000)), [text]);
        assert_eq!(with(Fault::Stale { server: None }, call(1_999)), [""; 0]);
        assert_eq!(with(Fault::ReadOnly { pod: Host::Pod(0) }, call(2_000)), [""; 0]);
    }
}
