//! A call that waits for a response is aborted if its Pod does not respond.
//!
//! `docs/failure-modes.md`: "requests in flight on that Pod wait until the pool aborts them". A caller keeps a
//! connection only for milliseconds by itself, so a longer time is that of a request.

use std::time::Duration;

use super::{
    bounds,
    calls::{Call, Checkout},
    history::History,
    pauses::Pauses,
    violation::{Violation, Violations},
};
use crate::adversary::{Fault, Host, Plan, Window};

/// Time before a fault within which another fault may still have an effect on the probes.
const AFTEREFFECT: Duration = Duration::from_secs(10);
/// Number of Pods from which one unresponsive Pod is a minority. Where most Pods time out, the cause may be the client,
/// so that the pool needs more evidence.
const MINORITY: u32 = 3;

pub(super) fn check(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    let (plan, pauses) = (&history.plan, Pauses::of(history));
    let settings = &plan.settings;
    let limit_of = |fault: &Fault| match fault {
        Fault::Hang { .. } => bounds::aborted(settings),
        _ => bounds::lost(settings),
    };
    let silences = plan.faults.iter().map(|window| (window, limit_of(&window.fault)));
    let silences: Vec<_> = silences.filter(|(window, limit)| is_judged(window, plan, *limit)).collect();
    for call in history.calls().values() {
        for checkout in &call.checkouts {
            let released = checkout.returned.or(call.ended.as_ref().map(|(ended, _)| *ended)).unwrap_or(history.end);
            let until = |since: Duration| pauses.running(call.client, since.max(checkout.at), released);
            let silent = silences.iter().filter(|(window, _)| is_silent(&window.fault, call, checkout));
            let mut silent = silent.map(|(window, limit)| (window.start, *limit));
            let during = silent.find(|(start, limit)| until(*start) > *limit);
            let after = history.healed.map(|healed| (healed, bounds::lost(settings)));
            let after = after.filter(|(healed, limit)| checkout.returned.is_none() && until(*healed) > *limit);
            if let Some((since, limit)) = during.or(after) {
                let (call, on, limit) = (call.id.0, checkout.on, limit.as_millis());
                let took = until(since).as_millis();
                let text = format!("call {call} waited {took} ms for {on}, expected at most {limit} ms");
                violations.add(released, text);
            }
        }
    }
    violations.found()
}

/// Returns true if a fault lasts so long that the pool must notice it, and no other fault interferes. Faults of names
/// and clocks do not affect connections.
fn is_judged(window: &Window, plan: &Plan, limit: Duration) -> bool {
    let until = window.start + limit;
    let interferes = |other: &Window| {
        other != window
            && !matches!(other.fault.family(), "dns" | "clock")
            && other.start <= until
            && other.end + AFTEREFFECT >= window.start
    };
    window.end > until && plan.topology.pods >= MINORITY && !plan.faults.iter().any(interferes)
}

/// Returns true if a fault keeps the Pod of a checkout from responding.
fn is_silent(fault: &Fault, call: &Call, checkout: &Checkout) -> bool {
    let (pod, client) = (Host::Pod(checkout.on.pod), Host::Client(call.client));
    match *fault {
        Fault::Hang { pod: silent } | Fault::PowerLoss { pod: silent } => silent == pod,
        Fault::Partition { from, to, both } => {
            let is_pair = [(from, to), (to, from)].contains(&(client, pod));
            is_pair && both
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adversary::Target,
        properties::testing::{POD, began, done, history, ms, out, returned, sampled, texts},
    };

    fn limit() -> u64 {
        bounds::aborted(&Plan::default().settings).as_millis() as u64
    }

    /// A call that has a connection from 1 s to `released`, while the Pod is hung from 2 s to 60 s.
    fn hung(released: u64) -> History {
        let call = [(1_000, began(1, Target::Any)), (1_000, out(1, POD)), (released, returned(1)), (released, done(1))];
        let mut history = history(call);
        let window = Window { start: ms(2_000), end: ms(60_000), fault: Fault::Hang { pod: Host::Pod(0) } };
        history.plan.faults = vec![window];
        history
    }

    #[test]
    fn requests_to_an_unresponsive_pod_are_aborted() {
        assert_eq!(texts(check("stuck", &hung(2_000 + limit()))), [""; 0]);
        let expected = format!("call 1 waited {} ms for pod-0, expected at most {} ms", limit() + 1, limit());
        assert_eq!(texts(check("stuck", &hung(2_001 + limit()))), [expected]);
    }

    #[test]
    fn other_pods_and_interfering_faults_are_not_judged() {
        let mut history = hung(50_000);
        history.plan.faults[0].fault = Fault::Hang { pod: Host::Pod(1) };
        assert_eq!(texts(check("stuck", &history)), [""; 0]);
        let mut history = hung(50_000);
        history.plan.faults.push(Window { start: ms(3_000), end: ms(3_000), fault: Fault::Failover {} });
        assert_eq!(texts(check("stuck", &history)), [""; 0]);
        let mut history = hung(50_000);
        history.plan.topology.pods = 2;
        assert_eq!(texts(check("stuck", &history)), [""; 0]);
    }

    #[test]
    fn no_call_is_stuck_after_the_world_is_whole() {
        let limit = bounds::lost(&Plan::default().settings).as_millis() as u64;
        let stuck = |end| {
            let call = [(1_000, began(1, Target::Any)), (1_000, out(1, POD)), (end, sampled(&[]))];
            texts(check("stuck", &History { healed: Some(ms(5_000)), ..history(call) }))
        };
        assert_eq!(stuck(5_000 + limit), [""; 0]);
        assert_eq!(stuck(5_001 + limit).len(), 1);
    }
}
