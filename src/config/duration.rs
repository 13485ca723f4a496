//! Durations as they are written in a URL: a whole number and one of PostgreSQL's units (manual, "Parameter Names and
//! Values"): `us`, `ms`, `s`, `min`, `h`, `d`. Without a unit the number counts what libpq counts there.

use std::{fmt, time::Duration};

use super::words;
use crate::error::ConfigError;

/// The units, largest first, each in microseconds.
const UNITS: [(&str, u64); 6] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

/// What a number without a unit counts.
#[derive(Clone, Copy)]
pub(super) enum Bare {
    /// Milliseconds, as libpq's `tcp_user_timeout`.
    Milliseconds,
    /// Seconds, as libpq's `connect_timeout` and `keepalives_idle`.
    Seconds,
}

impl Bare {
    fn unit(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
        }
    }
}

/// Reads `250ms`, `5s`, `10min`, `1h`, or a bare number.
pub(super) fn parse(parameter: &'static str, text: &str, bare: Bare) -> Result<Duration, ConfigError> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = if unit.is_empty() { bare.unit() } else { unit };
    let micros = UNITS
        .iter()
        .find(|(name, _)| *name == unit)
        .and_then(|(_, micros)| number.parse::<u64>().ok()?.checked_mul(*micros));
    micros.map(Duration::from_micros).ok_or_else(|| {
        let expected = match bare {
            Bare::Seconds => {
                "a duration: a whole number of seconds, or with a unit of `us`, `ms`, `s`, `min`, `h`, `d`"
            }
            Bare::Milliseconds => {
                "a duration: a whole number of milliseconds, or with a unit of `us`, `ms`, `s`, `min`, `h`, `d`"
            }
        };
        ConfigError::new(parameter, expected).got(words::clip(text))
    })
}

/// Writes a duration in the largest unit that divides it: the form that [`parse`] reads.
pub(super) struct Written(pub(super) Duration);

impl fmt::Display for Written {
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
        parse("acquire_timeout", text, Bare::Seconds)
    }

    #[test]
    fn reads_every_unit_and_libpqs_bare_numbers() {
        assert_eq!(seconds("5").unwrap(), Duration::from_secs(5));
        assert_eq!(parse("tcp_user_timeout", "5", Bare::Milliseconds).unwrap(), Duration::from_millis(5));
        assert_eq!(parse("tcp_user_timeout", "5s", Bare::Milliseconds).unwrap(), Duration::from_secs(5));
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
    fn refuses_everything_else_by_name() {
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
        fn what_is_written_is_read_back(micros in any::<u64>()) {
            let duration = Duration::from_micros(micros);
            prop_assert_eq!(seconds(&Written(duration).to_string()).unwrap(), duration);
        }

        #[test]
        fn never_panics(text in any::<String>()) {
            let _ = seconds(&text);
        }
    }
}
