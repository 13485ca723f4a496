use std::{borrow::Cow, error, fmt};

/// A setting that cannot be used: which one, what was expected, and what came.
///
/// Never holds a secret: what came is left out wherever it can be part of a password.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    parameter: Cow<'static, str>,
    expected: Cow<'static, str>,
    got: Option<String>,
}

impl ConfigError {
    pub(crate) fn new(parameter: impl Into<Cow<'static, str>>, expected: impl Into<Cow<'static, str>>) -> Self {
        Self { parameter: parameter.into(), expected: expected.into(), got: None }
    }

    pub(crate) fn got(mut self, got: impl Into<String>) -> Self {
        self.got = Some(got.into());
        self
    }

    /// The parameter, as it is written in a URL.
    #[must_use]
    pub fn parameter(&self) -> &str {
        &self.parameter
    }

    /// What it should have been.
    #[must_use]
    pub fn expected(&self) -> &str {
        &self.expected
    }

    /// What it was, where that can be said without giving a secret away.
    #[must_use]
    pub fn received(&self) -> Option<&str> {
        self.got.as_deref()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "parameter `{}`: expected {}", self.parameter, self.expected)?;
        match &self.got {
            Some(got) => write!(f, ", got `{got}`"),
            None => Ok(()),
        }
    }
}

impl error::Error for ConfigError {}
