//! Conformance vectors: the pure decisions as JSON, for clients in other languages. `docs/vectors.md` describes the
//! format.
//!
//! The files in `tests/vectors/` contain the facts and events of each case, and the decisions that the code makes.
//! The test of a file fails if they differ. If the environment variable `PODPOOL_WRITE_VECTORS` is set, the test writes
//! the code's decisions into the file instead.

mod absence;
mod fencing;
mod health;
mod lag;
mod membership;
mod shares;
mod targets;

use std::{collections::BTreeSet, env, fs};

use serde::{
    Deserialize, Serialize,
    de::{DeserializeOwned, IgnoredAny},
};

use crate::time::{Duration, Instant};

/// The description of the files.
const PAGE: &str = include_str!("../../../docs/vectors.md");

/// A decision of the library, with the state that it keeps between events.
trait Decision: Sized {
    /// The name of the file.
    const NAME: &str;
    type Settings: DeserializeOwned + Serialize;
    type Event: DeserializeOwned + Serialize;
    type Outcome: Serialize;

    /// Creates the state before the first event, at the beginning of the case.
    fn new(settings: &Self::Settings, clock: Clock) -> Self;

    /// Applies an event that happens at `now`.
    fn apply(&mut self, event: &Self::Event, now: Instant) -> Self::Outcome;
}

/// Converts the times of a case, which count from its beginning, in milliseconds.
#[derive(Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn at(self, ms: u64) -> Instant {
        self.0 + Duration::from_millis(ms)
    }

    fn ms(self, at: Instant) -> u64 {
        millis(at.duration_since(self.0))
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("the times of a case are short")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File<S, E> {
    decision: String,
    cases: Vec<Case<S, E>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case<S, E> {
    /// What the case shows. Unique in its file.
    name: String,
    settings: S,
    steps: Vec<Step<E>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step<E> {
    /// Time of the event. Never decreases within a case.
    at_ms: u64,
    event: E,
    /// The decision. Compared as text.
    #[serde(default, rename = "then")]
    _then: IgnoredAny,
}

/// Returns the path of a decision's file.
fn path<D: Decision>() -> String {
    format!("{}/tests/vectors/{}.json", env!("CARGO_MANIFEST_DIR"), D::NAME)
}

/// Compares the file of a decision with the code, or writes it.
fn check<D: Decision>() {
    let path = path::<D>();
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let file: File<D::Settings, D::Event> =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"));
    assert_eq!(file.decision, D::NAME, "{path}");
    assert!(PAGE.contains(&format!("`{}.json`", D::NAME)), "docs/vectors.md describes {path}");
    let decided = decide::<D>(file.cases);
    if env::var_os("PODPOOL_WRITE_VECTORS").is_some() {
        fs::write(&path, &decided).unwrap_or_else(|error| panic!("{path}: {error}"));
        return;
    }
    for (line, (expected, got)) in text.lines().zip(decided.lines()).enumerate() {
        assert_eq!(got, expected, "{path}:{}: the code decides otherwise (left); see docs/vectors.md", line + 1);
    }
    assert_eq!(decided, text, "{path} has missing or further lines");
}

/// Returns the text of a file with the decisions of the code: one line for each step.
fn decide<D: Decision>(cases: Vec<Case<D::Settings, D::Event>>) -> String {
    let mut names = BTreeSet::new();
    let mut texts = Vec::new();
    for case in cases {
        assert!(names.insert(case.name.clone()), "two cases have the name `{}`", case.name);
        let clock = Clock(Instant::now());
        let (mut decision, mut last) = (D::new(&case.settings, clock), 0);
        let mut steps = Vec::new();
        for Step { at_ms, event, .. } in case.steps {
            assert!(at_ms >= last, "`{}`: the time decreases to {at_ms} ms", case.name);
            last = at_ms;
            let then = decision.apply(&event, clock.at(at_ms));
            let (event, then) = (json(&event), json(&then));
            steps.push(format!("        {{\"at_ms\":{at_ms},\"event\":{event},\"then\":{then}}}"));
        }
        texts.push(format!(
            "    {{\n      \"name\": {},\n      \"settings\": {},\n      \"steps\": [\n{}\n      ]\n    }}",
            json(&case.name),
            json(&case.settings),
            steps.join(",\n"),
        ));
    }
    format!("{{\n  \"decision\": {},\n  \"cases\": [\n{}\n  ]\n}}\n", json(&D::NAME), texts.join(",\n"))
}

/// Serializes a value to one line.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("the values have string keys")
}

/// Settings of a decision that has none.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct NoSettings {}

/// Returns true for the value that a field has if a file omits it.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_true(value: &bool) -> bool {
    *value
}

fn yes() -> bool {
    true
}

/// A role, by its name.
#[derive(Clone, Copy, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    Primary,
    Standby,
    #[default]
    Unknown,
}

impl From<Role> for crate::endpoint::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Primary => Self::Primary,
            Role::Standby => Self::Standby,
            Role::Unknown => Self::Unknown,
        }
    }
}
