//! The values that OpenTelemetry's observable instruments report.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, LazyLock, Weak},
};

use opentelemetry::KeyValue;

use super::{
    super::sink::{Label, Sink, Value},
    attribute_of, pool_attributes,
};
use crate::{
    metrics,
    sync::{Mutex, lock},
};

/// The index of each metric in [`metrics::ALL`], by its name.
static INDICES: LazyLock<HashMap<&str, usize>> =
    LazyLock::new(|| metrics::ALL.iter().enumerate().map(|(index, metric)| (metric.name, index)).collect());

/// A pool whose counts the instruments read.
pub(crate) trait Observable: Send + Sync {
    /// Passes the current counters and gauges of the pool.
    fn observe(&self, observed: &mut Observed);
}

/// One value of an instrument.
pub(super) struct Observation {
    pub(super) value: f64,
    pub(super) attributes: Vec<KeyValue>,
}

/// The values of all observable instruments.
#[derive(Default)]
pub(crate) struct Observed {
    /// The values at the index of their metric in [`metrics::ALL`].
    by_metric: Vec<Vec<Observation>>,
    /// The attributes of the pool that is being read.
    pool: Vec<KeyValue>,
}

impl Observed {
    /// Sets the name of the pool whose values follow.
    pub(crate) fn of_pool(&mut self, name: &Arc<str>) {
        self.pool = pool_attributes(name).into();
    }

    fn push(&mut self, name: &'static str, labels: &[Label], value: f64) {
        let attributes = self.pool.iter().cloned().chain(labels.iter().filter_map(attribute)).collect();
        if let Some(values) = INDICES.get(name).and_then(|index| self.by_metric.get_mut(*index)) {
            values.push(Observation { value, attributes });
        }
    }
}

impl Sink for Observed {
    const KEEPS_SERIES: bool = false;

    fn counter(&mut self, name: &'static str, labels: &[Label], total: u64) {
        // Exact: a counter never reaches 2^53.
        self.push(name, labels, total as f64);
    }

    fn gauge(&mut self, name: &'static str, labels: &[Label], value: f64) {
        self.push(name, labels, value);
    }
}

/// Returns the attribute for a label. A missing port has none.
pub(super) fn attribute(Label(name, value): &Label) -> Option<KeyValue> {
    let name = attribute_of(name);
    match value {
        Value::Fixed(value) => Some(KeyValue::new(name, *value)),
        Value::Port(port) => port.map(|port| KeyValue::new(name, i64::from(port))),
        Value::Shared(value) => Some(KeyValue::new(name, value.clone())),
    }
}

/// The pools that the instruments of one provider read.
#[derive(Default)]
pub(super) struct Readings {
    sources: Mutex<Vec<Weak<dyn Observable>>>,
    /// The values of the last reading that no instrument has taken yet. `None` if the values of the metric were taken.
    untaken: Mutex<Vec<Option<Vec<Observation>>>>,
}

impl Readings {
    /// Adds a pool.
    pub(super) fn add(&self, source: Weak<dyn Observable>) {
        let mut sources = lock(&self.sources);
        sources.retain(|source| source.strong_count() > 0);
        sources.push(source);
    }

    /// Returns the values of the metric with this index. All pools are read once for each collection: by the first
    /// instrument whose values were already taken.
    pub(super) fn take(&self, metric: usize) -> Vec<Observation> {
        // Dropped last, outside of the locks, because this may be the last reference to the state of a pool.
        let mut sources = Vec::new();
        let mut untaken = lock(&self.untaken);
        if let Some(values) = untaken.get_mut(metric).and_then(Option::take) {
            return values;
        }
        sources.extend(lock(&self.sources).iter().filter_map(Weak::upgrade));
        let mut observed = Observed::default();
        observed.by_metric.resize_with(metrics::ALL.len(), Vec::new);
        sources.iter().for_each(|source| source.observe(&mut observed));
        *untaken = observed.by_metric.into_iter().map(Some).collect();
        untaken.get_mut(metric).and_then(Option::take).unwrap_or_default()
    }
}

impl fmt::Debug for Readings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readings").field("pools", &lock(&self.sources).len()).finish_non_exhaustive()
    }
}
