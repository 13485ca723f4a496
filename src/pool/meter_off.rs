//! What [`meter`](super) is without the feature `metrics`: nothing, and it costs nothing.

use std::sync::Arc;

use super::inner::Inner;
use crate::{config::Config, error::Error, time::Duration};

/// Records times.
#[derive(Debug)]
pub(crate) struct Meter;

impl Meter {
    pub(crate) fn new(_config: &Config) -> Self {
        Self
    }

    pub(crate) fn waited<T>(&self, _took: Duration, _result: &Result<T, Error>) {}

    pub(crate) fn connected(&self, _took: Duration) {}
}

/// Gives the pool's counts to the recorder.
pub(crate) struct Exporter;

impl Exporter {
    pub(crate) fn new(_inner: Arc<Inner>) -> Self {
        Self
    }

    pub(crate) fn export(&mut self) {}
}
