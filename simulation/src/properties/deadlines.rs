//! The time limits of calls, dials and lookups. Time for which the client was stopped does not count.
//!
//! `docs/parameters.md`: `acquire_timeout` limits a checkout with every dial and ping; the checkouts of one call of
//! `retry` share one deadline. `connect_timeout` limits a dial, `dns_timeout` a lookup. A lookup after one
//! that has failed may have to wait first.

use std::{collections::BTreeSet, time::Duration};

use super::{
    bounds,
    history::{Event, History, Stage},
    pauses::Pauses,
    violation::{Violation, Violations},
};

/// Time after its last use for which a failed call may wait for outstanding responses that decide its outcome.
/// `config::Limits::RECYCLE_GRACE`.
const GRACE: Duration = Duration::from_millis(100);

pub(super) fn check(name: &'static str, history: &History) -> Vec<Violation> {
    let mut violations = Violations::of(name);
    let (settings, pauses) = (&history.plan.settings, Pauses::of(history));
    let limit = settings.acquire_timeout + bounds::TOLERANCE;
    for call in history.calls().values() {
        let mut over = |from: Duration, to: Duration, limit: Duration, text: &str| {
            let took = pauses.running(call.client, from, to);
            if took > limit {
                let (call, took, limit) = (call.id.0, took.as_millis(), limit.as_millis());
                violations.add(to, format!("call {call} {text} after {took} ms, expected at most {limit} ms"));
            }
        };
        for checkout in &call.checkouts {
            over(call.began, checkout.at, limit, "received a connection");
        }
        let (until, text) = match call.ended {
            Some((ended, _)) => (ended, "failed or ended"),
            None => (history.end, "has not ended"),
        };
        match call.checkouts.last() {
            None => over(call.began, until, limit, text),
            Some(last) => {
                // After the last connection is returned, the call may still wait for another one until the deadline.
                let Some(returned) = last.returned else { continue };
                let since_return = pauses.running(call.client, returned, until);
                if since_return > GRACE + bounds::TOLERANCE {
                    over(call.began, until, limit, text);
                }
            }
        }
    }
    stages(history, &pauses, &mut violations);
    violations.found()
}

/// Checks the dials and lookups.
fn stages(history: &History, pauses: &Pauses, violations: &mut Violations) {
    let settings = &history.plan.settings;
    // The clients whose present lookup has succeeded, and those whose last one has failed.
    let (mut succeeded, mut failing) = (BTreeSet::new(), BTreeSet::new());
    for record in &history.records {
        let (client, stage, took) = match &record.event {
            Event::Finished { client, stage, took } => (*client, *stage, *took),
            // A negative answer counts as a failure.
            Event::Resolved { client, addresses, .. } if !addresses.is_empty() => {
                succeeded.insert(*client);
                continue;
            }
            _ => continue,
        };
        let (limit, what) = match stage {
            Stage::Dial => (settings.connect_timeout, "dial"),
            Stage::Lookup if failing.contains(&client) => (settings.dns_timeout + bounds::THROTTLED, "lookup"),
            Stage::Lookup => (settings.dns_timeout, "lookup"),
        };
        if stage == Stage::Lookup {
            if succeeded.remove(&client) {
                failing.remove(&client)
            } else {
                failing.insert(client)
            };
        }
        let took = pauses.running(client, record.at.saturating_sub(took), record.at);
        if took > limit + bounds::TOLERANCE {
            let (took, limit) = (took.as_millis(), (limit + bounds::TOLERANCE).as_millis());
            let text = format!("a {what} of client {client} took {took} ms, expected at most {limit} ms");
            violations.add(record.at, text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adversary::Target,
        properties::{
            history::Applied,
            testing::{POD, began, done, failed, history, ms, out, paused, resolved, returned, sampled, texts},
        },
    };

    fn found(events: impl IntoIterator<Item = (u64, Event)>) -> Vec<String> {
        texts(check("deadlines", &history(events)))
    }

    #[test]
    fn a_checkout_ends_at_its_deadline() {
        let call = (0, began(1, Target::Any));
        let ended = |at| found([call.clone(), (at, failed(1, "pool_timeout", Applied::No))]);
        assert_eq!(ended(5_050), [""; 0]);
        assert_eq!(ended(5_051), ["call 1 failed or ended after 5051 ms, expected at most 5050 ms"]);
        assert_eq!(found([call.clone(), (5_100, out(1, POD))]).len(), 1);
        let hung = found([call, (6_000, sampled(&[]))]);
        assert_eq!(hung, ["call 1 has not ended after 6000 ms, expected at most 5050 ms"]);
    }

    #[test]
    fn work_may_take_longer_than_the_deadline() {
        let call = [(0, began(1, Target::Any)), (10, out(1, POD)), (9_000, returned(1))];
        assert_eq!(found(call.clone().into_iter().chain([(9_100, done(1))])), [""; 0]);
        assert_eq!(found(call.into_iter().chain([(9_500, done(1))])).len(), 1);
        assert_eq!(found([(0, began(1, Target::Any)), (10, out(1, POD)), (9_000, sampled(&[]))]), [""; 0]);
    }

    #[test]
    fn time_in_which_the_client_is_stopped_does_not_count() {
        let call = [(0, began(1, Target::Any)), (1_000, paused(true)), (4_000, paused(false))];
        assert_eq!(found(call.into_iter().chain([(8_000, failed(1, "pool_timeout", Applied::No))])), [""; 0]);
    }

    #[test]
    fn dials_and_lookups_are_limited() {
        let finished = |stage, took| [(9_000, Event::Finished { client: 0, stage, took: ms(took) })];
        assert_eq!(found(finished(Stage::Dial, 2_050)), [""; 0]);
        let expected = "a dial of client 0 took 2100 ms, expected at most 2050 ms";
        assert_eq!(found(finished(Stage::Dial, 2_100)), [expected]);
        assert_eq!(found(finished(Stage::Lookup, 2_050)), [""; 0]);
        assert_eq!(found(finished(Stage::Lookup, 2_100)).len(), 1);
    }

    #[test]
    fn a_lookup_may_wait_after_one_that_has_failed() {
        let lookup = |at, took| (at, Event::Finished { client: 0, stage: Stage::Lookup, took: ms(took) });
        assert_eq!(found([lookup(3_000, 2_000), lookup(9_000, 3_050)]), [""; 0]);
        assert_eq!(found([lookup(3_000, 2_000), lookup(9_000, 3_100)]).len(), 1);
        assert_eq!(
            found([lookup(3_000, 2_000), (5_000, resolved(&[POD])), lookup(5_000, 9), lookup(9_000, 3_050)]).len(),
            1
        );
    }
}
