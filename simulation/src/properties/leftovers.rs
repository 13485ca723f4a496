//! Nothing is left over: sessions while the pool runs, and tasks, timers, sockets and sessions after it is closed.

use std::collections::BTreeMap;

use super::{
    bounds,
    history::{Event, History, Instance, PodSample},
    violation::{Violation, Violations},
};
use crate::adversary::{Fault, Plan};

/// Sessions at each address of a Pod besides the open connections: the probe's. The alternative addresses of a
/// dual-stack Pod are probed too (`EndpointStatus::alternatives`).
const PROBES: i64 = 1;

/// Number of samples from which the sessions are judged.
const ENOUGH: usize = 3;

/// Checks that nothing is left after a pool is closed.
pub(super) fn check(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    let judges_sessions = !can_lose_sessions(&history.plan);
    for record in &history.records {
        let Event::Closed { client, tasks, timers, sockets, sessions } = record.event else { continue };
        let sessions = if judges_sessions { sessions } else { 0 };
        let counts = [(tasks, "tasks"), (timers, "timers"), (sockets, "sockets"), (sessions, "sessions")];
        for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
            let text = format!("{count} {what} are left after the pool of client {client} is closed");
            violations.add(record.at, text);
        }
    }
    if judges_sessions {
        lost_sessions(history, &mut violations);
    }
    violations.found()
}

/// Compares the sessions on the servers with the open connections, after the world is whole. Connections are opened and
/// closed all the time, so only a difference in each sample counts.
fn lost_sessions(history: &History, violations: &mut Violations) {
    let Some(healed) = history.healed else { return };
    let settled = healed + bounds::forgotten(&history.plan.settings);
    // The sessions without open connections, and the most that may be those of probes.
    let mut differences: BTreeMap<(u32, Instance), Vec<(i64, i64)>> = BTreeMap::new();
    for record in history.records.iter().filter(|record| record.at >= settled) {
        let Event::Sampled { client, pods } = &record.event else { continue };
        for PodSample { on, alternatives, open, sessions, .. } in pods {
            let probes = PROBES * (1 + i64::from(*alternatives));
            let difference = sessions.map(|sessions| (i64::from(sessions) - i64::from(*open), probes));
            differences.entry((*client, *on)).or_default().extend(difference);
        }
    }
    for ((client, on), differences) in differences.into_iter().filter(|(_, list)| list.len() >= ENOUGH) {
        let least = differences.iter().map(|(difference, probes)| difference - probes).min().unwrap_or_default();
        let most = differences.iter().map(|(difference, _)| *difference).max().unwrap_or_default();
        if least > 0 {
            let text =
                format!("client {client} has at least {least} more sessions on {on} than open connections and probes");
            violations.add(history.end, text);
        } else if most < 0 {
            let text = format!("client {client} has at least {} more open connections to {on} than sessions", -most);
            violations.add(history.end, text);
        }
    }
}

/// Returns true if a server may not notice that a client has closed a connection, because packets can be lost. The
/// server keeps such a session until its own keepalives fail, two hours later by default.
fn can_lose_sessions(plan: &Plan) -> bool {
    use Fault::*;
    let loses = |fault: &Fault| {
        fault.family() == "network"
            || matches!(fault, PowerLoss { .. } | Hang { .. } | Move { .. } | ForceDelete { .. } | NodeLost { .. })
    };
    plan.faults.iter().any(|window| loses(&window.fault))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adversary::{Host, Window},
        properties::testing::{POD, healthy, history, ms, sampled, texts},
    };

    #[test]
    fn nothing_is_left_after_the_pool_is_closed() {
        let closed = |tasks, sessions| Event::Closed { client: 0, tasks, timers: 0, sockets: 0, sessions };
        let found = |event| texts(check("leftovers", &history([(1, event)])));
        assert_eq!(found(closed(0, 0)), [""; 0]);
        let expected = [
            "2 tasks are left after the pool of client 0 is closed",
            "1 sessions are left after the pool of client 0 is closed",
        ];
        assert_eq!(found(closed(2, 1)), expected);
    }

    /// A history with samples of one open connection and so many sessions.
    fn with(sessions: [u32; 3]) -> History {
        with_alternatives(0, sessions)
    }

    fn with_alternatives(alternatives: u32, sessions: [u32; 3]) -> History {
        let sample = |sessions| sampled(&[PodSample { alternatives, sessions: Some(sessions), ..healthy(POD, true) }]);
        let times = [100_000, 101_000, 102_000].into_iter();
        History { healed: Some(ms(1_000)), ..history(times.zip(sessions.map(sample))) }
    }

    #[test]
    fn sessions_match_the_open_connections() {
        let found = |sessions| texts(check("leftovers", &with(sessions)));
        assert_eq!(found([1, 2, 2]), [""; 0]);
        assert_eq!(found([4, 0, 1]), [""; 0]);
        assert_eq!(
            found([3, 4, 3]),
            ["client 0 has at least 1 more sessions on pod-0 than open connections and probes"]
        );
        assert_eq!(found([0, 0, 0]), ["client 0 has at least 1 more open connections to pod-0 than sessions"]);
        let early = History { healed: Some(ms(99_000)), ..with([3, 3, 3]) };
        assert_eq!(texts(check("leftovers", &early)), [""; 0]);
    }

    #[test]
    fn alternative_addresses_are_probed() {
        let found = |sessions| texts(check("leftovers", &with_alternatives(1, sessions)));
        assert_eq!(found([3, 4, 3]), [""; 0]);
        assert_eq!(found([4, 4, 4]).len(), 1);
    }

    #[test]
    fn sessions_are_not_judged_if_packets_were_lost() {
        let mut history = with([3, 3, 3]);
        let fault = Fault::Partition { from: Host::Client(0), to: Host::Pod(0), both: true };
        history.plan.faults = vec![Window { start: ms(1), end: ms(2), fault }];
        assert_eq!(texts(check("leftovers", &history)), [""; 0]);
    }
}
