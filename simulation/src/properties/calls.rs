//! The history by call: who called, which connections the call received, and how it ended.

use std::{collections::BTreeMap, time::Duration};

use super::history::{CallId, Event, History, Instance, Outcome};
use crate::adversary::{Target, Work};

/// One call of a client's pool.
#[derive(Clone, Debug)]
pub(super) struct Call {
    pub(super) id: CallId,
    pub(super) client: u32,
    pub(super) work: Work,
    pub(super) target: Target,
    pub(super) ids: Vec<i64>,
    pub(super) began: Duration,
    /// The connections of the call, in their order.
    pub(super) checkouts: Vec<Checkout>,
    pub(super) ended: Option<(Duration, Outcome)>,
}

/// The time for which a call had a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Checkout {
    pub(super) on: Instance,
    pub(super) at: Duration,
    pub(super) returned: Option<Duration>,
}

impl History {
    /// Returns the calls in the order of their numbers.
    pub(super) fn calls(&self) -> BTreeMap<CallId, Call> {
        let mut calls: BTreeMap<CallId, Call> = BTreeMap::new();
        for record in &self.records {
            let at = record.at;
            match &record.event {
                Event::Began { call, client, work, target, ids, .. } => {
                    let (id, client, work, target, ids) = (*call, *client, *work, *target, ids.clone());
                    let (began, checkouts, ended) = (at, Vec::new(), None);
                    calls.insert(id, Call { id, client, work, target, ids, began, checkouts, ended });
                }
                Event::CheckedOut { call, on, .. } => {
                    if let Some(call) = calls.get_mut(call) {
                        call.checkouts.push(Checkout { on: *on, at, returned: None });
                    }
                }
                Event::Returned { call } => {
                    let last = calls.get_mut(call).and_then(|call| call.checkouts.last_mut());
                    if let Some(checkout) = last {
                        checkout.returned = Some(at);
                    }
                }
                Event::Ended { call, outcome } => {
                    if let Some(call) = calls.get_mut(call) {
                        call.ended = Some((at, outcome.clone()));
                    }
                }
                _ => {}
            }
        }
        calls
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::properties::testing::{OTHER, POD, began, done, history, ms, out, returned};

    #[test]
    fn follows_the_connections_of_a_call() {
        let events = [(10, began(1, Target::Any)), (20, out(1, POD)), (30, returned(1)), (40, out(1, OTHER))];
        let history = history(events.into_iter().chain([(50, done(1))]));
        let call = &history.calls()[&CallId(1)];
        assert_eq!((call.began, call.ended.clone()), (ms(10), Some((ms(50), Outcome::Done))));
        let checkouts: Vec<_> = call.checkouts.iter().map(|out| (out.on, out.at, out.returned)).collect();
        assert_eq!(checkouts, [(POD, ms(20), Some(ms(30))), (OTHER, ms(40), None)]);
    }
}
