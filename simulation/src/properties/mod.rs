//! The properties of a history: what podpool promises, whatever the faults.
//!
//! Each property is a function from a [`History`] to its violations. None is stricter than the documentation of
//! podpool; the module of each property names the promise. [`bounds`] has the time limits with their sources.

mod blameless;
pub mod bounds;
mod calls;
mod confirmed;
mod counts;
mod covered;
mod deadlines;
mod freshness;
mod history;
mod leftovers;
mod membership;
mod noticed;
mod order;
mod pauses;
mod restored;
mod retained;
mod returning;
mod roles;
mod served;
mod sessions;
mod stuck;
#[cfg(test)]
mod testing;
mod violation;
mod writes;

pub use self::{
    history::{
        Applied, CallId, Confirmation, Event, History, Instance, Outcome, PodSample, Record, Role, Session, Stage,
        Standing,
    },
    violation::Violation,
};

/// A property of a history.
#[derive(Clone, Copy, Debug)]
pub struct Property {
    /// The name, as the corpus states it.
    pub name: &'static str,
    /// The property in words.
    pub text: &'static str,
    check: fn(&'static str, &History) -> Vec<Violation>,
}

impl Property {
    /// Every property.
    pub const ALL: &'static [Self] = &[
        Self::new("kept", "no acknowledged write is lost with a synchronous standby", writes::kept),
        Self::new("once", "no write is applied twice", writes::once),
        Self::new("truthful", "a write that is reported as not applied is absent", writes::truthful),
        Self::new("roles", "no call is served by a server of the wrong role", roles::check),
        Self::new("known", "the status has the role of each Pod that passes its probes", roles::known),
        Self::new("freshness", "no standby serves data older than `max_lag`", freshness::check),
        Self::new("patience", "no standby is excluded before its data is older than `max_lag`", freshness::early),
        Self::new("membership", "no drained, detached or fenced Pod is checked out", membership::reported),
        Self::new("absence", "no Pod is checked out whose absence is confirmed", membership::absent),
        Self::new("confirmed", "no Pod is detached before its absence is confirmed", confirmed::check),
        Self::new("retained", "no Pod is retained while a named Pod serves its role", retained::check),
        Self::new("fencing", "no primary of an outdated timeline is checked out", membership::outdated),
        Self::new("returning", "no ejected primary returns after it was replaced", returning::check),
        Self::new("counts", "the counts of the status are exact", counts::check),
        Self::new("sessions", "every connection is handed on in a clean state", sessions::check),
        Self::new("deadlines", "checkouts, dials and lookups end at their deadlines", deadlines::check),
        Self::new("stuck", "a request to a Pod that does not respond is aborted", stuck::check),
        Self::new("noticed", "a Pod whose server ends is no longer used", noticed::check),
        Self::new("blameless", "faults of names, clocks and clients eject no Pod and fail no call", blameless::check),
        Self::new("served", "every caller is served after the world is whole", served::check),
        Self::new("covered", "no caller waits while a Pod of its target has free capacity", covered::check),
        Self::new("order", "waiting callers are served in their order", order::check),
        Self::new("fair", "shares are fair after the world is whole", restored::fair),
        Self::new("restored", "no Pod is out after the world is whole", restored::check),
        Self::new("leftovers", "no task, timer, socket or session is left over", leftovers::check),
    ];

    const fn new(name: &'static str, text: &'static str, check: fn(&'static str, &History) -> Vec<Violation>) -> Self {
        Self { name, text, check }
    }

    /// Returns the property with a name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        Self::ALL.iter().find(|property| property.name == name)
    }

    /// Returns the violations of the property in a history.
    #[must_use]
    pub fn check(&self, history: &History) -> Vec<Violation> {
        (self.check)(self.name, history)
    }
}

/// Returns the violations of all properties in a history, in the order of their times.
#[must_use]
pub fn check(history: &History) -> Vec<Violation> {
    let mut violations: Vec<_> = Property::ALL.iter().flat_map(|property| property.check(history)).collect();
    violations.sort_by_key(|violation| violation.at);
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adversary::Target,
        properties::testing::{POD, began, committed, done, history, insert, out, out_with, returned},
    };

    #[test]
    fn names_are_unique() {
        for property in Property::ALL {
            assert_eq!(Property::named(property.name).map(|found| found.text), Some(property.text));
        }
        assert!(Property::named("other").is_none());
    }

    #[test]
    fn an_empty_history_has_no_violation() {
        assert_eq!(check(&History::default()), []);
    }

    #[test]
    fn violations_are_sorted_by_time() {
        let open = Session { in_transaction: true, ..Session::default() };
        let events = [
            (1, insert(1, &[7])),
            (2, committed(7, POD, Confirmation::Local)),
            (3, committed(7, POD, Confirmation::Local)),
            (4, began(2, Target::Any)),
            (4, out(2, POD)),
            (5, returned(2)),
            (5, done(2)),
            (6, out_with(1, open)),
        ];
        let violations = check(&history(events));
        let texts: Vec<_> = violations.iter().map(Violation::to_string).collect();
        let expected = [
            "once: at 0.003 s: id 7 was committed on pod-0 and again on pod-0",
            "sessions: at 0.006 s: call 1 received a connection to pod-0 with an open transaction",
        ];
        assert_eq!(texts, expected);
    }
}
