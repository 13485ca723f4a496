//! One Pod's state, and the transition that changes it.
//!
//! | state | a probe passed | a probe failed | hard evidence |
//! |---|---|---|---|
//! | `Probing` | → `Healthy` | stays | stays |
//! | `Healthy` | stays | → `Ejected`, at the second in a row where the first proves nothing | → `Ejected` |
//! | `Ejected` | → `Healthy` at the second in a row (the first, while no other Pod is healthy), not before the back-off | stays, counts from zero | stays, counts from zero |
//! | `Draining` | stays | stays | stays |
//!
//! Hard evidence is what cannot be the statement's own fault: the server said that it is shutting down (57P01, 57P02,
//! 57P03), or an established connection broke. The back-off doubles from 1 s to 30 s and delays only a Pod that passes
//! its probes and yet is ejected again by traffic within 5 minutes of its return.

use std::{fmt, time::Duration};

use crate::time::Instant;

/// Passed probes in a row that bring an ejected Pod back.
pub(crate) const PASSES_TO_RETURN: u32 = 2;
/// Probes that failed without proving anything, in a row, that eject a Pod.
pub(crate) const DOUBTS_TO_EJECT: u32 = 2;
/// The first back-off of a Pod that traffic ejects again.
pub(crate) const BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest back-off.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// How soon after its return an ejection counts as "again".
pub(crate) const RELAPSE: Duration = Duration::from_secs(5 * 60);

/// What a Pod is, to the pool.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum State {
    /// New: no probe has passed yet, so nothing is sent to it.
    Probing,
    /// It serves.
    Healthy,
    /// It failed; nothing is sent to it while another Pod serves. Probed until it returns.
    Ejected,
    /// It is gone from the name: idle connections are closed, borrowed ones when they come back.
    Draining,
}

impl State {
    /// The state in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Probing => "probing",
            Self::Healthy => "healthy",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Something that was seen of a Pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum HealthEvent {
    /// The probe passed. `alone`: no other Pod is healthy.
    Passed { alone: bool },
    /// The probe failed. `proven`: the failure by itself shows that the Pod does not serve (refused, closed, a FATAL,
    /// or silence while nothing else was heard from the Pod either).
    Failed { proven: bool },
    /// Traffic gave hard evidence.
    Evidence,
    /// The Pod is gone from the name.
    Removed,
}

/// One Pod's health.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    state: State,
    passes: u32,
    doubts: u32,
    returned: Option<Instant>,
    backoff: Duration,
    not_before: Option<Instant>,
}

impl Health {
    /// A new Pod's.
    pub(crate) fn new() -> Self {
        Self { state: State::Probing, passes: 0, doubts: 0, returned: None, backoff: Duration::ZERO, not_before: None }
    }

    /// The state.
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Whether the last word of the probes was that the Pod serves.
    pub(crate) fn passing(&self) -> bool {
        self.state == State::Healthy || self.passes > 0
    }

    /// Takes a fact in. Gives the state before, if it changed.
    pub(crate) fn apply(&mut self, fact: HealthEvent, now: Instant) -> Option<State> {
        let before = self.state;
        match (before, fact) {
            (State::Draining, _) => {}
            (_, HealthEvent::Removed) => self.state = State::Draining,
            (State::Probing, HealthEvent::Passed { .. }) => self.state = State::Healthy,
            (State::Probing, _) => {}
            (State::Healthy, HealthEvent::Passed { .. }) => self.doubts = 0,
            (State::Healthy, HealthEvent::Failed { proven }) => {
                self.doubts += 1;
                if proven || self.doubts >= DOUBTS_TO_EJECT {
                    self.eject();
                    self.not_before = None;
                }
            }
            (State::Healthy, HealthEvent::Evidence) => {
                self.eject();
                let again = self.returned.is_some_and(|returned| now < returned + RELAPSE);
                self.backoff = match again {
                    true => (self.backoff * 2).clamp(BACKOFF_MIN, BACKOFF_MAX),
                    false => Duration::ZERO,
                };
                self.not_before = Some(now + self.backoff);
            }
            (State::Ejected, HealthEvent::Passed { alone }) => {
                self.passes += 1;
                let enough = alone || self.passes >= PASSES_TO_RETURN;
                if enough && self.not_before.is_none_or(|at| alone || at <= now) {
                    self.state = State::Healthy;
                    self.returned = Some(now);
                    self.doubts = 0;
                }
            }
            (State::Ejected, HealthEvent::Failed { .. } | HealthEvent::Evidence) => self.passes = 0,
        }
        (self.state != before).then_some(before)
    }

