//! The calls that violations name, with what happened to each, and the addresses of the Pods.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crate::properties::{CallId, Event, History, Instance, Outcome, Violation};

/// Maximum number of calls that are shown.
const MAX: usize = 5;

/// Returns the text of the first calls that the violations name: the client, and each event with its time.
#[must_use]
pub fn calls(history: &History, violations: &[Violation]) -> String {
    let mut ids: Vec<CallId> = violations.iter().flat_map(|violation| named(&violation.text)).collect();
    let mut seen = BTreeSet::new();
    ids.retain(|id| seen.insert(*id));
    ids.into_iter().take(MAX).map(|id| describe(history, id)).collect()
}

/// Returns a line with the addresses at which the clients have seen the Pods.
#[must_use]
pub fn addresses(history: &History) -> String {
    let mut pods: BTreeMap<Instance, BTreeSet<IpAddr>> = BTreeMap::new();
    for record in &history.records {
        if let Event::Sampled { pods: samples, .. } = &record.event {
            for pod in samples {
                pods.entry(pod.on).or_default().insert(pod.address.ip());
            }
        }
    }
    let pod = |(on, addresses): (Instance, BTreeSet<IpAddr>)| {
        let addresses: Vec<_> = addresses.iter().map(IpAddr::to_string).collect();
        format!("{on} {}", addresses.join(" "))
    };
    let pods: Vec<_> = pods.into_iter().map(pod).collect();
    format!("addresses: {}\n", pods.join(", "))
}

/// Returns the calls that a text names, such as `call 18`.
fn named(text: &str) -> impl Iterator<Item = CallId> + '_ {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric());
    let pairs = words.clone().zip(words.skip(1));
    pairs.filter(|(word, _)| *word == "call").filter_map(|(_, number)| number.parse().ok().map(CallId))
}

fn describe(history: &History, id: CallId) -> String {
    let mut text = String::new();
    for record in &history.records {
        let what = match &record.event {
            Event::Began { call, client, work, target, ids, .. } if *call == id => {
                let ids: Vec<_> = ids.iter().map(i64::to_string).collect();
                let ids = if ids.is_empty() { String::new() } else { format!(", ids {}", ids.join(" ")) };
                text.push_str(&format!("call {} of client-{client}: {}, target ", id.0, work.as_str()));
                text.push_str(&format!("{}{ids}\n", target.as_str()));
                "begins".to_owned()
            }
            Event::CheckedOut { call, on, address, .. } if *call == id => {
                format!("receives a connection to {on} at {address}")
            }
            Event::Read { call, on, .. } if *call == id => format!("reads on {on}"),
            Event::Returned { call } if *call == id => "returns the connection".to_owned(),
            Event::Ended { call, outcome } if *call == id => match outcome {
                Outcome::Done => "succeeds".to_owned(),
                Outcome::Cancelled => "is cancelled".to_owned(),
                Outcome::Failed { kind, applied } => format!("fails: {kind}, applied: {applied:?}"),
            },
            _ => continue,
        };
        text.push_str(&format!("{:8.3}   {what}\n", record.at.as_secs_f64()));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        adversary::{Target, Work},
        properties::{Record, Session},
    };

    #[test]
    fn calls_of_violations_are_described() {
        let (call, on) = (CallId(18), Instance { pod: 2, incarnation: 0 });
        let (address, session) = (([10, 0, 0, 2], 5432).into(), Session::default());
        let (client, caller, work, target) = (1, 0, Work::Insert, Target::Primary);
        let events = [
            (1, Event::Began { call, client, caller, work, target, ids: vec![7] }),
            (2, Event::CheckedOut { call, on, address, role: None, session }),
            (3, Event::Returned { call }),
            (3, Event::Ended { call, outcome: Outcome::Done }),
            (4, Event::Returned { call: CallId(1) }),
        ];
        let record = |(at, event)| Record { at: Duration::from_millis(at), event };
        let history = History { records: events.into_iter().map(record).collect(), ..History::default() };
        let text = "call 18 received a connection to pod-2, which is drained".to_owned();
        let violation = Violation { property: "membership", at: Duration::from_millis(2), text };
        let expected = "call 18 of client-1: insert, target primary, ids 7
   0.001   begins
   0.002   receives a connection to pod-2 at 10.0.0.2:5432
   0.003   returns the connection
   0.003   succeeds
";
        assert_eq!(calls(&history, &[violation.clone(), violation]), expected);
        assert_eq!(calls(&history, &[]), "");
    }
}
