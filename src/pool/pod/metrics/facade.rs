//! Passes the metrics of a pool to the recorder of the `metrics` facade.

use std::{collections::HashMap, mem, sync::Arc};

use metrics::{SharedString, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};

use super::sink::{Label, Sink, Value};
use crate::{
    metrics::{self as names, MetricKind, POD_LABELS, POOL_LABELS},
    sync::{Mutex, lock},
    time::Duration,
    trace::SYSTEM,
    unwind::catch,
};

/// The labels of the pool, and the last exported total of each counter.
#[derive(Debug)]
pub(super) struct Facade {
    name: SharedString,
    /// By metric name and labels.
    exported: Mutex<HashMap<(&'static str, Vec<Label>), u64>>,
}

impl Facade {
    /// Describes every metric to the installed recorder. `name` is the name of the pool.
    pub(super) fn new(name: Arc<str>) -> Self {
        for metric in names::ALL {
            // A panic of the application's metrics recorder must not make `build` fail.
            let _ = catch(|| match metric.kind {
                MetricKind::Counter => describe_counter!(metric.name, metric.help),
                MetricKind::Gauge => describe_gauge!(metric.name, metric.help),
                MetricKind::Histogram => describe_histogram!(metric.name, metric.help),
            });
        }
        Self { name: SharedString::from_shared(name), exported: Mutex::default() }
    }

    /// Returns the receiver of counters and gauges.
    pub(super) fn sink(&self) -> FacadeSink<'_> {
        FacadeSink(self)
    }

    pub(super) fn waited(&self, took: Duration, outcome: &'static str) {
        histogram!(names::CONNECTION_WAIT_TIME, self.labels(&[Label::fixed("outcome", outcome)])).record(took);
    }

    pub(super) fn connected(&self, took: Duration) {
        histogram!(names::CONNECTION_CREATE_TIME, self.labels(&[])).record(took);
    }

    pub(super) fn used(&self, pod: &Arc<str>, times: &[Duration]) {
        let labels = self.labels(&[Label::shared(POD_LABELS[0], pod.clone())]);
        let histogram = histogram!(names::CONNECTION_USE_TIME, labels);
        times.iter().for_each(|time| histogram.record(*time));
    }

    /// Returns the labels of the pool, followed by these.
    fn labels(&self, labels: &[Label]) -> Vec<metrics::Label> {
        let [name, system] = POOL_LABELS else { unreachable!("the pool has two labels") };
        let pool = [metrics::Label::new(*name, self.name.clone()), metrics::Label::new(*system, SYSTEM)];
        pool.into_iter().chain(labels.iter().map(label)).collect()
    }

    /// Replaces the last exported total of a counter. Returns the increase.
    fn increase(&self, name: &'static str, labels: &[Label], total: u64) -> u64 {
        let mut exported = lock(&self.exported);
        let exported = exported.entry((name, labels.to_vec())).or_default();
        total.saturating_sub(mem::replace(exported, total))
    }
}

fn label(Label(name, value): &Label) -> metrics::Label {
    match value {
        Value::Fixed(value) => metrics::Label::new(*name, *value),
        Value::Port(port) => metrics::Label::new(*name, port.map(|port| port.to_string()).unwrap_or_default()),
        Value::Shared(value) => metrics::Label::new(*name, SharedString::from_shared(value.clone())),
    }
}

/// Passes counters and gauges to the recorder.
pub(super) struct FacadeSink<'a>(&'a Facade);

impl Sink for FacadeSink<'_> {
    const KEEPS_SERIES: bool = true;

    /// Increments the counter by its increase since the last export, even if that is zero, so that the series exists.
    fn counter(&mut self, name: &'static str, labels: &[Label], total: u64) {
        let increase = self.0.increase(name, labels, total);
        counter!(name, self.0.labels(labels)).increment(increase);
    }

    fn gauge(&mut self, name: &'static str, labels: &[Label], value: f64) {
        gauge!(name, self.0.labels(labels)).set(value);
    }
}
