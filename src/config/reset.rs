use std::{fmt, str::FromStr};

use super::message;
use crate::error::ConfigError;

/// The handling of session state when a connection is returned. In a URL: `reset=none` or `reset=discard`.
///
/// Session state outlives a transaction: settings (`SET`, `SET ROLE`, `set_config`), temporary tables, `LISTEN`,
/// advisory locks, cursors `WITH HOLD`, statements created by SQL `PREPARE`, and the state of sequences (`currval`). In
/// both modes, an open transaction is rolled back and an in-flight statement is canceled.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Reset {
    /// Session state is kept and visible to the next caller. Costs nothing, and suits applications that leave no state
    /// behind.
    #[default]
    None,
    /// As [`Discard`](Self::Discard), but only if the caller may have changed session state. An unchanged session costs
    /// nothing. Best effort: state that a function has changed may be missed.
    Auto,
    /// Session state is reset before the next caller gets the connection, as by `DISCARD ALL` (PostgreSQL manual,
    /// "DISCARD"), except that the driver's prepared statements are kept. A background task performs the reset, which
    /// takes one round trip. During the reset, the connection cannot be checked out. A connection on which the caller
    /// sent nothing is not reset.
    Discard,
}

impl Reset {
    /// Returns the keyword used in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Auto => "auto",
            Self::Discard => "discard",
        }
    }
}

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Reset {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        [Self::None, Self::Auto, Self::Discard]
            .into_iter()
            .find(|reset| reset.as_str() == text)
            .ok_or_else(|| ConfigError::new("reset", "`none`, `auto` or `discard`").got(message::excerpt(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_only_its_keywords() {
        for reset in [Reset::None, Reset::Auto, Reset::Discard] {
            assert_eq!(reset.as_str().parse(), Ok(reset));
        }
        assert_eq!("all".parse::<Reset>().unwrap_err().parameter(), "reset");
    }
}
