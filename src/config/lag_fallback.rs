use std::{fmt, str::FromStr};

use super::words;
use crate::error::ConfigError;

/// What `standby` and `read-only` get when every standby that serves is further behind than `max_lag` or
/// `max_lag_bytes` allow. In a URL: `lag_fallback=fail` or `lag_fallback=primary`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum LagFallback {
    /// Nothing: the caller waits, and fails at its deadline.
    #[default]
    Fail,
    /// The primary, though it is no standby.
    Primary,
}

impl LagFallback {
    /// The word of a URL.
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
            .find(|word| word.as_str() == text)
            .ok_or_else(|| ConfigError::new("lag_fallback", "`fail` or `primary`").got(words::clip(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_words_and_no_other() {
        for word in [LagFallback::Fail, LagFallback::Primary] {
            assert_eq!(word.as_str().parse(), Ok(word));
        }
        assert_eq!("standby".parse::<LagFallback>().unwrap_err().parameter(), "lag_fallback");
    }
}
