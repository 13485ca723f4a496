//! OpenTelemetry's instruments for the metrics of all pools with the same provider.

use std::{
    ptr,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use opentelemetry::{
    InstrumentationScope,
    metrics::{Histogram, Meter, MeterProvider},
};

use super::{
    Provider,
    observed::{Observable, Readings},
};
use crate::metrics::{self, BUCKETS, Metric, MetricKind, OPERATION_BUCKETS, OPERATION_DURATION, SEMCONV_VERSION};

/// The name of the instrumentation scope.
const SCOPE: &str = "podpool";

/// The instruments of one provider.
type OfProvider = (Weak<dyn MeterProvider + Send + Sync>, Arc<Instruments>);

/// The instruments of each provider that a pool has used. Uses the standard library's lock even under loom, because no
/// loom model covers it.
static PROVIDERS: Mutex<Vec<OfProvider>> = Mutex::new(Vec::new());

/// The instruments of one provider. The observable ones are owned by the provider, and only read [`Readings`].
#[derive(Debug)]
pub(super) struct Instruments {
    pub(super) create_time: Histogram<f64>,
    pub(super) operation_duration: Histogram<f64>,
    pub(super) use_time: Histogram<f64>,
    pub(super) wait_time: Histogram<f64>,
    readings: Arc<Readings>,
}

impl Instruments {
    /// Returns the instruments of a provider, and creates them if there are none.
    pub(super) fn of(provider: &Provider) -> Arc<Self> {
        let mut providers = PROVIDERS.lock().unwrap_or_else(PoisonError::into_inner);
        providers.retain(|(provider, _)| provider.strong_count() > 0);
        let known = providers.iter().find(|(known, _)| ptr::addr_eq(known.as_ptr(), Arc::as_ptr(provider)));
        if let Some((_, instruments)) = known {
            return instruments.clone();
        }
        let instruments = Arc::new(Self::new(&**provider));
        providers.push((Arc::downgrade(provider), instruments.clone()));
        instruments
    }

    fn new(provider: &(dyn MeterProvider + Send + Sync)) -> Self {
        let scope = InstrumentationScope::builder(SCOPE)
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_schema_url(format!("https://opentelemetry.io/schemas/{SEMCONV_VERSION}"))
            .build();
        let meter = provider.meter_with_scope(scope);
        let readings = Arc::new(Readings::default());
        for (index, metric) in metrics::ALL.iter().enumerate() {
            register(&meter, metric, index, &readings);
        }
        let operation_duration = meter
            .f64_histogram(OPERATION_DURATION)
            .with_description("Duration of database client operations.")
            .with_unit("s")
            .with_boundaries(OPERATION_BUCKETS.to_vec());
        Self {
            create_time: histogram(&meter, metrics::CONNECTION_CREATE_TIME),
            operation_duration: operation_duration.build(),
            use_time: histogram(&meter, metrics::CONNECTION_USE_TIME),
            wait_time: histogram(&meter, metrics::CONNECTION_WAIT_TIME),
            readings,
        }
    }

    /// Adds a pool whose counts the instruments read until it is dropped.
    pub(super) fn add(&self, source: Weak<dyn Observable>) {
        self.readings.add(source);
    }
}

/// Creates the histogram of the metric with this name.
fn histogram(meter: &Meter, name: &str) -> Histogram<f64> {
    let Some(metric) = metrics::ALL.iter().find(|metric| metric.name == name) else {
        unreachable!("{name} is a metric")
    };
    let builder = meter.f64_histogram(metric.otel_name).with_description(metric.help).with_unit(metric.unit);
    builder.with_boundaries(BUCKETS.to_vec()).build()
}

/// Creates the observable instrument of a metric. The convention's gauges can be added over several processes, so they
/// are up-down counters.
fn register(meter: &Meter, metric: &'static Metric, index: usize, readings: &Arc<Readings>) {
    let (name, help, unit, readings) = (metric.otel_name, metric.help, metric.unit, readings.clone());
    // The provider keeps the instruments, so the handles are dropped.
    match metric.kind {
        MetricKind::Counter => {
            let builder = meter.u64_observable_counter(name).with_description(help).with_unit(unit);
            let builder = builder.with_callback(move |counter| {
                readings.take(index).iter().for_each(|seen| counter.observe(seen.value as u64, &seen.attributes));
            });
            let _ = builder.build();
        }
        MetricKind::Gauge if name.starts_with("db.client.") => {
            let builder = meter.i64_observable_up_down_counter(name).with_description(help).with_unit(unit);
            let builder = builder.with_callback(move |sum| {
                readings.take(index).iter().for_each(|seen| sum.observe(seen.value as i64, &seen.attributes));
            });
            let _ = builder.build();
        }
        MetricKind::Gauge => {
            let builder = meter.f64_observable_gauge(name).with_description(help).with_unit(unit);
            let builder = builder.with_callback(move |gauge| {
                readings.take(index).iter().for_each(|seen| gauge.observe(seen.value, &seen.attributes));
            });
            let _ = builder.build();
        }
        MetricKind::Histogram => {}
    }
}
