//! Replaces the module `metrics` in builds with neither the feature `metrics` nor `otel`. The types have the same
//! interface and do nothing.

use std::sync::Arc;

use super::{Pod, shared::Shared, view::View};
use crate::{
    error::Error,
    event::Emitter,
    time::{Duration, Instant},
    wire::operations::OperationObserver,
};

/// Replacement for `metrics::Options` without settings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {}

/// Replacement for `metrics::PoolMetrics` that records nothing.
#[derive(Debug)]
pub(crate) struct PoolMetrics;

impl PoolMetrics {
    pub(crate) fn new(_options: Options, _events: Arc<Emitter>) -> Self {
        Self
    }

    pub(crate) fn waited<T>(&self, _since: Instant, _result: &Result<T, Error>) {}

    pub(crate) fn connected(&self, _took: Duration) {}

    pub(crate) fn export(&self, _collector: &mut Collector, _shared: &Shared, _view: &View) -> CollectedTimes {
        CollectedTimes
    }

    pub(crate) fn used(&self, _times: &CollectedTimes) {}

    pub(crate) fn export_last(&self, _shared: &Shared) {}

    pub(crate) fn operations(&self, _pod: &Pod) -> OperationObserver {
        OperationObserver {}
    }
}

/// Replacement for `metrics::Collector` that collects nothing.
#[derive(Debug, Default)]
pub(crate) struct Collector;

/// Replacement for `metrics::CollectedTimes`.
pub(crate) struct CollectedTimes;

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
