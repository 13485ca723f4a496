//! Durations in text form: a whole number and one of PostgreSQL's units `us`, `ms`, `s`, `min`, `h` and `d` (PostgreSQL
//! manual, "Parameter Names and Values"). Without a unit, the parameter's default unit applies.

use std::{fmt, time::Duration};

use super::message;
use crate::error::ConfigError;

/// The units and their lengths in microseconds, in descending order.
const UNITS: [(&str, u64); 6] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

/// The unit that is assumed for a number without a unit.
#[derive(Clone, Copy)]
pub(super) enum DefaultUnit {
    /// Milliseconds, as for libpq's `tcp_user_timeout`.
    Milliseconds,
    /// Seconds, as for libpq's `connect_timeout` and `keepalives_idle`.
    Seconds,
}

impl DefaultUnit {
    fn symbol(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "milliseconds",
            Self::Seconds => "seconds",
        }
    }
}

/// Parses a duration such as `250ms`, `5s`, `10min` or `1h`, or a number in the default unit.
pub(super) fn parse(parameter: &'static str, text: &str, default: DefaultUnit) -> Result<Duration, ConfigError> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = if unit.is_empty() { default.symbol() } else { unit };
    let micros = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .and_then(|(_, micros)| number.parse::<u64>().ok()?.checked_mul(*micros));
    micros.map(Duration::from_micros).ok_or_else(|| {
        let unit = default.name();
        let expected = format!(
            "a duration: a whole number of {unit}, or a whole number with the unit `us`, `ms`, `s`, `min`, `h` or `d`"
        );
        ConfigError::new(parameter, expected).got(message::excerpt(text))
    })
}

/// A duration, displayed in the largest unit that divides it evenly. [`parse`] accepts all of these units except
/// nanoseconds.
pub(super) struct Formatted(pub(super) Duration);

impl fmt::Display for Formatted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.as_nanos();
        if nanos == 0 {
            return f.write_str("0s");
        }
        for (name, micros) in UNITS {
            let unit = u128::from(micros) * 1_000;
            if nanos.is_multiple_of(unit) {
                return write!(f, "{}{name}", nanos / unit);
            }
        }
        write!(f, "{nanos}ns")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(text: &str) -> Result<Duration, ConfigError> {
        parse("acquire_timeout", text, DefaultUnit::Seconds)
    }

    #[test]
    fn parses_numbers_with_and_without_a_unit() {
        assert_eq!(seconds("5").unwrap(), Duration::from_secs(5));
        assert_eq!(parse("tcp_user_timeout", "5", DefaultUnit::Milliseconds).unwrap(), Duration::from_millis(5));
        assert_eq!(parse("tcp_user_timeout", "5s", DefaultUnit::Milliseconds).unwrap(), Duration::from_secs(5));
        for (text, duration) in [
            ("7us", Duration::from_micros(7)),
            ("250ms", Duration::from_millis(250)),
            ("5s", Duration::from_secs(5)),
            ("10min", Duration::from_secs(600)),
            ("1h", Duration::from_secs(3_600)),
            ("2d", Duration::from_secs(172_800)),
        ] {
            assert_eq!(seconds(text).unwrap(), duration, "{text}");
        }
    }

    #[test]
    fn rejects_invalid_durations_and_names_the_parameter() {
        for text in
            ["", "s", "-1", "+1", "1.5s", "5 s", "5S", "5sec", "5m", "five", "5s5", "99999999999999999999", "١s"]
        {
            let error = seconds(text).unwrap_err();
            assert_eq!(error.parameter(), "acquire_timeout");
            assert_eq!(error.received(), Some(text));
        }
        assert!(seconds("18446744073709551615d").is_err());
    }

    proptest! {
        #[test]
        fn parses_formatted_durations(micros in any::<u64>()) {
            let duration = Duration::from_micros(micros);
            prop_assert_eq!(seconds(&Formatted(duration).to_string()).unwrap(), duration);
        }

        #[test]
        fn never_panics(text in any::<String>()) {
            let _ = seconds(&text);
        }
    }
}
