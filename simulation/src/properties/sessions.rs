//! The state of a connection that a caller receives.
//!
//! `config::Reset`: "In all modes, an open transaction is rolled back and an in-flight statement is canceled", and only
//! `reset=discard` guarantees that session state does not reach the next caller.

use super::{
    history::{Event, History, Session},
    violation::{Violation, Violations},
};
use crate::adversary::Reset;

pub(super) fn check(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    let discards = history.plan.settings.reset == Reset::Discard;
    for record in &history.records {
        let Event::CheckedOut { call, on, session, .. } = record.event else { continue };
        let Session { in_transaction, is_running, in_copy, marker } = session;
        let other = marker.filter(|other| discards && *other != call);
        let problems = [
            in_transaction.then(|| "an open transaction".to_owned()),
            is_running.then(|| "a running statement".to_owned()),
            in_copy.then(|| "an unfinished COPY".to_owned()),
            other.map(|other| format!("session state of call {}", other.0)),
        ];
        for problem in problems.into_iter().flatten() {
            violations.add(record.at, format!("call {} received a connection to {on} with {problem}", call.0));
        }
    }
    violations.found()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::{
        history::CallId,
        testing::{history, out_with, texts},
    };

    fn found(session: Session, reset: Reset) -> Vec<String> {
        let mut history = history([(1, out_with(1, session))]);
        history.plan.settings.reset = reset;
        texts(check("sessions", &history))
    }

    #[test]
    fn connections_are_clean() {
        assert_eq!(found(Session::default(), Reset::Discard), [""; 0]);
        let session = Session { in_transaction: true, is_running: true, in_copy: true, marker: None };
        let expected = [
            "call 1 received a connection to pod-0 with an open transaction",
            "call 1 received a connection to pod-0 with a running statement",
            "call 1 received a connection to pod-0 with an unfinished COPY",
        ];
        assert_eq!(found(session, Reset::None), expected);
    }

    #[test]
    fn only_discard_promises_to_remove_session_state() {
        let session = Session { marker: Some(CallId(7)), ..Session::default() };
        assert_eq!(found(session, Reset::Auto), [""; 0]);
        let expected = ["call 1 received a connection to pod-0 with session state of call 7"];
        assert_eq!(found(session, Reset::Discard), expected);
        assert_eq!(found(Session { marker: Some(CallId(1)), ..Session::default() }, Reset::Discard), [""; 0]);
    }
}
