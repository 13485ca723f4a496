use std::{fmt, time::Duration};

/// A record of a history that a property does not permit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// Name of the property.
    pub property: &'static str,
    /// Time of the record.
    pub at: Duration,
    /// Description, with the expected and the received values.
    pub text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: at {:.3} s: {}", self.property, self.at.as_secs_f64(), self.text)
    }
}

/// The violations of one property.
pub(super) struct Violations {
    property: &'static str,
    found: Vec<Violation>,
}

impl Violations {
    pub(super) fn of(property: &'static str) -> Self {
        Self { property, found: Vec::new() }
    }

    pub(super) fn add(&mut self, at: Duration, text: impl Into<String>) {
        self.found.push(Violation { property: self.property, at, text: text.into() });
    }

    pub(super) fn found(self) -> Vec<Violation> {
        self.found
    }
}
