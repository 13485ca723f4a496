//! The parameters that the server reports (PostgreSQL manual, "Asynchronous Operations"), and whether the session has
//! changed them.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
};

use super::{
    message_limits::{MAX_PARAMETER_NAME, MAX_PARAMETERS, Violation},
    record::Record,
};

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
    /// The value after the startup.
    startup: u64,
    /// The value that the parameter has in a session without changes. Differs from `startup` if a hook has set it.
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
        self.values.insert(name.into(), Value { startup: current, initial: current, current });
        Ok(())
    }

    /// Records at a ReadyForQuery whether the session has changed parameters. The values after the startup, after its
    /// setup by a hook, and after a probe, are those of an unchanged session. Those after a reset may not be: behind a
    /// connection pooler, it restores the values of the pooler's login. They are therefore compared with those after
    /// the startup. Called before the record gets the status of this ReadyForQuery.
    #[inline]
    pub(super) fn compare(&mut self, record: &Record) {
        let is_resetting = record.is_resetting();
        let is_unchanged = record.status() == 0 || record.is_probing() || record.is_in_setup();
        if is_unchanged {
            let is_default = !record.is_in_setup();
            self.values.values_mut().for_each(|value| value.adopt(is_default));
        }
        if std::mem::take(&mut self.reported) || is_unchanged || is_resetting {
            let differs = |value: &Value| value.current != if is_resetting { value.startup } else { value.initial };
            record.set_parameter_change(self.values.values().any(differs));
        }
    }
}

impl Value {
    /// Makes the current value that of an unchanged session. If `is_default` is true and no hook has set the parameter,
    /// a reset restores this value too: a new session has begun, or the server's configuration has changed.
    fn adopt(&mut self, is_default: bool) {
        if is_default && self.startup == self.initial {
            self.startup = self.current;
        }
        self.initial = self.current;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::record::SessionChange;

    /// Returns the parameters and the record of a session whose changes are tracked.
    fn session() -> (ReportedParameters, Record) {
        let record = Record::default();
        record.track_session_changes();
        (ReportedParameters::default(), record)
    }

    /// Returns true if the session counts as changed after this ParameterStatus.
    fn is_changed_after(parameters: &mut ReportedParameters, record: &Record, body: &str) -> bool {
        parameters.add(body.as_bytes()).unwrap();
        parameters.compare(record);
        record.set_status(b'I');
        record.session_change() == Some(SessionChange::Parameter)
    }

    #[test]
    fn compares_values_with_those_of_an_unchanged_session() {
        let (mut parameters, record) = session();
        let mut changed_after = |body: &str| is_changed_after(&mut parameters, &record, body);
        assert!(!changed_after("TimeZone\0UTC\0"), "the startup");
        assert!(!changed_after("in_hot_standby\0on\0"));
        assert!(!changed_after("in_hot_standby\0off\0"));
        assert!(changed_after("TimeZone\0Europe/Paris\0"));
        assert!(!changed_after("TimeZone\0UTC\0"), "the transaction that has changed it was rolled back");
        assert!(!changed_after("DateStyle\0ISO\0"), "its value before is unknown");
        assert!(changed_after("DateStyle\0German\0"));
        record.begin_reset();
        assert!(!changed_after("DateStyle\0ISO\0"), "the reset restores the value");
        assert!(changed_after("TimeZone\0Asia/Tokyo\0"), "the reset restores the value of a pooler's login");
        record.end_reset();
        record.set_probing(true);
        assert!(!changed_after("TimeZone\0Asia/Tokyo\0"), "the server's configuration has changed");
        record.set_probing(false);
        assert!(changed_after("TimeZone\0UTC\0"));
    }

    #[test]
    fn the_values_that_a_hook_has_set_are_those_of_an_unchanged_session() {
        let (mut parameters, record) = session();
        let mut changed_after = |body: &str| is_changed_after(&mut parameters, &record, body);
        assert!(!changed_after("TimeZone\0UTC\0"), "the startup");
        record.begin_setup();
        assert!(!changed_after("TimeZone\0Asia/Tokyo\0"), "the hook has set it");
        record.end_setup();
        assert!(changed_after("TimeZone\0UTC\0"), "a caller has changed it");
        record.begin_reset();
        assert!(!changed_after("in_hot_standby\0off\0"), "it already has the value that the reset restores");
        record.begin_setup();
        assert!(!changed_after("TimeZone\0Europe/Paris\0"), "the hook sets another value");
        record.end_setup();
        record.begin_reset();
        assert!(changed_after("in_hot_standby\0off\0"), "the reset has not restored the value after the startup");
        assert!(!changed_after("TimeZone\0UTC\0"));
        record.begin_setup();
        assert!(!changed_after("TimeZone\0Europe/Paris\0"));
        record.end_setup();
        record.set_probing(true);
        assert!(!changed_after("TimeZone\0Europe/Paris\0"), "the server's configuration has changed");
        record.set_probing(false);
        record.begin_reset();
        assert!(!changed_after("TimeZone\0UTC\0"), "the probe does not change the value that the reset restores");
    }
}
