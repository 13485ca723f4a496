//! What [`meter`](super) is without the feature `metrics`: nothing, and it costs nothing.

use super::{shared::Common, view::View};
use crate::{
    config::Config,
    error::Error,
    time::{Duration, Instant},
};

/// Records times.
#[derive(Debug)]
pub(crate) struct Meter;

impl Meter {
    pub(crate) fn new(_config: &Config) -> Self {
        Self
    }

    pub(crate) fn waited<T>(&self, _since: Instant, _result: &Result<T, Error>) {}

    pub(crate) fn connected(&self, _took: Duration) {}

    pub(crate) fn counters(&self, _common: &Common) {}
}

/// Gives the pool's numbers to the recorder.
#[derive(Debug, Default)]
pub(crate) struct Exporter;

impl Exporter {
    pub(crate) fn export(&mut self, _common: &Common, _view: &View) {}
}
