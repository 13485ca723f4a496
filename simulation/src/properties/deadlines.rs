//! The time limits of calls, dials and lookups. Time for which the client was stopped does not count.
//!
//! `docs/parameters.md`: `acquire_timeout` limits a checkout with every dial and ping; the checkouts of one call of
//! `retry` share one deadline. `connect_timeout` limits a dial, `dns_timeout` a lookup.

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

/// Time for which a lookup after a failed one may wait before it starts. `discovery::Dns`: "After a failed lookup, the
/// next lookup may wait up to one second for the packet limit before it starts."
const PACKET_LIMIT: Duration = Duration::from_secs(1);

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
    // The clients whose present lookup has returned Pods, and those whose last lookup has failed.
    let (mut answered, mut failed) = (BTreeSet::new(), BTreeSet::new());
    for record in &history.records {
        if let Event::Resolved { client, addresses, .. } = &record.event
            && !addresses.is_empty()
        {
            answered.insert(*client);
        }
        let Event::Finished { client, stage, took } = record.event else { continue };
        let (limit, what) = match stage {
            Stage::Dial => (settings.connect_timeout, "dial"),
            Stage::Lookup => {
                let wait = if failed.remove(&client) { PACKET_LIMIT } else { Duration::ZERO };
                if !answered.remove(&client) {
                    failed.insert(client);
                }
                (settings.dns_timeout + wait, "lookup")
            }
        };
        let took = pauses.running(client, record.at.saturating_sub(took), record.at);
        if took > limit + bounds::TOLERANCE {
            let (took, limit) = (took.as_millis(), (limit + bounds::TOLERANCE).as_millis());
            violations
                .add(record.at, format!("a {what} of client {client} took {took} ms, expected at most {limit} ms"));
        }
    }
    violations.found()
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
        assert_eq!(found(finished(Stage::Lookup, 2_100)).len(), 1);
    }

    #[test]
    fn a_lookup_after_a_failed_one_may_wait_for_the_packet_limit() {
        let lookup = |at, took| (at, Event::Finished { client: 0, stage: Stage::Lookup, took: ms(took) });
        assert_eq!(found([lookup(1_000, 500), lookup(9_000, 3_050)]), [""; 0]);
        assert_eq!(found([lookup(1_000, 500), lookup(9_000, 3_100)]).len(), 1);
        assert_eq!(found([(1_000, resolved(&[POD])), lookup(1_000, 500), lookup(9_000, 3_050)]).len(), 1);
    }
}