    fn eject(&mut self) {
        self.state = State::Ejected;
        self.passes = 0;
        self.doubts = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSED: HealthEvent = HealthEvent::Passed { alone: false };
    const PROVEN: HealthEvent = HealthEvent::Failed { proven: true };

    fn healthy(now: Instant) -> Health {
        let mut health = Health::new();
        health.apply(PASSED, now);
        health
    }

    #[test]
    fn a_new_pod_serves_after_its_first_passed_probe() {
        let now = Instant::now();
        let mut health = Health::new();
        assert_eq!(health.apply(PROVEN, now), None);
        assert_eq!(health.apply(PASSED, now), Some(State::Probing));
        assert_eq!(health.state(), State::Healthy);
    }

    #[test]
    fn a_probe_that_proves_nothing_ejects_only_with_the_next_one() {
        let now = Instant::now();
        let mut health = healthy(now);
        let doubt = HealthEvent::Failed { proven: false };
        assert_eq!(health.apply(doubt, now), None);
        assert_eq!(health.apply(PASSED, now), None);
        assert_eq!(health.apply(doubt, now), None);
        assert_eq!(health.apply(doubt, now), Some(State::Healthy));
        assert_eq!(health.state(), State::Ejected);
    }

    #[test]
    fn two_passes_bring_it_back_and_one_if_it_is_alone() {
        let now = Instant::now();
        let mut health = healthy(now);
        health.apply(HealthEvent::Evidence, now);
        health.apply(PASSED, now);
        health.apply(PROVEN, now);
        assert_eq!(health.apply(PASSED, now), None);
        assert_eq!(health.apply(PASSED, now), Some(State::Ejected));
        health.apply(PROVEN, now);
        assert_eq!(health.apply(HealthEvent::Passed { alone: true }, now), Some(State::Ejected));
    }

    #[test]
    fn only_a_relapse_by_traffic_is_delayed_and_longer_each_time() {
        let start = Instant::now();
        let mut health = healthy(start);
        let mut now = start;
        let mut delays = Vec::new();
        for _ in 0..8 {
            health.apply(HealthEvent::Evidence, now);
            let out = now;
            while health.state() == State::Ejected {
                health.apply(PASSED, now);
                now += Duration::from_millis(100);
            }
            delays.push((now - out).as_secs());
        }
        assert_eq!(delays, [0, 1, 2, 4, 8, 16, 30, 30]);
        now += RELAPSE;
        health.apply(HealthEvent::Evidence, now);
        health.apply(PASSED, now);
        assert_eq!(health.apply(PASSED, now), Some(State::Ejected));
    }

    #[test]
    fn a_removed_pod_stays_removed() {
        let now = Instant::now();
        let mut health = healthy(now);
        assert_eq!(health.apply(HealthEvent::Removed, now), Some(State::Healthy));
        for fact in [PASSED, PROVEN, HealthEvent::Evidence, HealthEvent::Removed] {
            assert_eq!(health.apply(fact, now), None);
        }
    }

    fn fact() -> impl Strategy<Value = HealthEvent> {
        prop_oneof![
            any::<bool>().prop_map(|alone| HealthEvent::Passed { alone }),
            any::<bool>().prop_map(|proven| HealthEvent::Failed { proven }),
            Just(HealthEvent::Evidence),
        ]
    }

    proptest! {
        /// Whatever came before: two failed probes put a Pod out, and passing ones bring it back within the longest
        /// back-off.
        #[test]
        fn no_history_keeps_a_failing_pod_in_or_a_passing_pod_out(
            history in prop::collection::vec((fact(), 0..40_000u64), 0..60)
        ) {
            let mut now = Instant::now();
            let mut health = Health::new();
            for (fact, millis) in history {
                now += Duration::from_millis(millis);
                health.apply(fact, now);
            }
            let mut failing = health.clone();
            failing.apply(HealthEvent::Failed { proven: false }, now);
            failing.apply(HealthEvent::Failed { proven: false }, now);
            prop_assert_ne!(failing.state(), State::Healthy);
            let until = now + BACKOFF_MAX + Duration::from_secs(1);
            while now < until {
                health.apply(PASSED, now);
                now += Duration::from_secs(1);
            }
            prop_assert_eq!(health.state(), State::Healthy);
        }
    }
}
