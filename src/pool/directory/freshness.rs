//! The age of the data of a standby, for calls that limit it.

use std::sync::Arc;

use crate::{
    health::lag::{self, Reading, Standby},
    pool::{
        inner::Inner,
        pod::{Pod, clock::TICK, requirement},
    },
    system::clock,
    time::{Duration, Instant},
};

/// The suspensions of the machine. The clock that measures ages stands still during a suspension.
#[derive(Debug, Default)]
pub(super) struct Suspensions {
    /// The total time of all suspensions, when they were counted last.
    total: Duration,
    /// The time at which the last suspension was noticed.
    resumed: Option<Instant>,
}

impl Suspensions {
    /// Returns the time at which the last suspension was noticed. Earlier observations are of unknown age.
    pub(super) fn resumed(&mut self) -> Option<Instant> {
        let total = clock::suspended();
        // A smaller difference is a delay between the reads of two clocks.
        if total > self.total + TICK {
            (self.total, self.resumed) = (total, Some(Instant::now()));
        }
        self.resumed
    }
}

/// Records how old the data of a standby is after a probe, and hands idle connections to waiters whose limit the data
/// now fulfills. `pods` contains the Pod of each pool, and `primary` positions of the primary's write-ahead log.
pub(super) fn set<'a>(
    pods: impl Iterator<Item = &'a Arc<Pod>>,
    standby: &Standby,
    primary: &[Reading],
    resumed: Option<Instant>,
) {
    let current_as_of = lag::current_as_of(primary, standby).filter(|at| resumed.is_none_or(|resumed| *at > resumed));
    let Some(at) = current_as_of else { return };
    let age = requirement::millis(Instant::now().saturating_duration_since(at));
    let fresh_at = Some(requirement::now().saturating_sub(age + 1));
    for pod in pods {
        pod.slot.set_fresh_at(fresh_at);
        Inner::serve_waiters_of(pod);
    }
}
