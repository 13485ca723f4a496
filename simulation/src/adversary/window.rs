use std::{fmt, time::Duration};

use super::{
    Fault,
    text::{Fields, ParseError},
};

/// A fault and the time for which it lasts.
#[derive(Clone, Debug, PartialEq)]
pub struct Window {
    /// Time from the start of the simulation to the start of the fault.
    pub start: Duration,
    /// Time from the start of the simulation to the end of the fault. Not before the start.
    pub end: Duration,
    /// The fault.
    pub fault: Fault,
}

impl Window {
    /// Parses `START..END NAME FIELDS`.
    pub(super) fn parse<'a>(mut words: impl Iterator<Item = &'a str>) -> Result<Self, ParseError> {
        let window = words.next().unwrap_or_default();
        let expected = || ParseError::new("a window in seconds, such as `1.500..2.000`", window);
        let (start, end) = window.split_once("..").ok_or_else(expected)?;
        let (start, end) = (seconds(start)?, seconds(end)?);
        if end < start {
            return Err(ParseError::new("an end that is not before the start", window));
        }
        let name = words.next().unwrap_or_default();
        Ok(Self { start, end, fault: Fault::parse(name, Fields::parse(words)?)? })
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { start, end, fault } = self;
        let text = format!("{:.3}..{:.3} {} {}", start.as_secs_f64(), end.as_secs_f64(), fault.name(), fault.fields());
        f.write_str(text.trim_end())
    }
}

/// Parses a number of seconds with at most three decimals.
pub(super) fn seconds(text: &str) -> Result<Duration, ParseError> {
    let error = || ParseError::new("a number of seconds with at most three decimals", text);
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let are_digits = [whole, decimals].iter().all(|part| part.bytes().all(|byte| byte.is_ascii_digit()));
    if !are_digits || whole.is_empty() || decimals.len() > 3 {
        return Err(error());
    }
    let whole = whole.parse().ok().filter(|whole| *whole < 1_000_000).ok_or_else(error)?;
    let millis = format!("{decimals:0<3}").parse().map_err(|_| error())?;
    Ok(Duration::from_secs(whole) + Duration::from_millis(millis))
}
