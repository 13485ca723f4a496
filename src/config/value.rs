//! A parameter's value in text form, and its conversion to the type of the field that stores it.

use std::{path::PathBuf, str::FromStr, time::Duration};

use super::{
    Secret,
    duration::{self, DefaultUnit},
    message,
};
use crate::error::ConfigError;

/// A parameter's value, as text. It may be a password, so this type does not implement `Debug`.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    /// The name of the parameter.
    pub(super) name: &'static str,
    pub(super) text: &'a str,
}

impl Value<'_> {
    /// Returns the text, or `None` if it is empty, because an empty value is equivalent to a missing one.
    #[expect(clippy::unnecessary_wraps, reason = "the parameter table requires this signature")]
    pub(super) fn text(self) -> Result<Option<String>, ConfigError> {
        Ok(Some(self.text.to_owned()).filter(|text| !text.is_empty()))
    }

    /// Returns the path of a file, or `None` if the text is empty.
    pub(super) fn path(self) -> Result<Option<PathBuf>, ConfigError> {
        self.text().map(|text| text.map(PathBuf::from))
    }

    /// Returns the secret, or `None` if the text is empty.
    #[expect(clippy::unnecessary_wraps, reason = "the parameter table requires this signature")]
    pub(super) fn secret(self) -> Result<Option<Secret>, ConfigError> {
        Ok(Some(self.text).filter(|text| !text.is_empty()).map(Secret::from))
    }

    /// Parses a whole number. Rejects a leading `+`, which the standard library's parser accepts.
    pub(super) fn number<T: FromStr>(self) -> Result<T, ConfigError> {
        Some(self.text)
            .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| self.reject("a whole number"))
    }

    /// Parses a fraction such as `0.8`. [`Limits`](super::Limits) checks the range.
    pub(super) fn fraction(self) -> Result<f64, ConfigError> {
        Some(self.text)
            .filter(|text| text.bytes().all(|b| b.is_ascii_digit() || b == b'.'))
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| self.reject("a number from 0 to 1, such as `0.8`"))
    }

    /// Parses a keyword, such as `least-cost`.
    pub(super) fn keyword<T: FromStr<Err = ConfigError>>(self) -> Result<T, ConfigError> {
        self.text.parse()
    }

    /// Parses `on` or `off`.
    pub(super) fn switch(self) -> Result<bool, ConfigError> {
        match self.text {
            "on" => Ok(true),
            "off" => Ok(false),
            _ => Err(self.reject("`on` or `off`")),
        }
    }

    /// Parses a keyword or a list, or returns `None` if the text is empty.
    pub(super) fn optional<T: FromStr<Err = ConfigError>>(self) -> Result<Option<T>, ConfigError> {
        Some(self.text).filter(|text| !text.is_empty()).map(str::parse).transpose()
    }

    /// Parses a duration. A number without a unit is in seconds.
    pub(super) fn seconds(self) -> Result<Duration, ConfigError> {
        duration::parse(self.name, self.text, DefaultUnit::Seconds)
    }

    /// Parses a duration. A number without a unit is in milliseconds.
    pub(super) fn milliseconds(self) -> Result<Duration, ConfigError> {
        duration::parse(self.name, self.text, DefaultUnit::Milliseconds)
    }

    fn reject(self, expected: &'static str) -> ConfigError {
        ConfigError::new(self.name, expected).got(message::excerpt(self.text))
    }
}
