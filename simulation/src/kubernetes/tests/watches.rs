//! The recorded watches.

use std::{collections::BTreeMap, net::IpAddr};

use serde_json::Value;

use super::super::{Conditions, Endpoint, EndpointSlice, Family, Pod, Port, SliceEvent};

/// The slices before a case, and the events of the watch with their times in milliseconds.
pub(super) struct Watch {
    pub(super) before: Vec<EndpointSlice>,
    pub(super) events: Vec<(u64, SliceEvent)>,
}

/// Reads a recording.
pub(super) fn read(case: &str) -> Watch {
    let file = |name: String| {
        let path = format!("{}/recordings/{name}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    };
    let list: Value = serde_json::from_str(&file(format!("list-{case}.json"))).unwrap();
    let before = list["items"].as_array().unwrap().iter().map(slice).collect();
    let lines = file(format!("watch-{case}.jsonl"));
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let events = events.filter_map(|line| Some((line["ms"].as_u64()?, event(line.get("line")?))));
    Watch { before, events: events.collect() }
}

fn event(value: &Value) -> SliceEvent {
    let slice = slice(&value["object"]);
    match value["type"].as_str().unwrap() {
        "ADDED" => SliceEvent::Added(slice),
        "MODIFIED" => SliceEvent::Modified(slice),
        "DELETED" => SliceEvent::Deleted(slice),
        other => panic!("event {other}"),
    }
}

fn slice(value: &Value) -> EndpointSlice {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let endpoint = |value: &Value| {
        let is_set = |condition: &str| value["conditions"][condition] == true;
        Endpoint {
            address: text(&value["addresses"][0]).parse().unwrap(),
            conditions: Conditions {
                ready: is_set("ready"),
                serving: is_set("serving"),
                terminating: is_set("terminating"),
            },
            hostname: value["hostname"].as_str().map(str::to_owned),
            node: text(&value["nodeName"]),
            pod: text(&value["targetRef"]["name"]),
        }
    };
    let metadata = &value["metadata"];
    EndpointSlice {
        namespace: text(&metadata["namespace"]),
        service: text(&metadata["labels"]["kubernetes.io/service-name"]),
        name: text(&metadata["name"]),
        family: if value["addressType"] == "IPv6" { Family::V6 } else { Family::V4 },
        endpoints: list(&value["endpoints"]).iter().map(endpoint).collect(),
        ports: list(&value["ports"])
            .iter()
            .map(|port| Port { name: text(&port["name"]), number: port["port"].as_u64().unwrap() as u16 })
            .collect(),
        generation: metadata["generation"].as_u64().unwrap(),
    }
}

/// The slices of one family, followed event by event.
#[derive(Default)]
pub(super) struct Followed {
    pub(super) slices: BTreeMap<String, EndpointSlice>,
    /// The addresses that each Pod has had.
    incarnations: BTreeMap<String, Vec<IpAddr>>,
}

/// A step of a Pod: which of its addresses, in the order of their appearance, and its conditions; `gone` without
/// an endpoint.
pub(super) type Step = (u64, String);

impl Followed {
    pub(super) fn apply(&mut self, event: &SliceEvent) {
        let slice = event.slice().clone();
        match event {
            SliceEvent::Deleted(_) => self.slices.remove(&slice.name),
            SliceEvent::Added(_) | SliceEvent::Modified(_) => self.slices.insert(slice.name.clone(), slice),
        };
    }

    /// Describes the endpoint of each Pod.
    pub(super) fn states(&mut self) -> BTreeMap<String, String> {
        let mut states = BTreeMap::new();
        for endpoint in self.slices.values().flat_map(|slice| &slice.endpoints) {
            let known = self.incarnations.entry(endpoint.pod.clone()).or_default();
            let index = known.iter().position(|address| *address == endpoint.address).unwrap_or_else(|| {
                known.push(endpoint.address);
                known.len() - 1
            });
            let Conditions { ready, serving, terminating } = endpoint.conditions;
            let state = format!("{index} ready={ready} serving={serving} terminating={terminating}");
            states.insert(endpoint.pod.clone(), state);
        }
        states
    }
}

/// Returns the steps of each Pod in a family.
pub(super) fn steps(
    before: &[EndpointSlice],
    events: &[(u64, SliceEvent)],
    family: Family,
) -> BTreeMap<String, Vec<Step>> {
    let mut followed = Followed::default();
    for slice in before.iter().filter(|slice| slice.family == family) {
        followed.apply(&SliceEvent::Added(slice.clone()));
    }
    let mut steps: BTreeMap<String, Vec<Step>> = BTreeMap::new();
    let mut states = followed.states();
    for (ms, event) in events.iter().filter(|(_, event)| event.slice().family == family) {
        followed.apply(event);
        let new = followed.states();
        for pod in states.keys().chain(new.keys()).cloned().collect::<std::collections::BTreeSet<_>>() {
            if states.get(&pod) != new.get(&pod) {
                let state = new.get(&pod).cloned().unwrap_or_else(|| "gone".to_owned());
                steps.entry(pod).or_default().push((*ms, state));
            }
        }
        states = new;
    }
    steps
}

/// Describes Pods for messages of failed assertions.
pub(super) fn describe(pods: &[&Pod]) -> Vec<String> {
    pods.iter().map(|pod| format!("{} ready={} deletion={:?}", pod.info.name, pod.ready, pod.deletion)).collect()
}
