use std::{fmt, str::FromStr};

use super::message;
use crate::error::ConfigError;

/// The behavior of the targets `standby` and `read-only` while every healthy standby exceeds `max_lag` or
/// `max_lag_bytes`. In a URL: `lag_fallback=fail` or `lag_fallback=primary`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum LagFallback {
    /// The checkout waits for a standby to catch up, and fails at its deadline.
    #[default]
    Fail,
    /// The checkout returns a connection to the primary.
    Primary,
}

impl LagFallback {
    /// Returns the keyword used in a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Fail => "fail",
            Self::Primary => "primary",
        }
    }
}

impl fmt::Display for LagFallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for LagFallback {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        [Self::Fail, Self::Primary]
            .into_iter()
            .find(|fallback| fallback.as_str() == text)
            .ok_or_else(|| ConfigError::new("lag_fallback", "`fail` or `primary`").got(message::excerpt(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_only_its_keywords() {
        for fallback in [LagFallback::Fail, LagFallback::Primary] {
            assert_eq!(fallback.as_str().parse(), Ok(fallback));
        }
        assert_eq!("standby".parse::<LagFallback>().unwrap_err().parameter(), "lag_fallback");
    }
}
