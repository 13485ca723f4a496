//! Replaces the module `metrics` in builds without the feature `metrics`. The types have the same interface and do
//! nothing.

use super::{shared::Shared, view::View};
use crate::{
    config::Config,
    error::Error,
    time::{Duration, Instant},
};

/// Replacement for `metrics::PoolMetrics` that records nothing.
#[derive(Debug)]
pub(crate) struct PoolMetrics;

impl PoolMetrics {
    pub(crate) fn new(_config: &Config) -> Self {
        Self
    }

    pub(crate) fn waited<T>(&self, _since: Instant, _result: &Result<T, Error>) {}

    pub(crate) fn connected(&self, _took: Duration) {}

    pub(crate) fn counters(&self, _shared: &Shared) {}
}

/// Replacement for `metrics::Exporter` that exports nothing.
#[derive(Debug, Default)]
pub(crate) struct Exporter;

impl Exporter {
    pub(crate) fn export(&mut self, _shared: &Shared, _view: &View) {}
}

/// Replacement for `metrics::UseTimes` that stores no use times.
#[derive(Debug)]
pub(crate) struct UseTimes;

impl UseTimes {
    pub(crate) fn new(_pool_size: usize) -> Self {
        Self
    }
}

/// Replacement for `metrics::UseTimer` that measures nothing.
#[derive(Debug, Default)]
pub(crate) struct UseTimer {}

impl UseTimer {
    #[inline]
    pub(crate) fn begin(&mut self, _tick: u64) {}

    #[inline]
    pub(crate) fn end(&mut self, _times: &UseTimes) {}
}
