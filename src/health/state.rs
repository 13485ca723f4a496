//! The health state of one Pod and its transitions.
//!
//! | state | passed probe | failed probe | evidence from traffic |
//! |---|---|---|---|
//! | `Probing` | → `Healthy` | no change | no change |
//! | `Healthy` | no change | → `Ejected` (1) | → `Ejected` |
//! | `Ejected` | → `Healthy` (2) | restarts the count of passed probes | restarts the count of passed probes |
//! | `Draining` | no change | no change | no change |
//!
//! 1. The Pod is ejected immediately if the failure is conclusive (see [`HealthEvent::Failed`]), and after the second
//!    consecutive failure if it is not.
//! 2. The Pod returns after the second consecutive passed probe, but not before its backoff has ended. If no other Pod
//!    of the same role serves, the Pod returns after the first passed probe, regardless of its backoff.
//!
//! Every state changes to `Draining` when discovery removes the Pod.
//!
//! Evidence from traffic has two forms. One is a failure that no statement can cause: the server ended two sessions at
//! the same time (SQLSTATE 57P01, 57P02, 57P03), or two connections broke. A single ended session only makes the Pod
//! [suspect](super::suspicion). The other form is a series or a high share of failed statements, which makes the Pod an
//! [outlier](super::outlier).
//!
//! The backoff delays the return of a Pod that relapses: it is ejected again within 5 minutes of its last return. The
//! backoff is 1 s after the first relapse and doubles with each further relapse, up to 30 s.

use std::{fmt, time::Duration};

use crate::time::Instant;

/// Number of consecutive passed probes after which an ejected Pod returns.
pub(crate) const PASSES_TO_RETURN: u32 = 2;
/// Number of consecutive failed probes after which a Pod is ejected even if every failure is inconclusive.
pub(crate) const FAILURES_TO_EJECT: u32 = 2;
/// Backoff after a Pod's first relapse. The backoff doubles with each further relapse.
const RETURN_BACKOFF_MIN: Duration = Duration::from_secs(1);
/// Maximum backoff, after any number of relapses.
const RETURN_BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Time after a Pod's return within which an ejection counts as a relapse, which increases the backoff.
pub(crate) const RELAPSE: Duration = Duration::from_secs(5 * 60);

/// The health state of a Pod.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum State {
    /// The Pod is new and has not passed a probe yet. It receives no traffic.
    Probing,
    /// The Pod receives traffic.
    Healthy,
    /// The Pod failed. It receives no traffic while another Pod is healthy, and is probed until it returns.
    Ejected,
    /// The Pod is no longer behind the Service. Idle connections to it are closed immediately; connections in use are
    /// closed when they are returned.
    Draining,
}

impl State {
    /// Every state.
    pub const ALL: &'static [Self] = &[Self::Probing, Self::Healthy, Self::Ejected, Self::Draining];

    /// Returns the name of the state in lower case.
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

/// An observation that can change the state of a Pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum HealthEvent {
    /// A probe passed. `alone` is true if no other Pod with the role of the probed Pod serves.
    Passed { alone: bool },
    /// A probe failed. `conclusive` is true if the failure alone proves that the Pod does not serve: the dial failed,
    /// the probe's query failed, or the probe timed out while no byte was received on any connection to the Pod.
    Failed { conclusive: bool },
    /// Traffic produced evidence against the Pod: several sessions ended together, or so many statements failed that
    /// the Pod is an outlier.
    Evidence,
    /// Discovery removed the Pod.
    Removed,
}

/// The health of one Pod.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    state: State,
    /// Number of consecutive passed probes while ejected.
    passes: u32,
    /// Number of consecutive inconclusive failed probes while healthy.
    failures: u32,
    /// Time of the last change from `Ejected` to `Healthy`.
    returned: Option<Instant>,
    /// The backoff after the last ejection. Zero if it was not a relapse.
    backoff: Duration,
    /// Time at which the current backoff ends. `None` if the Pod has never been ejected.
    not_before: Option<Instant>,
}

