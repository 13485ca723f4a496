//! A provider of instruments whose values are collected in memory.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::metrics::{
    InMemoryMetricExporter, PeriodicReader, SdkMeterProvider,
    data::{AggregatedMetrics, Metric, MetricData, ScopeMetrics},
};
use podpool::opentelemetry::metrics::MeterProvider;

/// A provider whose values are collected on demand.
pub(crate) struct Collection {
    provider: Arc<SdkMeterProvider>,
    exporter: InMemoryMetricExporter,
}

/// The kind of an instrument.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
    UpDownCounter,
}

/// The values of one instrument.
#[derive(Debug)]
pub(crate) struct Collected {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) description: String,
    pub(crate) kind: Kind,
    pub(crate) points: Vec<Point>,
}

/// One value, or the values of a histogram.
#[derive(Debug)]
pub(crate) struct Point {
    pub(crate) attributes: BTreeMap<String, Value>,
    /// The value, or the sum of the histogram.
    pub(crate) value: f64,
    /// The histogram: the number of values, the smallest and the largest one, and the upper bounds of the buckets.
    pub(crate) histogram: Option<(u64, f64, f64, Vec<f64>)>,
}

impl Point {
    /// Returns the text of an attribute, or an empty text if there is none.
    pub(crate) fn text(&self, attribute: &str) -> String {
        self.attributes.get(attribute).map(|value| value.as_str().into_owned()).unwrap_or_default()
    }

    /// Returns the number of values of a histogram.
    pub(crate) fn count(&self) -> u64 {
        self.histogram.as_ref().map_or(0, |histogram| histogram.0)
    }
}

impl Collection {
    pub(crate) fn new() -> Self {
        let exporter = InMemoryMetricExporter::default();
        // Only the calls of `collect` collect.
        let reader = PeriodicReader::builder(exporter.clone()).with_interval(Duration::from_secs(3600)).build();
        Self { provider: Arc::new(SdkMeterProvider::builder().with_reader(reader).build()), exporter }
    }

    pub(crate) fn provider(&self) -> Arc<dyn MeterProvider + Send + Sync> {
        self.provider.clone()
    }

    /// Collects all instruments. Panics unless they have the scope of the library.
    pub(crate) fn collect(&self) -> Vec<Collected> {
        self.exporter.reset();
        self.provider.force_flush().expect("the metrics are collected");
        let all = self.exporter.get_finished_metrics().expect("the metrics are exported");
        let scopes: Vec<_> = all.iter().flat_map(|metrics| metrics.scope_metrics()).collect();
        for scope in &scopes {
            let scope = scope.scope();
            assert_eq!((scope.name(), scope.version()), ("podpool", Some(env!("CARGO_PKG_VERSION"))));
            assert_eq!(scope.schema_url(), Some("https://opentelemetry.io/schemas/1.43.0"));
        }
        scopes.into_iter().flat_map(ScopeMetrics::metrics).map(collected).collect()
    }

    /// Collects the values of one instrument. Returns none if the instrument has no value.
    pub(crate) fn points(&self, name: &str) -> Vec<Point> {
        self.collect().into_iter().filter(|metric| metric.name == name).flat_map(|metric| metric.points).collect()
    }
}

fn collected(metric: &Metric) -> Collected {
    let (kind, points) = match metric.data() {
        AggregatedMetrics::F64(data) => read(data, |value| value),
        AggregatedMetrics::I64(data) => read(data, |value| value as f64),
        AggregatedMetrics::U64(data) => read(data, |value| value as f64),
    };
    let (name, unit, description) = (metric.name().into(), metric.unit().into(), metric.description().into());
    Collected { name, unit, description, kind, points }
}

fn read<T: Copy>(data: &MetricData<T>, number: impl Fn(T) -> f64) -> (Kind, Vec<Point>) {
    fn attributes<'a>(all: impl Iterator<Item = &'a KeyValue>) -> BTreeMap<String, Value> {
        all.map(|pair| (pair.key.to_string(), pair.value.clone())).collect()
    }
    match data {
        MetricData::Gauge(gauge) => {
            let points = gauge.data_points().map(|point| Point {
                attributes: attributes(point.attributes()),
                value: number(point.value()),
                histogram: None,
            });
            (Kind::Gauge, points.collect())
        }
        MetricData::Histogram(histogram) => {
            let points = histogram.data_points().map(|point| {
                let bound = |bound: Option<T>| bound.map_or(f64::NAN, &number);
                let (min, max) = (bound(point.min()), bound(point.max()));
                Point {
                    attributes: attributes(point.attributes()),
                    value: number(point.sum()),
                    histogram: Some((point.count(), min, max, point.bounds().collect())),
                }
            });
            (Kind::Histogram, points.collect())
        }
        MetricData::Sum(sum) => {
            let points = sum.data_points().map(|point| Point {
                attributes: attributes(point.attributes()),
                value: number(point.value()),
                histogram: None,
            });
            (if sum.is_monotonic() { Kind::Counter } else { Kind::UpDownCounter }, points.collect())
        }
        MetricData::ExponentialHistogram(_) => panic!("the library has no exponential histograms"),
    }
}
