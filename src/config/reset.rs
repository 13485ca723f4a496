use std::{fmt, str::FromStr};

use super::message;
use crate::error::ConfigError;

/// The handling of session state when a connection is returned. In a URL: `reset=none`, `reset=auto` or
/// `reset=discard`.
///
/// Session state outlives a transaction: settings (`SET`, `SET ROLE`, `set_config`), temporary objects, `LISTEN`,
/// advisory locks, cursors `WITH HOLD`, statements created by SQL `PREPARE`, and the state of sequences (`currval`). In
/// all modes, an open transaction is rolled back and an in-flight statement is canceled. After each reset, the hook
/// [`after_connect`](crate::Builder::after_connect) sets the session up again.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Reset {
    /// Session state is kept and visible to the next caller.
    None,
    /// Session state is reset like with [`Discard`](Self::Discard), but only if the messages of the connection show
    /// that the caller may have changed it. This is best effort; only [`Discard`](Self::Discard) guarantees a reset. An
    /// unchanged session adds nothing to a checkout. These observations lead to a reset:
    ///
    /// - A parameter that the server reports, such as `TimeZone` or `application_name`, has a new value (PostgreSQL
    ///   manual, "Asynchronous Operations"). Only the first 128 bytes of the name and the value are compared.
    /// - The command tag of a completed statement is `SET`, `RESET`, `LISTEN`, `PREPARE`, `DECLARE CURSOR`, `LOAD`,
    ///   `DO` or `CALL`, even if its transaction is rolled back later. A `SET LOCAL` or `SET TRANSACTION` does not
    ///   count if its text begins with `SET`, `BEGIN` or `START`, and contains no other `SET`.
    /// - The text of a statement begins with `DO` or `CALL`, even if the statement fails.
    /// - The text of a statement, including comments and literals, contains `TEMP` or `TEMPORARY` beside `CREATE` or
    ///   `INTO`, `pg_temp`, `set_config`, `pg_advisory_lock`, `pg_try_advisory_lock` or their variants as a word, or is
    ///   longer than 256 KiB. `set_config(name, value, true)` does not count if `name` and `value` are literals or
    ///   parameters.
    ///
    /// The pool does not notice a change by a function whose call shows none of this, nor `UPDATE pg_settings`, nor
    /// `nextval`. If the reset leaves a reported parameter with another value than after the startup, as behind a
    /// connection pooler, or after 1,024 different prepared statements with such texts, the connection is closed
    /// instead.
    #[default]
    Auto,
    /// Session state is reset before the next caller gets the connection, as by `DISCARD ALL` (PostgreSQL manual,
    /// "DISCARD"), except that the driver's prepared statements and cached plans are kept. A background task performs
    /// the reset, which takes one round trip. During the reset, the connection cannot be checked out. A connection on
    /// which the caller sent nothing is not reset. If the reset fails, the connection is closed.
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