impl Health {
    /// Creates the health of a new Pod.
    pub(crate) fn new() -> Self {
        Self {
            state: State::Probing,
            passes: 0,
            failures: 0,
            returned: None,
            backoff: Duration::ZERO,
            not_before: None,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// Returns true if the Pod passes its probes, even if it does not receive traffic yet.
    pub(crate) fn passing(&self) -> bool {
        self.state == State::Healthy || self.passes > 0
    }

    /// Applies an event. Returns the previous state if the state changed.
    pub(crate) fn apply(&mut self, event: HealthEvent, now: Instant) -> Option<State> {
        let before = self.state;
        match (before, event) {
            (State::Draining, _) => {}
            (_, HealthEvent::Removed) => self.state = State::Draining,
            (State::Probing, HealthEvent::Passed { .. }) => self.state = State::Healthy,
            (State::Probing, _) => {}
            (State::Healthy, HealthEvent::Passed { .. }) => self.failures = 0,
            (State::Healthy, HealthEvent::Failed { conclusive }) => {
                self.failures += 1;
                if conclusive || self.failures >= FAILURES_TO_EJECT {
                    self.eject(now);
                }
            }
            (State::Healthy, HealthEvent::Evidence) => self.eject(now),
            (State::Ejected, HealthEvent::Passed { alone }) => {
                self.passes += 1;
                let enough = alone || self.passes >= PASSES_TO_RETURN;
                if enough && self.not_before.is_none_or(|at| alone || at <= now) {
                    self.state = State::Healthy;
                    self.returned = Some(now);
                    self.failures = 0;
                }
            }
            (State::Ejected, HealthEvent::Failed { .. } | HealthEvent::Evidence) => self.passes = 0,
        }
        (self.state != before).then_some(before)
    }

    fn eject(&mut self, now: Instant) {
        self.state = State::Ejected;
        self.passes = 0;
        self.failures = 0;
        let relapsed = self.returned.is_some_and(|returned| now < returned + RELAPSE);
        self.backoff = match relapsed {
            true => (self.backoff * 2).clamp(RETURN_BACKOFF_MIN, RETURN_BACKOFF_MAX),
            false => Duration::ZERO,
        };
        self.not_before = Some(now + self.backoff);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSED: HealthEvent = HealthEvent::Passed { alone: false };
    const FAILED: HealthEvent = HealthEvent::Failed { conclusive: true };

    fn healthy(now: Instant) -> Health {
        let mut health = Health::new();
        health.apply(PASSED, now);
        health
    }

    #[test]
    fn a_new_pod_serves_after_its_first_passed_probe() {
        let now = Instant::now();
        let mut health = Health::new();
        assert_eq!(health.apply(FAILED, now), None);
        assert_eq!(health.apply(PASSED, now), Some(State::Probing));
        assert_eq!(health.state(), State::Healthy);
    }

    #[test]
    fn two_consecutive_inconclusive_failures_eject_a_pod() {
        let now = Instant::now();
        let mut health = healthy(now);
        let inconclusive = HealthEvent::Failed { conclusive: false };
        assert_eq!(health.apply(inconclusive, now), None);
        assert_eq!(health.apply(PASSED, now), None);
        assert_eq!(health.apply(inconclusive, now), None);
        assert_eq!(health.apply(inconclusive, now), Some(State::Healthy));
        assert_eq!(health.state(), State::Ejected);
    }

    #[test]
    fn returns_after_two_passed_probes_or_one_if_alone() {
        let now = Instant::now();
        let mut health = healthy(now);
        health.apply(HealthEvent::Evidence, now);
        health.apply(PASSED, now);
        health.apply(FAILED, now);
        assert_eq!(health.apply(PASSED, now), None);
        assert_eq!(health.apply(PASSED, now), Some(State::Ejected));
        health.apply(FAILED, now);
        assert_eq!(health.apply(HealthEvent::Passed { alone: true }, now), Some(State::Ejected));
    }

    #[test]
    fn backoff_doubles_with_each_relapse() {
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
    fn a_removed_pod_never_becomes_healthy_again() {
        let now = Instant::now();
        let mut health = healthy(now);
        assert_eq!(health.apply(HealthEvent::Removed, now), Some(State::Healthy));
        for event in [PASSED, FAILED, HealthEvent::Evidence, HealthEvent::Removed] {
            assert_eq!(health.apply(event, now), None);
        }
    }

    fn event() -> impl Strategy<Value = HealthEvent> {
        prop_oneof![
            any::<bool>().prop_map(|alone| HealthEvent::Passed { alone }),
            any::<bool>().prop_map(|conclusive| HealthEvent::Failed { conclusive }),
            Just(HealthEvent::Evidence),
        ]
    }

    proptest! {
        /// Checks two properties after an arbitrary sequence of events: two failed probes eject the Pod, and passed
        /// probes return it to service within the maximum backoff.
        #[test]
        fn a_pod_can_be_ejected_and_return_after_any_history(
            history in prop::collection::vec((event(), 0..40_000u64), 0..60)
        ) {
            let mut now = Instant::now();
            let mut health = Health::new();
            for (event, millis) in history {
                now += Duration::from_millis(millis);
                health.apply(event, now);
            }
            let mut failing = health.clone();
            failing.apply(HealthEvent::Failed { conclusive: false }, now);
            failing.apply(HealthEvent::Failed { conclusive: false }, now);
            prop_assert_ne!(failing.state(), State::Healthy);
            let until = now + RETURN_BACKOFF_MAX + Duration::from_secs(1);
            while now < until {
                health.apply(PASSED, now);
                now += Duration::from_secs(1);
            }
            prop_assert_eq!(health.state(), State::Healthy);
        }
    }
}
