//! A `tracing` subscriber that records the names of spans and log events, and an [`Observer`] that records the names of
//! pool events.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex},
};

use podpool::{Event, Observer, trace};
use tracing::{
    Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// Names of spans or log events, each with the names of all fields that it has had.
pub(crate) type FieldsByName = BTreeMap<String, BTreeSet<String>>;

/// A subscriber that records the pool's spans and the log lines of events. Clones share the records.
#[derive(Clone, Default)]
pub(crate) struct Recording {
    spans: Arc<Mutex<FieldsByName>>,
    log_events: Arc<Mutex<FieldsByName>>,
}

impl Recording {
    /// Returns the spans by name.
    pub(crate) fn spans(&self) -> FieldsByName {
        self.spans.lock().unwrap().clone()
    }

    /// Returns the log lines that have the field `event`, by the value of that field.
    pub(crate) fn log_events(&self) -> FieldsByName {
        self.log_events.lock().unwrap().clone()
    }
}

/// The fields of one span or log line.
#[derive(Default)]
struct Fields {
    names: BTreeSet<String>,
    /// The value of the field `event`.
    event: Option<String>,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "event" {
            self.event = Some(value.to_owned());
        }
        self.names.insert(field.name().to_owned());
    }

    fn record_debug(&mut self, field: &Field, _: &dyn fmt::Debug) {
        self.names.insert(field.name().to_owned());
    }
}

impl Subscriber for Recording {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == trace::TARGET
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let mut fields = Fields::default();
        attributes.record(&mut fields);
        let name = attributes.metadata().name().to_owned();
        self.spans.lock().unwrap().entry(name).or_default().extend(fields.names);
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Some(name) = fields.event {
            self.log_events.lock().unwrap().entry(name).or_default().extend(fields.names);
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// An observer that records the names of events. Clones share the record.
#[derive(Clone, Default)]
pub(crate) struct EventNames(Arc<Mutex<BTreeSet<&'static str>>>);

impl EventNames {
    /// Returns true if an event with this name has occurred.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.0.lock().unwrap().contains(name)
    }

    /// Returns the names of all events that have occurred.
    pub(crate) fn all(&self) -> BTreeSet<&'static str> {
        self.0.lock().unwrap().clone()
    }
}

impl Observer for EventNames {
    fn event(&mut self, event: &Event) {
        self.0.lock().unwrap().insert(event.name());
    }
}
