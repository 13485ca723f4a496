//! The outcomes of writes: reported writes exist, unreported ones do not, and none exists twice.
//!
//! `docs/failure-modes.md`, "Was the write applied?": `Applied::No` promises that nothing of the work was applied. The
//! workload contains no statement that commits inside (`CALL`, `DO`), the documented exception.

use std::{collections::BTreeMap, time::Duration};

use super::{
    calls::Call,
    history::{Applied, Confirmation, Event, History, Instance, Outcome},
    violation::{Violation, Violations},
};

/// One commit of an id.
#[derive(Clone, Copy, Debug)]
struct Commit {
    at: Duration,
    on: Instance,
    confirmed: Confirmation,
}

fn commits(history: &History) -> BTreeMap<i64, Vec<Commit>> {
    let mut commits: BTreeMap<i64, Vec<Commit>> = BTreeMap::new();
    for record in &history.records {
        if let Event::Committed { id, on, confirmed } = record.event {
            commits.entry(id).or_default().push(Commit { at: record.at, on, confirmed });
        }
    }
    commits
}

/// Calls a function with each id of each ended call, and the id's commits.
fn each_id(history: &History, mut f: impl FnMut(&Call, Duration, &Outcome, i64, &[Commit])) {
    let commits = commits(history);
    for call in history.calls().values() {
        let Some((ended, outcome)) = &call.ended else { continue };
        for id in &call.ids {
            f(call, *ended, outcome, *id, commits.get(id).map_or(&[], Vec::as_slice));
        }
    }
}

/// Checks that a write whose call succeeded was committed before the call ended, and that it still exists if
/// synchronous standbys had confirmed it. Without them, a failover may lose it.
pub(super) fn kept(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    each_id(history, |call, ended, outcome, id, commits| {
        if *outcome != Outcome::Done {
            return;
        }
        if !commits.iter().any(|commit| commit.at <= ended) {
            return violations.add(ended, format!("call {} succeeded, but id {id} was never committed", call.id.0));
        }
        let is_confirmed = commits.iter().any(|commit| commit.confirmed == Confirmation::Synchronous);
        let is_lost = history.rows.as_ref().is_some_and(|rows| !rows.contains_key(&id));
        if is_confirmed && is_lost {
            violations.add(ended, format!("call {} succeeded, but id {id} is lost", call.id.0));
        }
    });
    violations.found()
}

/// Checks that no id is committed or stored twice. Only `retry_unapplied` writes, so it must not repeat applied work.
pub(super) fn once(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    for (id, commits) in commits(history) {
        if let [first, second, ..] = commits.as_slice() {
            let text = format!("id {id} was committed on {} and again on {}", first.on, second.on);
            violations.add(second.at, text);
        }
    }
    for (id, rows) in history.rows.iter().flatten() {
        if *rows > 1 {
            violations.add(history.end, format!("id {id} is stored {rows} times"));
        }
    }
    violations.found()
}

/// Checks that an outcome of `No` means absent, also later, and that a call that never had a connection states it.
pub(super) fn truthful(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    each_id(history, |call, ended, outcome, id, commits| {
        let Outcome::Failed { applied, .. } = outcome else { return };
        match (applied, commits) {
            (Applied::No, [commit, ..]) => {
                let (call, on, at) = (call.id.0, commit.on, commit.at.as_secs_f64());
                let text = format!("call {call} failed as not applied, but {on} committed id {id} at {at:.3} s");
                violations.add(ended, text);
            }
            // A call on a shared connection checks nothing out.
            (Applied::Unknown, _) if call.checkouts.is_empty() && !call.work.is_shared() => {
                violations.add(ended, format!("call {} sent nothing, but failed as maybe applied", call.id.0));
            }
            _ => {}
        }
    });
    violations.found()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::testing::{OTHER, POD, committed, done, failed, history, insert, out, texts};

    fn with_rows(events: impl IntoIterator<Item = (u64, Event)>, rows: &[(i64, u32)]) -> History {
        History { rows: Some(rows.iter().copied().collect()), ..history(events) }
    }

    #[test]
    fn acknowledged_writes_must_be_kept() {
        let events = |confirmed| [(1, insert(1, &[7])), (2, committed(7, POD, confirmed)), (3, done(1))];
        let check = |history: History| texts(kept("kept", &history));
        assert_eq!(check(with_rows(events(Confirmation::Synchronous), &[(7, 1)])), [""; 0]);
        assert_eq!(check(with_rows(events(Confirmation::Local), &[])), [""; 0]);
        assert_eq!(check(history(events(Confirmation::Synchronous))), [""; 0]);
        let lost = with_rows(events(Confirmation::Synchronous), &[]);
        assert_eq!(check(lost), ["call 1 succeeded, but id 7 is lost"]);
    }

    #[test]
    fn successful_writes_must_be_committed() {
        let late = [(1, insert(1, &[7])), (2, done(1)), (3, committed(7, POD, Confirmation::Local))];
        assert_eq!(texts(kept("kept", &history(late))), ["call 1 succeeded, but id 7 was never committed"]);
        let failed = [(1, insert(1, &[7])), (2, failed(1, "query", Applied::Unknown))];
        assert_eq!(texts(kept("kept", &history(failed))), [""; 0]);
    }

    #[test]
    fn no_id_is_committed_twice() {
        let once_only = [(1, insert(1, &[7, 8])), (2, committed(7, POD, Confirmation::Local))];
        assert_eq!(texts(once("once", &with_rows(once_only.clone(), &[(7, 1)]))), [""; 0]);
        let twice = once_only.into_iter().chain([(5, committed(7, OTHER, Confirmation::Local))]);
        let found = texts(once("once", &with_rows(twice, &[(7, 2)])));
        assert_eq!(found, ["id 7 was committed on pod-0 and again on pod-1", "id 7 is stored 2 times"]);
    }

    #[test]
    fn not_applied_means_absent() {
        let check = |applied, commit: Option<u64>| {
            let mut events = vec![(1, insert(1, &[7])), (2, out(1, POD)), (9, failed(1, "query", applied))];
            events.extend(commit.map(|at| (at, committed(7, POD, Confirmation::Local))));
            events.sort_by_key(|(at, _)| *at);
            texts(truthful("truthful", &history(events)))
        };
        assert_eq!(check(Applied::No, None), [""; 0]);
        assert_eq!(check(Applied::Unknown, Some(5)), [""; 0]);
        let expected = "call 1 failed as not applied, but pod-0 committed id 7 at 0.005 s";
        assert_eq!(check(Applied::No, Some(5)), [expected]);
        assert_eq!(check(Applied::No, Some(20)).len(), 1);
    }

    #[test]
    fn a_call_without_a_connection_was_not_applied() {
        let check = |applied| {
            let events = [(1, insert(1, &[7])), (9, failed(1, "pool_timeout", applied))];
            texts(truthful("truthful", &history(events)))
        };
        assert_eq!(check(Applied::No), [""; 0]);
        assert_eq!(check(Applied::Unknown), ["call 1 sent nothing, but failed as maybe applied"]);
    }
}
