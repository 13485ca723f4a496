//! Records events with their times. They are printed if a scenario fails.

use std::{
    fmt::Display,
    sync::{Arc, Mutex},
    time::Instant,
};

/// The record of one scenario. Clones share the same lines.
#[derive(Clone)]
pub(crate) struct Timeline {
    begun: Instant,
    lines: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Timeline {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), lines: Arc::default() }
    }

    /// Adds a line for the current time.
    pub(crate) fn note(&self, text: impl Display) {
        self.note_at(Instant::now(), text);
    }

    pub(crate) fn note_at(&self, at: Instant, text: impl Display) {
        self.lines.lock().unwrap().push((at, text.to_string()));
    }

    /// Returns the time since the scenario began, in seconds.
    pub(crate) fn seconds(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.begun).as_secs_f64()
    }

    /// Prints all lines in the order of their times.
    pub(crate) fn print(&self) {
        let mut lines = self.lines.lock().unwrap().clone();
        lines.sort_by_key(|(at, _)| *at);
        for (at, text) in lines {
            println!("{:9.3} s  {text}", self.seconds(at));
        }
    }
}
