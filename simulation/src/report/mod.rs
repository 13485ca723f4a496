//! Reports of a simulation for a reader: the events side by side as text, and a timeline as SVG.

mod calls;
mod hosts;
mod table;
mod timeline;

use std::time::Duration;

pub use self::{
    calls::{addresses, calls},
    hosts::hosts,
    table::table,
    timeline::timeline,
};
use crate::{adversary::Plan, properties::Violation};

/// An event of a simulation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TraceEvent {
    /// Time since the start of the simulation.
    pub at: Duration,
    /// Name of the host, such as `client-0`, `pod-1` or `dns-0`.
    pub host: String,
    /// Description of the event.
    pub text: String,
}

/// A simulation that is reported.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The plan that was executed.
    pub plan: &'a Plan,
    /// The events, sorted by time.
    pub events: &'a [TraceEvent],
    /// The violations that were found, sorted by time.
    pub violations: &'a [Violation],
}

#[cfg(test)]
mod testing {
    use super::*;

    /// A run with two hosts, one fault and one violation.
    pub(super) fn with_run<T>(f: impl FnOnce(Run<'_>) -> T) -> T {
        let text = "podpool-plan 1\nseed 7\nactive 2.000\ntail 1.000\nfault 0.500..1.500 server.hang pod=pod-1\n";
        let plan: Plan = text.parse().unwrap();
        let event = |millis, host: &str, text: &str| TraceEvent {
            at: Duration::from_millis(millis),
            host: host.to_owned(),
            text: text.to_owned(),
        };
        let events = [
            event(100, "pod-1", "accepts a connection"),
            event(100, "client-0", "opens a connection to pod-1"),
            event(600, "client-0", "call 1 begins"),
            event(1200, "client-0", "call 1 fails: timeout <5 s>"),
        ];
        let violation = Violation {
            property: "deadlines",
            at: Duration::from_millis(1200),
            text: "call 1 failed or ended after 600 ms, expected at most 550 ms".to_owned(),
        };
        f(Run { plan: &plan, events: &events, violations: &[violation] })
    }
}
