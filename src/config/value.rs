//! A value of a parameter as a text form gives it, and how it is read.

use std::{path::PathBuf, str::FromStr, time::Duration};

use super::{
    Secret,
    duration::{self, Bare},
    words,
};
use crate::error::ConfigError;

/// A parameter's value, as text. Has no `Debug`, for it may be a password.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    /// Whose it is.
    pub(super) name: &'static str,
    pub(super) text: &'a str,
}

impl Value<'_> {
    /// A text; an empty one counts as left out.
    #[expect(clippy::unnecessary_wraps, reason = "as all the others")]
    pub(super) fn text(self) -> Result<Option<String>, ConfigError> {
        Ok(Some(self.text.to_owned()).filter(|text| !text.is_empty()))
    }

    /// The path of a file; an empty one counts as left out.
    pub(super) fn path(self) -> Result<Option<PathBuf>, ConfigError> {
        self.text().map(|text| text.map(PathBuf::from))
    }

    /// A secret; an empty one counts as left out.
    #[expect(clippy::unnecessary_wraps, reason = "as all the others")]
    pub(super) fn secret(self) -> Result<Option<Secret>, ConfigError> {
        Ok(Some(self.text).filter(|text| !text.is_empty()).map(Secret::from))
    }

    /// A whole number, of digits alone: the standard library's parser would take a `+` too.
    pub(super) fn number<T: FromStr>(self) -> Result<T, ConfigError> {
        Some(self.text)
            .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| self.refuse("a whole number"))
    }

    /// A number from 0 to 1, such as `0.8`.
    pub(super) fn share(self) -> Result<f64, ConfigError> {
        Some(self.text)
            .filter(|text| text.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| self.refuse("a number from 0 to 1, such as `0.8`"))
    }

    /// One of the words of a type.
    pub(super) fn word<T: FromStr<Err = ConfigError>>(self) -> Result<T, ConfigError> {
        self.text.parse()
    }

    /// A duration, without a unit in seconds.
    pub(super) fn seconds(self) -> Result<Duration, ConfigError> {
        duration::parse(self.name, self.text, Bare::Seconds)
    }

    /// A duration, without a unit in milliseconds.
    pub(super) fn milliseconds(self) -> Result<Duration, ConfigError> {
        duration::parse(self.name, self.text, Bare::Milliseconds)
    }

    /// A TCP port.
    pub(super) fn port(self) -> Result<u16, ConfigError> {
        self.number().ok().filter(|port| *port != 0).ok_or_else(|| self.refuse("a number from 1 to 65535"))
    }

    fn refuse(self, expected: &'static str) -> ConfigError {
        ConfigError::new(self.name, expected).got(words::clip(self.text))
    }
}
