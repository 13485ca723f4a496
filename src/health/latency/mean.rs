use std::time::Duration;

use super::FLOOR;

/// Time constant of the exponential decay with which old statements lose weight in the mean, in seconds. After this
/// time, a statement has about a third of its original weight.
const FADE: f64 = 5.0;
/// Approximate maximum number of statements in the mean. Without this limit, the many old statements of a busy Pod
/// would hide that the Pod has become slow. With 100 statements, the mean varies by up to a fifth by chance (two
/// standard errors, if the standard deviation of the durations equals their mean).
const MAX_STATEMENTS: f64 = 100.0;
/// Time constant, in seconds, of the exponential decay of the weight that the mean has compared with the probes.
const WEIGHT_FADE: f64 = 2.0;
/// Weight at which the mean and the probes have similar shares in the latency class. The mean's share is slightly
/// larger.
const EVEN_WEIGHT: f64 = 5.0;
/// Maximum weight of the mean. At this weight, the probes no longer count. Without this limit, the weight would grow
/// with the traffic, and after a slow period a busy Pod would count as slow for longer than a Pod with little traffic.
const MAX_WEIGHT: f64 = 20.0;
/// Weight below which the mean is discarded.
const MIN_WEIGHT: f64 = 1.0;
/// Maximum average duration of the statements of one interval, as a multiple of the current mean. A longer average is
/// clipped to this maximum. Without the limit, a Pod that hung once for a few seconds would count as slow for half a
/// minute, although it is as fast as before when it continues.
const MAX_RISE: f64 = 16.0;

/// A number of statements and their total duration.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Work {
    pub(crate) statements: u64,
    pub(crate) time: Duration,
}

impl Work {
    pub(crate) fn add(&mut self, (statements, time): (u64, Duration)) {
        self.statements += statements;
        self.time += time;
    }

    /// Returns the statements and the time that were added since `earlier`, an older value of this counter.
    pub(crate) fn since(self, earlier: Self) -> Self {
        let statements = self.statements.saturating_sub(earlier.statements);
        Self { statements, time: self.time.saturating_sub(earlier.time) }
    }

    pub(super) fn micros(self) -> f64 {
        self.time.as_secs_f64() * 1e6
    }
}

/// The mean duration of recent statements, in microseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Mean {
    /// The number of recent statements. This value and `time`, their total duration, decay exponentially.
    statements: f64,
    time: f64,
    /// The weight of the mean, up to [`MAX_WEIGHT`]. Decays faster than the statements.
    weight: f64,
}

impl Mean {
    /// Adds the statements that ended in an interval of length `seconds`, after decaying the older statements.
    pub(super) fn add(&mut self, work: Work, seconds: f64) {
        let fade = (-seconds / FADE).exp().min(MAX_STATEMENTS / self.statements.max(1.0));
        let more = work.statements as f64;
        let max_time = self.get().map_or(f64::INFINITY, |mean| mean.max(FLOOR) * MAX_RISE * more);
        self.statements = self.statements * fade + more;
        self.time = self.time * fade + work.micros().min(max_time);
        self.weight = (self.weight * (-seconds / WEIGHT_FADE).exp() + more).min(MAX_WEIGHT);
        if self.weight < MIN_WEIGHT {
            (self.statements, self.time) = (0.0, 0.0);
        }
    }

    /// Returns the number of recent statements. Older statements count as a fraction.
    pub(super) fn statements(&self) -> f64 {
        self.statements
    }

    /// Returns the mean if it has at least this number of recent statements.
    pub(super) fn of_at_least(&self, statements: f64) -> Option<f64> {
        self.get().filter(|_| self.statements >= statements)
    }

    /// Returns the mean, if there are recent statements.
    pub(super) fn get(&self) -> Option<f64> {
        (self.weight >= MIN_WEIGHT).then(|| self.time / self.statements)
    }

    /// Returns the share with which the mean determines the latency class, from 0.0 to 1.0. The probes have the
    /// remaining share.
    pub(super) fn share(&self) -> f64 {
        (1.0 + EVEN_WEIGHT / MAX_WEIGHT) * self.weight / (self.weight + EVEN_WEIGHT)
    }
}
