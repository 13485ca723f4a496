//! A `tracing` subscriber that keeps the pool's log lines about events.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use podpool::trace;
use serde::{Deserialize, Serialize};
use tracing::{
    Level, Metadata, Subscriber,
    field::{Field, Visit},
    span,
};

/// A log line about an event.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Line {
    pub(crate) level: String,
    /// The value of the field `event`.
    pub(crate) event: String,
    pub(crate) message: String,
}

/// The subscriber. Clones share the lines.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<Line>>>);

impl Log {
    /// Forgets all lines.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    /// Returns the lines since the last call of [`clear`](Self::clear).
    pub(crate) fn lines(&self) -> Vec<Line> {
        self.0.lock().unwrap().clone()
    }

    /// Returns true if there is a line about this event.
    pub(crate) fn has(&self, event: &str) -> bool {
        self.0.lock().unwrap().iter().any(|line| line.event == event)
    }
}

/// The fields of one log line.
#[derive(Default)]
struct Fields {
    event: Option<String>,
    message: String,
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "event" => self.event = Some(value.to_owned()),
            "message" => self.message = value.to_owned(),
            _ => {}
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == trace::TARGET && *metadata.level() <= Level::INFO
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &tracing::Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        if let Some(name) = fields.event {
            let level = event.metadata().level().to_string();
            self.0.lock().unwrap().push(Line { level, event: name, message: fields.message });
        }
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}
