//! A Pod whose server ends is not used any more as soon as its sessions end, whatever the probe interval.
//!
//! `docs/failure-modes.md`: after "SIGKILL, fast shutdown", the "slowest read" of `retry` takes 10 to 16 ms.
//! `health/suspicion.rs`: the Pod is probed as soon as a session has ended unexpectedly.

use std::{collections::BTreeMap, time::Duration};

use super::{
    history::{Event, History, PodSample},
    pauses::Pauses,
    served,
    violation::{Violation, Violations},
};
use crate::adversary::{Fault, Host, StopMode};

/// Number of open connections with which a client certainly notices that sessions have ended.
const SESSIONS: u32 = 2;
/// Time for the end of the sessions and for a probe, which is refused.
const LIMIT: Duration = Duration::from_millis(200);

/// Checks the samples from the limit after the first fault to the next fault, if the first one ends a server.
pub(super) fn check(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    let plan = &history.plan;
    let Some((ordinal, window)) = plan.faults.first().and_then(|window| Some((ended(&window.fault)?, window))) else {
        return violations.found();
    };
    let next = plan.faults.iter().skip(1).map(|other| other.start).min().unwrap_or(Duration::MAX);
    let limit = LIMIT + served::dial(plan);
    let until = window.end.min(next);
    let pauses = Pauses::of(history);
    let mut before: BTreeMap<u32, PodSample> = BTreeMap::new();
    for record in history.records.iter().take_while(|record| record.at < until) {
        let Event::Sampled { client, pods } = &record.event else { continue };
        let pod = pods.iter().find(|pod| pod.on.pod == ordinal);
        if record.at <= window.start {
            before.remove(client);
            before.extend(pod.map(|pod| (*client, *pod)));
        } else if let (Some(pod), Some(before)) = (pod, before.get(client)) {
            let took = pauses.running(*client, window.start, record.at);
            // The server may have been started again.
            let is_down = pod.sessions.is_none();
            if took > limit && is_down && pod.usable && pod.on == before.on && before.usable && before.open >= SESSIONS
            {
                let (on, open, took) = (pod.on, before.open, took.as_millis());
                let text = format!("client {client} uses {on} {took} ms after its server ended {open} sessions");
                violations.add(record.at, text);
            }
        }
    }
    violations.found()
}

/// Returns the number of the Pod whose server a fault ends immediately.
fn ended(fault: &Fault) -> Option<u32> {
    match fault {
        Fault::Crash { pod: Host::Pod(pod) } => Some(*pod),
        Fault::Stop { pod: Host::Pod(pod), mode: StopMode::Fast | StopMode::Immediate } => Some(*pod),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adversary::Window,
        properties::testing::{POD, healthy, history, ms, sampled, texts},
    };

    fn found(open: u32, fault: Fault, further: Option<u64>) -> Vec<String> {
        let sample = |at, sessions| (at, sampled(&[PodSample { open, sessions, ..healthy(POD, true) }]));
        let samples = [(1_000, Some(2)), (2_100, None), (2_500, None), (8_000, Some(2)), (9_100, None)];
        let mut history = history(samples.map(|(at, sessions)| sample(at, sessions)));
        let windows = further.map(|at| Window { start: ms(at), end: ms(at), fault: Fault::Failover {} });
        let first = Window { start: ms(2_000), end: ms(9_000), fault };
        history.plan.faults = [first].into_iter().chain(windows).collect();
        texts(check("noticed", &history))
    }

    #[test]
    fn a_pod_whose_sessions_have_ended_is_not_used() {
        let crash = || Fault::Crash { pod: Host::Pod(0) };
        assert_eq!(found(2, crash(), None), ["client 0 uses pod-0 500 ms after its server ended 2 sessions"]);
        assert_eq!(found(1, crash(), None), [""; 0]);
        assert_eq!(found(2, crash(), Some(2_400)), [""; 0]);
        assert_eq!(found(2, Fault::Crash { pod: Host::Pod(1) }, None), [""; 0]);
        assert_eq!(found(2, Fault::Stop { pod: Host::Pod(0), mode: StopMode::Smart }, None), [""; 0]);
    }
}
