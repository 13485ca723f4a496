use std::{borrow::Cow, error, fmt};

/// A setting that cannot be used: which one, what was expected, and what came.
///
/// Never holds a secret: what came is left out wherever it can be part of a password.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    parameter: Cow<'static, str>,
    variable: Option<&'static str>,
    expected: Cow<'static, str>,
    got: Option<String>,
}

impl ConfigError {
    pub(crate) fn new(parameter: impl Into<Cow<'static, str>>, expected: impl Into<Cow<'static, str>>) -> Self {
        Self { parameter: parameter.into(), variable: None, expected: expected.into(), got: None }
    }

    pub(crate) fn got(mut self, got: impl Into<String>) -> Self {
        self.got = Some(got.into());
        self
    }

    /// Says that the value came from this environment variable.
    pub(crate) fn of_variable(mut self, variable: Option<&'static str>) -> Self {
        self.variable = variable;
        self
    }

    /// Leaves out what came.
    pub(crate) fn silent(mut self) -> Self {
        self.got = None;
        self
    }

    /// The parameter, as it is written in a URL; `url` or `conninfo` where a text as a whole cannot be read as one or
    /// the other.
    #[must_use]
    pub fn parameter(&self) -> &str {
        &self.parameter
    }

    /// The environment variable that the value came from, if it came from one.
    #[must_use]
    pub fn variable(&self) -> Option<&'static str> {
        self.variable
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
        write!(f, "parameter `{}`", self.parameter)?;
        if let Some(variable) = self.variable {
            write!(f, " (from `{variable}`)")?;
        }
        write!(f, ": expected {}", self.expected)?;
        match &self.got {
            Some(got) => write!(f, ", got `{got}`"),
            None => Ok(()),
        }
    }
}

impl error::Error for ConfigError {}
