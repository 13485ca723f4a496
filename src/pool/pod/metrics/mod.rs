//! Collects the pool's metrics, and passes them to the `metrics` facade and to OpenTelemetry.
//!
//! The [`Collector`] is the only source of counters and gauges, so both exports have the same values. It passes them to
//! a [`Sink`](sink::Sink). Those about the health of the Pods are passed for the first pool of a group only. The upkeep
//! task exports them to the facade once a second, and two more exports run while the pool closes. OpenTelemetry's
//! instruments read the counts when the application collects them.
//!
//! [`PoolMetrics`] records the durations of waits and of successful dials when they end. Use times (how long callers
//! hold connections) are collected in [`UseTimes`] until the next export. In builds with neither the feature `metrics`
//! nor `otel`, the module `metrics_noop` replaces this module.

mod collector;
#[cfg(feature = "metrics")]
mod facade;
#[cfg(feature = "otel")]
mod otel;
mod sink;
mod use_times;

use std::{fmt, sync::Arc};

#[cfg(feature = "metrics")]
use self::facade::Facade;
#[cfg(feature = "otel")]
pub(crate) use self::otel::{Observable, Observed};
pub(crate) use self::{
    collector::{Collector, Exported},
    use_times::{UseTimer, UseTimes},
};
use super::{Pod, shared::Shared};
use crate::{
    error::Error,
    event::Emitter,
    time::{Duration, Instant},
    unwind::{PanicSource, catch},
    wire::operations::OperationObserver,
};

/// The settings of the builder about metrics. A handle of the pool keeps them, so that the provider does not end before
/// the pool. The pool's state does not: the provider's own callbacks may be the last to drop it, and a provider that is
/// dropped calls them again.
#[derive(Clone, Default)]
pub(crate) struct Options {
    /// The provider of OpenTelemetry's instruments. `None` if it is the global one.
    #[cfg(feature = "otel")]
    pub(crate) provider: Option<otel::Provider>,
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Options");
        #[cfg(feature = "otel")]
        out.field("meter_provider", &self.provider.is_some());
        out.finish()
    }
}

/// The metrics of one pool.
#[derive(Debug)]
pub(crate) struct PoolMetrics {
    /// The time at which the pool was built.
    built: Instant,
    events: Arc<Emitter>,
    #[cfg(feature = "metrics")]
    facade: Facade,
    /// `None` if the application's provider has panicked.
    #[cfg(feature = "otel")]
    otel: Option<otel::Otel>,
}

impl PoolMetrics {
    /// Describes every metric to the installed recorder, and creates OpenTelemetry's instruments.
    #[cfg_attr(not(feature = "otel"), expect(unused_variables, reason = "all options are about OpenTelemetry"))]
    pub(crate) fn new(options: Options, events: Arc<Emitter>) -> Self {
        #[cfg(feature = "otel")]
        let otel = match catch(|| otel::Otel::new(options.provider, events.name())) {
            Ok(otel) => Some(otel),
            Err(panic) => {
                events.panicked(PanicSource::MeterProvider, &panic);
                None
            }
        };
        Self {
            built: Instant::now(),
            #[cfg(feature = "metrics")]
            facade: Facade::new(events.name().clone()),
            #[cfg(feature = "otel")]
            otel,
            events,
        }
    }

    /// Makes OpenTelemetry's instruments read the counts of this pool.
    #[cfg(feature = "otel")]
    pub(crate) fn observe(&self, source: std::sync::Weak<dyn Observable>) {
        if let Some(otel) = &self.otel {
            otel.observe(source);
        }
    }

    /// Records the wait time of a checkout: from `since` until now.
    pub(crate) fn waited<T>(&self, since: Instant, result: &Result<T, Error>) {
        let outcome = result.as_ref().map_or_else(|error| error.kind().as_str(), |_| "ok");
        let took = since.elapsed();
        #[cfg(feature = "metrics")]
        self.guard(PanicSource::MetricsRecorder, || self.facade.waited(took, outcome));
        #[cfg(feature = "otel")]
        self.guard_otel(|otel| otel.waited(took, outcome));
    }

    /// Records the duration of a successful dial.
    pub(crate) fn connected(&self, took: Duration) {
        #[cfg(feature = "metrics")]
        self.guard(PanicSource::MetricsRecorder, || self.facade.connected(took));
        #[cfg(feature = "otel")]
        self.guard_otel(|otel| otel.connected(took));
    }

    /// Exports counters and gauges to the facade. Call [`used`](Self::used) with the result after the lock on the
    /// collector has been released.
    #[must_use]
    pub(crate) fn export(
        &self,
        collector: &mut Collector,
        shared: &Shared,
        view: &super::view::View,
    ) -> CollectedTimes {
        collector.update(shared, view);
        #[cfg(feature = "metrics")]
        self.guard(PanicSource::MetricsRecorder, || collector.pass(shared, view, &mut self.facade.sink()));
        collector.take_use_times()
    }

    /// Records the use times of connections.
    pub(crate) fn used(&self, times: &CollectedTimes) {
        for (pod, times) in times {
            #[cfg(feature = "metrics")]
            self.guard(PanicSource::MetricsRecorder, || self.facade.used(pod, times));
            #[cfg(feature = "otel")]
            self.guard_otel(|otel| otel.used(pod, times));
        }
    }

    /// Exports the counters of the pool to the facade, after the pool has ended. Panics of the application's recorder
    /// are not reported, because nothing can receive the event.
    pub(crate) fn export_last(&self, shared: &Shared) {
        #[cfg(feature = "metrics")]
        let _ = catch(|| collector::pass_counters(shared, &mut self.facade.sink()));
        #[cfg(not(feature = "metrics"))]
        let _ = shared;
    }

    /// Returns the receiver of the durations of the callers' requests on a connection to this Pod.
    pub(crate) fn operations(&self, pod: &Pod) -> OperationObserver {
        #[cfg(feature = "otel")]
        if let Some(otel) = &self.otel {
            return otel.operations(pod, self.events.clone());
        }
        let _ = pod;
        OperationObserver::default()
    }

    /// Runs code that calls the application's recorder or provider. Catches and reports its panic.
    fn guard(&self, source: PanicSource, record: impl FnOnce()) {
        if let Err(panic) = catch(record) {
            self.events.panicked(source, &panic);
        }
    }

    #[cfg(feature = "otel")]
    fn guard_otel(&self, record: impl FnOnce(&otel::Otel)) {
        if let Some(otel) = &self.otel {
            self.guard(PanicSource::MeterProvider, || record(otel));
        }
    }
}

/// The use times of the connections to each Pod, by the Pod's label.
pub(crate) type CollectedTimes = Vec<(Arc<str>, Vec<Duration>)>;
