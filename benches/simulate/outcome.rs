//! The measurements of one run.

use crate::strategy::Strategy;

/// Latencies, errors and shares of one run.
#[derive(Clone, Debug)]
pub(crate) struct Outcome {
    pub(crate) strategy: Strategy,
    /// Sorted latencies of the statements whose callers arrived in the measured interval, in milliseconds.
    pub(crate) latencies: Vec<f32>,
    /// Number of failed statements whose callers arrived in the measured interval.
    pub(crate) errors: u64,
    /// For each Pod, the number of completed statements whose callers arrived in the measured interval.
    pub(crate) shares: Vec<u64>,
}

impl Outcome {
    /// Returns a percentile of the latency, in milliseconds.
    pub(crate) fn percentile(&self, percent: f64) -> f64 {
        let place = (self.latencies.len() as f64 * percent / 100.0) as usize;
        f64::from(self.latencies[place.min(self.latencies.len() - 1)])
    }

    pub(crate) fn error_rate(&self) -> f64 {
        self.errors as f64 / self.latencies.len() as f64
    }

    /// Returns the ratio of the largest share to the mean share.
    pub(crate) fn max_to_mean(&self) -> f64 {
        let max = self.shares.iter().max().copied().unwrap_or_default();
        self.relative_share(max)
    }

    /// Returns the ratio of the first Pod's share to the mean share. In most scenarios, the first Pod is the faulty
    /// one.
    pub(crate) fn first_share(&self) -> f64 {
        self.relative_share(self.shares[0])
    }

    fn relative_share(&self, share: u64) -> f64 {
        share as f64 * self.shares.len() as f64 / self.shares.iter().sum::<u64>() as f64
    }
}
