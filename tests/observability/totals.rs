//! Totals of the metrics that a [`DebuggingRecorder`](metrics_util::debugging::DebuggingRecorder) has received.

use std::collections::BTreeMap;

use metrics_util::debugging::{DebugValue, Snapshotter};

/// The values of counters and gauges, each summed over all labels.
pub(crate) struct Totals {
    snapshotter: Snapshotter,
    by_name: BTreeMap<String, f64>,
}

impl Totals {
    pub(crate) fn new(snapshotter: Snapshotter) -> Self {
        Self { snapshotter, by_name: BTreeMap::new() }
    }

    /// Returns the current total of a metric. Panics if it was never exported.
    pub(crate) fn of(&mut self, name: &str) -> f64 {
        // A snapshot resets the recorder's counters to zero, but keeps its gauges.
        let mut gauges = BTreeMap::new();
        for (key, _, _, value) in self.snapshotter.snapshot().into_vec() {
            let name = key.key().name().to_owned();
            match value {
                DebugValue::Counter(increase) => *self.by_name.entry(name).or_default() += increase as f64,
                DebugValue::Gauge(value) => *gauges.entry(name).or_default() += value.into_inner(),
                DebugValue::Histogram(_) => {}
            }
        }
        self.by_name.extend(gauges);
        self.by_name.get(name).copied().unwrap_or_else(|| panic!("{name} was never exported"))
    }
}
