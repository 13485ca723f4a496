//! The health state of one Pod, and the evidence that changes it.

use serde::{Deserialize, Serialize};

use super::{Clock, Decision, NoSettings, check};
use crate::{
    health::{
        local::LocalHealth,
        outlier::{Outlier, Rule},
        state::{Health, HealthEvent},
        suspicion::{Conclusion, Suspicion},
    },
    time::{Duration, Instant},
};

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Event {
    /// A probe passed. `alone`: no other Pod with the role of the Pod serves.
    Passed { alone: bool },
    /// A probe failed. `conclusive`: the failure alone proves that the Pod does not serve.
    Failed { conclusive: bool },
    /// Traffic produced evidence against the Pod.
    Evidence,
    /// Discovery removed the Pod.
    Removed,
}

#[derive(Serialize)]
struct State {
    state: String,
    /// Whether the Pod passes its probes, even if it does not receive traffic yet.
    passing: bool,
    /// The previous state, if the event changed it.
    before: Option<String>,
}

struct PodHealth(Health);

impl Decision for PodHealth {
    const NAME: &str = "health";
    type Settings = NoSettings;
    type Event = Event;
    type Outcome = State;

    fn new(_: &NoSettings, _: Clock) -> Self {
        Self(Health::new())
    }

    fn apply(&mut self, event: &Event, now: Instant) -> State {
        let event = match *event {
            Event::Passed { alone } => HealthEvent::Passed { alone },
            Event::Failed { conclusive } => HealthEvent::Failed { conclusive },
            Event::Evidence => HealthEvent::Evidence,
            Event::Removed => HealthEvent::Removed,
        };
        let before = self.0.apply(event, now).map(|state| state.to_string());
        State { state: self.0.state().to_string(), passing: self.0.passing(), before }
    }
}

struct Suspect(Clock, Suspicion);

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Sign {
    /// A session ended that the pool did not end.
    SessionEnded,
    /// The Pod responded to a probe that was sent at this time.
    Responded { sent_ms: u64 },
    /// The Pod was ejected.
    Ejected,
}

#[derive(Serialize)]
struct Suspected {
    suspect: bool,
    /// Whether the server has ended, so that the Pod must be ejected.
    ended: bool,
}

impl Decision for Suspect {
    const NAME: &str = "suspicion";
    type Settings = NoSettings;
    type Event = Sign;
    type Outcome = Suspected;

    fn new(_: &NoSettings, clock: Clock) -> Self {
        Self(clock, Suspicion::default())
    }

    fn apply(&mut self, event: &Sign, now: Instant) -> Suspected {
        let Self(clock, suspicion) = self;
        let before = suspicion.is_suspect();
        let ended = match event {
            Sign::SessionEnded => suspicion.session_ended(1, false, now) == Conclusion::Ended,
            Sign::Responded { sent_ms } => {
                let cleared = suspicion.responded(clock.at(*sent_ms));
                assert_eq!(cleared, before && !suspicion.is_suspect());
                false
            }
            Sign::Ejected => {
                suspicion.clear();
                false
            }
        };
        Suspected { suspect: suspicion.is_suspect(), ended }
    }
}

struct Local(Clock, LocalHealth);

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Ticks {
    interval_ms: u64,
    tolerance_ms: u64,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Timing {
    /// The periodic tick runs.
    Tick,
    /// A timer that was started at `since_ms` and was due at `due_ms` fires.
    Timer { since_ms: u64, due_ms: u64 },
}

#[derive(Serialize)]
struct Lateness {
    /// Whether the timer proves nothing, because the client itself was late. Null for a tick.
    was_late: Option<bool>,
}

impl Decision for Local {
    const NAME: &str = "local";
    type Settings = Ticks;
    type Event = Timing;
    type Outcome = Lateness;

    fn new(settings: &Ticks, clock: Clock) -> Self {
        let [interval, tolerance] = [settings.interval_ms, settings.tolerance_ms].map(Duration::from_millis);
        Self(clock, LocalHealth::new(interval, tolerance, clock.at(0)))
    }

    fn apply(&mut self, event: &Timing, now: Instant) -> Lateness {
        let Self(clock, local) = self;
        let was_late = match event {
            Timing::Tick => {
                local.tick(now);
                None
            }
            Timing::Timer { since_ms, due_ms } => Some(local.was_late(clock.at(*since_ms), clock.at(*due_ms), now)),
        };
        Lateness { was_late }
    }
}

struct Statements(Rule, Outlier);

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    /// Consecutive failures that make a Pod an outlier.
    consecutive: u32,
    /// The share of the window's statements that must succeed.
    success_rate: f64,
    window_ms: u64,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum Traffic {
    /// Statements since the last event, the failed ones among them, and the failures in a row up to the last one.
    Statements { all: u64, failed: u64, in_a_row: u32 },
    /// The Pod was ejected.
    Ejected,
}

#[derive(Serialize)]
struct Judged {
    outlier: bool,
}

impl Decision for Statements {
    const NAME: &str = "outlier";
    type Settings = Limits;
    type Event = Traffic;
    type Outcome = Judged;

    fn new(settings: &Limits, _: Clock) -> Self {
        let window = Duration::from_millis(settings.window_ms);
        let rule = Rule { consecutive: settings.consecutive, success_rate: settings.success_rate, window };
        Self(rule, Outlier::default())
    }

    fn apply(&mut self, event: &Traffic, now: Instant) -> Judged {
        let Self(rule, outlier) = self;
        let outlier = match *event {
            Traffic::Statements { all, failed, in_a_row } => outlier.record(rule, all, failed, in_a_row, now),
            Traffic::Ejected => {
                outlier.clear();
                false
            }
        };
        Judged { outlier }
    }
}

#[test]
fn health() {
    check::<PodHealth>();
}

#[test]
fn suspicion() {
    check::<Suspect>();
}

#[test]
fn local() {
    check::<Local>();
}

#[test]
fn outlier() {
    check::<Statements>();
}
