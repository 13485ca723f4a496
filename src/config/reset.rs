use std::{fmt, str::FromStr};

use super::words;
use crate::error::ConfigError;

/// What becomes of a session's own state when its connection is given back. In a URL: `reset=none` or `reset=discard`.
///
/// An open transaction is rolled back, and a statement that still runs is ended, either way. This is about what outlives
/// a transaction: settings (`SET`, `SET ROLE`, `set_config`), temporary tables, `LISTEN`, advisory locks, cursors
/// `WITH HOLD`, statements of SQL's own `PREPARE`, and the state of sequences (`currval`).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Reset {
    /// It stays, and the next borrower finds it. For applications that leave nothing behind, which costs nothing.
    #[default]
    None,
    /// It goes, before the next borrower gets the connection: what `DISCARD ALL` discards (PostgreSQL manual,
    /// "DISCARD"), but for the statements that the driver prepared, which keep their worth. It takes one round trip in a
    /// task of the pool, and for so long the connection is not idle; one on which nothing was sent skips it.
    Discard,
}

impl Reset {
    /// The word of a URL.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
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
        [Self::None, Self::Discard]
            .into_iter()
            .find(|word| word.as_str() == text)
            .ok_or_else(|| ConfigError::new("reset", "`none` or `discard`").got(words::clip(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_own_words_and_no_other() {
        for word in [Reset::None, Reset::Discard] {
            assert_eq!(word.as_str().parse(), Ok(word));
        }
        assert_eq!("all".parse::<Reset>().unwrap_err().parameter(), "reset");
    }
}
