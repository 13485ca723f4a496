use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// The events of a simulation in the order in which they happened. Clones share the events.
#[derive(Clone, Debug)]
pub struct Trace(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    start: Instant,
    entries: Mutex<Vec<Entry>>,
}

/// An event of a simulation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Entry {
    /// Time since the start of the simulation.
    pub at: Duration,
    /// Name of the host.
    pub host: Arc<str>,
    /// Description of the event.
    pub text: String,
}

impl Trace {
    pub(super) fn new(start: Instant) -> Self {
        Self(Arc::new(Shared { start, entries: Mutex::default() }))
    }

    /// Appends an event.
    pub fn event(&self, host: &Arc<str>, text: impl fmt::Display) {
        let entry = Entry { at: self.0.start.elapsed(), host: host.clone(), text: text.to_string() };
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner).push(entry);
    }

    /// Returns a copy of the events.
    pub fn entries(&self) -> Vec<Entry> {
        self.0.entries.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>10.3} {:<12} {}", self.at.as_secs_f64(), self.host, self.text)
    }
}

/// Writes one line for each event.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entries().iter().try_for_each(|entry| writeln!(f, "{entry}"))
    }
}
