//! Which Pods exist: the set after a lookup, confirmed absences, and losses.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use serde::{Deserialize, Serialize};

use super::{Clock, Decision, NoSettings, PAGE, check, path};
use crate::{
    config::AbsentPods,
    discovery::{confirm::Confirm, losses::Losses},
    endpoint::Endpoint,
    time::{Duration, Instant},
};

struct Membership {
    clock: Clock,
    confirm: Confirm,
    /// Every Pod that the case has named.
    seen: BTreeSet<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// `drain` or `keep`.
    absent_pods: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Event {
    /// A lookup returned Pods.
    Answer { known: BTreeMap<String, bool>, named: Vec<String>, valid_until_ms: u64 },
    /// A lookup returned NXDOMAIN or NODATA.
    Negative { known: BTreeMap<String, bool>, ttl_ms: Option<u64> },
    /// A lookup failed.
    Error,
    /// A lookup returned exactly the known Pods.
    Unchanged,
}

#[derive(Serialize)]
struct Outcome {
    /// All Pods after the event. `None` if the event leaves them as they are.
    pods: Option<Vec<String>>,
    absent: Vec<String>,
    missing: Vec<String>,
    recheck_at_ms: Option<u64>,
}

fn endpoint(text: &str) -> Endpoint {
    Endpoint::new(text.parse().unwrap_or_else(|error| panic!("address `{text}`: {error}")))
}

fn texts(endpoints: &[Endpoint]) -> Vec<String> {
    endpoints.iter().map(Endpoint::to_string).collect()
}

impl Membership {
    fn known(&mut self, known: &BTreeMap<String, bool>) -> Vec<(Endpoint, bool)> {
        self.seen.extend(known.keys().cloned());
        known.iter().map(|(pod, passes)| (endpoint(pod), *passes)).collect()
    }
}

impl Decision for Membership {
    const NAME: &str = "membership";
    type Settings = Settings;
    type Event = Event;
    type Outcome = Outcome;

    fn new(settings: &Settings, clock: Clock) -> Self {
        let absent_pods: AbsentPods = settings.absent_pods.parse().expect("`drain` or `keep`");
        Self { clock, confirm: Confirm::new(absent_pods), seen: BTreeSet::new() }
    }

    fn apply(&mut self, event: &Event, now: Instant) -> Outcome {
        let decision = match event {
            Event::Answer { known, named, valid_until_ms } => {
                let known = self.known(known);
                let named: Vec<_> = named.iter().map(|pod| endpoint(pod)).collect();
                Some(self.confirm.answer(now, &known, &named, self.clock.at(*valid_until_ms)))
            }
            Event::Negative { known, ttl_ms } => {
                let known = self.known(known);
                Some(self.confirm.negative(now, &known, ttl_ms.map(Duration::from_millis)))
            }
            Event::Error => {
                self.confirm.error();
                None
            }
            Event::Unchanged => {
                self.confirm.unchanged();
                None
            }
        };
        let missing = self.seen.iter().filter(|pod| self.confirm.is_missing(&endpoint(pod))).cloned().collect();
        Outcome {
            pods: decision.as_ref().map(|decision| texts(&decision.set)),
            absent: decision.as_ref().map_or(Vec::new(), |decision| texts(&decision.absent)),
            missing,
            recheck_at_ms: decision.and_then(|decision| decision.recheck_at).map(|at| self.clock.ms(at)),
        }
    }
}

struct Lost(Losses);

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Missing {
    /// Requested targets that no named Pod serves.
    targets: Vec<String>,
    /// Serial numbers of Pods that failed or are missing from DNS.
    pods: Vec<u64>,
}

#[derive(Serialize)]
struct Loss {
    /// Whether something is missing that was not before.
    is_new: bool,
    /// Whether nothing is missing.
    is_empty: bool,
}

impl Decision for Lost {
    const NAME: &str = "losses";
    type Settings = NoSettings;
    type Event = Missing;
    type Outcome = Loss;

    fn new(_: &NoSettings, _: Clock) -> Self {
        Self(Losses::default())
    }

    fn apply(&mut self, event: &Missing, _: Instant) -> Loss {
        let is_new = self.0.update(super::targets::bits(&event.targets), event.pods.clone());
        Loss { is_new, is_empty: self.0.is_empty() }
    }
}

#[test]
fn membership() {
    check::<Membership>();
    let example = PAGE.split("```json\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let file = fs::read_to_string(path::<Membership>()).expect("it was read before");
    assert!(file.contains(example.trim_end()), "the example in docs/vectors.md differs from the file");
}

#[test]
fn losses() {
    check::<Lost>();
}
