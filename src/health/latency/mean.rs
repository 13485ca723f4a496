use std::time::Duration;

use super::FLOOR;

/// Time constant in seconds with which the statements of the mean fade (to about a third).
const FADE: f64 = 3.0;
/// The maximum number of statements in the mean, approximately. It keeps the history of a busy Pod from hiding that the
/// Pod became slow. If the standard deviation of the statements equals their mean, chance moves a mean of 100
/// statements by up to a fifth (two standard errors).
const MAX_STATEMENTS: f64 = 100.0;
/// Time constant in seconds with which the weight of the mean fades (to about a third).
const WEIGHT_FADE: f64 = 2.0;
/// The weight at which the mean counts about as much as the probes.
const EVEN_WEIGHT: f64 = 5.0;
/// The weight from which on the probes no longer count. The weight never exceeds this value: otherwise, a busy Pod that
/// became slow would be remembered longer than an idle one.
const MAX_WEIGHT: f64 = 20.0;
/// The weight below which the mean is discarded.
const MIN_WEIGHT: f64 = 1.0;
/// The maximum factor by which the statements of one interval count for more than the mean. A Pod that hung for seconds
/// is slow, but it is as fast as before when it continues. Without this limit, it would stay slow for half a minute.
const MAX_RISE: f64 = 16.0;

/// A number of statements and the total time that they took.
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

    /// Returns the work since an earlier value of the same counter.
    pub(crate) fn since(self, earlier: Self) -> Self {
        let statements = self.statements.saturating_sub(earlier.statements);
        Self { statements, time: self.time.saturating_sub(earlier.time) }
    }

    pub(super) fn micros(self) -> f64 {
        self.time.as_secs_f64() * 1e6
    }
}

/// The mean time of a statement over the last seconds, in microseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Mean {
    /// Recent statements and the time that they took. Both fade.
    statements: f64,
    time: f64,
    /// The weight of the mean, up to [`MAX_WEIGHT`]. Fades faster than the statements.
    weight: f64,
}

impl Mean {
    /// Adds the work of an interval of this many seconds.
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

    /// Returns the mean, if there are enough recent statements.
    pub(super) fn get(&self) -> Option<f64> {
        (self.weight >= MIN_WEIGHT).then(|| self.time / self.statements)
    }

    /// Returns the share of the mean, from 0.0 to 1.0. The probes have the rest.
    pub(super) fn share(&self) -> f64 {
        (1.0 + EVEN_WEIGHT / MAX_WEIGHT) * self.weight / (self.weight + EVEN_WEIGHT)
    }
}
