//! The parameters that the server reports (PostgreSQL manual, "Asynchronous Operations"), and whether the session has
//! changed them.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
};

use super::message_limits::{MAX_PARAMETER_NAME, MAX_PARAMETERS, Violation};

/// The parameters that the server has reported.
#[derive(Debug, Default)]
pub(super) struct ReportedParameters {
    values: HashMap<Box<[u8]>, Value>,
    /// True if a parameter was reported since the last call of `take_reported`.
    reported: bool,
}

/// The hashes of the values of a parameter.
#[derive(Debug)]
struct Value {
    /// The value that the parameter has in a session without changes.
    initial: u64,
    current: u64,
}

/// The parameter that shows the server's role. The session cannot change it.
const HOT_STANDBY: &[u8] = b"in_hot_standby";

impl ReportedParameters {
    /// Applies the body of a ParameterStatus, which may be truncated after more than [`MAX_PARAMETER_NAME`] bytes.
    pub(super) fn add(&mut self, body: &[u8]) -> Result<(), Violation> {
        let name = body.split(|&byte| byte == 0).next().unwrap_or_default();
        if name.len() > MAX_PARAMETER_NAME {
            return Err(Violation::ParameterNameLength);
        }
        if name == HOT_STANDBY {
            // Counts as a name, but its value is not compared.
            return self.set(name, 0);
        }
        self.reported = true;
        self.set(name, BuildHasherDefault::<DefaultHasher>::default().hash_one(body))
    }

    fn set(&mut self, name: &[u8], current: u64) -> Result<(), Violation> {
        if let Some(value) = self.values.get_mut(name) {
            value.current = current;
            return Ok(());
        }
        if self.values.len() == MAX_PARAMETERS {
            return Err(Violation::Parameters);
        }
        self.values.insert(name.into(), Value { initial: current, current });
        Ok(())
    }

    /// Returns true if a parameter was reported since the last call.
    #[inline]
    pub(super) fn take_reported(&mut self) -> bool {
        std::mem::take(&mut self.reported)
    }

    /// Returns true if a parameter has another value than in a session without changes.
    pub(super) fn differ(&self) -> bool {
        self.values.values().any(|value| value.current != value.initial)
    }

    /// Makes the current values those of a session without changes.
    pub(super) fn set_initial(&mut self) {
        self.values.values_mut().for_each(|value| value.initial = value.current);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_values_with_those_of_an_unchanged_session() {
        let mut parameters = ReportedParameters::default();
        for body in ["TimeZone\0UTC\0", "in_hot_standby\0on\0"] {
            parameters.add(body.as_bytes()).unwrap();
        }
        parameters.set_initial();
        assert!(parameters.take_reported() && !parameters.take_reported() && !parameters.differ());
        parameters.add(b"in_hot_standby\0off\0").unwrap();
        assert!(!parameters.take_reported() && !parameters.differ());
        parameters.add(b"TimeZone\0Europe/Paris\0").unwrap();
        assert!(parameters.take_reported() && parameters.differ());
        parameters.add(b"TimeZone\0UTC\0").unwrap();
        assert!(!parameters.differ(), "the transaction that has changed it was rolled back");
        parameters.add(b"TimeZone\0Europe/Paris\0").unwrap();
        parameters.set_initial();
        assert!(!parameters.differ());
        // A parameter that is first reported later. Its value before is unknown.
        parameters.add(b"search_path\0public\0").unwrap();
        assert!(!parameters.differ());
    }
}
