//! What [`meter`](super) is without the feature `metrics`: nothing, and it costs nothing.

use super::{shared::Shared, view::View};
use crate::{
    config::Config,
    error::Error,
    time::{Duration, Instant},
};

/// Records times.
#[derive(Debug)]
pub(crate) struct PoolMetrics;

impl PoolMetrics {
    pub(crate) fn new(_config: &Config) -> Self {
        Self
    }

    pub(crate) fn waited<T>(&self, _since: Instant, _result: &Result<T, Error>) {}

    pub(crate) fn connected(&self, _took: Duration) {}

    pub(crate) fn counters(&self, _common: &Shared) {}
}

/// Gives the pool's numbers to the recorder.
#[derive(Debug, Default)]
pub(crate) struct Exporter;

impl Exporter {
    pub(crate) fn export(&mut self, _common: &Shared, _view: &View) {}
}
