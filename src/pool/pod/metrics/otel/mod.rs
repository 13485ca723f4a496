//! Passes the metrics of a pool to OpenTelemetry.
//!
//! All pools with the same provider share its [`Instruments`]: a provider never removes the callback of an observable
//! instrument, so a process that builds and drops pools must not register a new callback for each of them.

mod instruments;
mod observed;

use std::sync::{Arc, Weak};

use opentelemetry::{KeyValue, StringValue, global, metrics::MeterProvider};

pub(crate) use self::observed::{Observable, Observed};
use self::{instruments::Instruments, observed::attribute};
use super::sink::Label;
use crate::{
    event::Emitter,
    metrics::{ADDRESS_LABELS, ATTRIBUTES, POD_LABELS, POOL_LABELS},
    pool::pod::Pod,
    time::Duration,
    trace::SYSTEM,
    unwind::{PanicSource, catch},
    wire::operations::{Failure, Operation, OperationObserver},
};

/// A provider of instruments.
pub(crate) type Provider = Arc<dyn MeterProvider + Send + Sync>;

/// OpenTelemetry's instruments, and the attributes of one pool.
#[derive(Debug)]
pub(super) struct Otel {
    instruments: Arc<Instruments>,
    pool: [KeyValue; 2],
}

impl Otel {
    /// Creates the instruments, unless an earlier pool has created those of this provider. `name` is the name of the
    /// pool.
    pub(super) fn new(provider: Option<Provider>, name: &Arc<str>) -> Self {
        let provider = provider.unwrap_or_else(global::meter_provider);
        Self { instruments: Instruments::of(&provider), pool: pool_attributes(name) }
    }

    /// Makes the instruments read the counts of this pool until it is dropped.
    pub(super) fn observe(&self, source: Weak<dyn Observable>) {
        self.instruments.add(source);
    }

    pub(super) fn waited(&self, took: Duration, outcome: &'static str) {
        let attributes = self.attributes(&[Label::fixed("outcome", outcome)]);
        self.instruments.wait_time.record(took.as_secs_f64(), &attributes);
    }

    pub(super) fn connected(&self, took: Duration) {
        self.instruments.create_time.record(took.as_secs_f64(), &self.pool);
    }

    pub(super) fn used(&self, pod: &Arc<str>, times: &[Duration]) {
        let attributes = self.attributes(&[Label::shared(POD_LABELS[0], pod.clone())]);
        for time in times {
            self.instruments.use_time.record(time.as_secs_f64(), &attributes);
        }
    }

    fn attributes(&self, labels: &[Label]) -> Vec<KeyValue> {
        self.pool.iter().cloned().chain(labels.iter().filter_map(attribute)).collect()
    }

    /// Returns the receiver of the durations of requests on a connection to this Pod. If the application's provider
    /// panics, the request is not recorded.
    pub(super) fn operations(&self, pod: &Pod, events: Arc<Emitter>) -> OperationObserver {
        let address = pod.endpoint.address();
        let mut attributes = vec![
            KeyValue::new("db.system.name", SYSTEM),
            KeyValue::new("db.namespace", pod.shared().database.clone()),
            KeyValue::new(attribute_of(ADDRESS_LABELS[0]), address.host_text()),
        ];
        attributes.extend(address.port().map(|port| KeyValue::new(attribute_of(ADDRESS_LABELS[1]), i64::from(port))));
        let duration = self.instruments.operation_duration.clone();
        OperationObserver::new(move |Operation { took, failure }| {
            let seconds = took.as_secs_f64();
            let recorded = catch(|| match failure {
                None => duration.record(seconds, &attributes),
                Some(failure) => {
                    let mut attributes = attributes.clone();
                    attributes.extend(error_attributes(failure));
                    duration.record(seconds, &attributes);
                }
            });
            if let Err(panic) = recorded {
                events.panicked(PanicSource::MeterProvider, &panic);
            }
        })
    }
}

/// Returns the attributes of a failed request. The error type is the SQLSTATE if the server has sent one.
fn error_attributes(failure: Failure) -> impl Iterator<Item = KeyValue> {
    let (kind, code) = match failure {
        Failure::Lost => (StringValue::from(CONNECTION_LOST), None),
        Failure::Server(sqlstate) => {
            let text: StringValue = String::from_utf8_lossy(&sqlstate).into_owned().into();
            (text.clone(), Some(text))
        }
    };
    [Some(KeyValue::new("error.type", kind)), code.map(|code| KeyValue::new("db.response.status_code", code))]
        .into_iter()
        .flatten()
}

/// The error type of a request whose connection ended without an error from the server.
const CONNECTION_LOST: &str = "connection_lost";

/// Returns the attributes of a pool with this name.
pub(super) fn pool_attributes(name: &Arc<str>) -> [KeyValue; 2] {
    let [pool, system] = POOL_LABELS else { unreachable!("the pool has two labels") };
    [KeyValue::new(attribute_of(pool), name.clone()), KeyValue::new(attribute_of(system), SYSTEM)]
}

/// Returns the name of the attribute that becomes this label after the export.
fn attribute_of(label: &'static str) -> &'static str {
    ATTRIBUTES.iter().find(|(name, _)| *name == label).map_or(label, |(_, attribute)| attribute)
}
