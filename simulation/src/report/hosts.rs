use super::Run;
use crate::adversary::Host;

/// Returns the names of the hosts with events: clients, Pods, name servers, and then the others, each by its number.
#[must_use]
pub fn hosts<'a>(run: &Run<'a>) -> Vec<&'a str> {
    let mut names: Vec<_> = run.events.iter().map(|event| event.host.as_str()).collect();
    names.sort_by_cached_key(|name| (name.parse::<Host>().ok().unwrap_or(Host::Operator), *name));
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{adversary::Plan, report::TraceEvent};

    #[test]
    fn hosts_are_sorted_by_kind_and_number() {
        let names = ["kubernetes", "pod-10", "dns-0", "pod-2", "client-1", "operator", "pod-2"];
        let event = |name: &str| TraceEvent { at: Duration::ZERO, host: name.to_owned(), text: String::new() };
        let events = names.map(event);
        let run = Run { plan: &Plan::default(), events: &events, violations: &[] };
        assert_eq!(hosts(&run), ["client-1", "pod-2", "pod-10", "dns-0", "kubernetes", "operator"]);
    }
}
