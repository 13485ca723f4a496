use std::{borrow::Cow, error, fmt};

/// An invalid setting: the parameter, the problem and the received value.
///
/// The received value is omitted wherever it could contain part of a password.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ConfigError {
    parameter: Cow<'static, str>,
    variable: Option<&'static str>,
    problem: Problem,
    received: Option<String>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Problem {
    /// The value is not accepted. The text begins with `expected` and describes the accepted values.
    Value(String),
    /// The parameter cannot be used, regardless of its value.
    Parameter { rejection: &'static str, reason: Cow<'static, str> },
}

impl ConfigError {
    /// Creates the error for a value that is missing or not accepted. Its text begins with `expected`.
    pub(crate) fn new(parameter: impl Into<Cow<'static, str>>, expected: impl fmt::Display) -> Self {
        Self::with_problem(parameter.into(), Problem::Value(format!("expected {expected}")))
    }

    /// Creates the error for a parameter that does not exist.
    pub(crate) fn unknown(parameter: impl Into<Cow<'static, str>>, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::rejected("unknown", parameter.into(), reason.into())
    }

    /// Creates the error for a libpq parameter that this crate does not implement.
    pub(crate) fn unsupported(parameter: &'static str, reason: &'static str) -> Self {
        Self::rejected("unsupported", parameter.into(), reason.into())
    }

    /// Creates the error for a parameter that is set more than once.
    pub(crate) fn duplicate(parameter: &'static str) -> Self {
        Self::rejected("duplicate", parameter.into(), "it is set more than once; set it once".into())
    }

    /// Creates the error for a parameter that conflicts with another setting.
    pub(crate) fn conflicting(parameter: &'static str, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::rejected("conflicting", parameter.into(), reason.into())
    }

    fn rejected(rejection: &'static str, parameter: Cow<'static, str>, reason: Cow<'static, str>) -> Self {
        Self::with_problem(parameter, Problem::Parameter { rejection, reason })
    }

    fn with_problem(parameter: Cow<'static, str>, problem: Problem) -> Self {
        Self { parameter, variable: None, problem, received: None }
    }

    /// Adds the received value.
    pub(crate) fn got(mut self, received: impl Into<String>) -> Self {
        self.received = Some(received.into());
        self
    }

    /// Records the environment variable that the value was read from, if any.
    pub(crate) fn with_variable(mut self, variable: Option<&'static str>) -> Self {
        self.variable = variable;
        self
    }

    /// Removes the received value, which may contain part of a password.
    pub(crate) fn redacted(mut self) -> Self {
        self.received = None;
        self
    }

    /// Returns the parameter's name. If the text as a whole is not a valid URL or connection string, the name is `url`
    /// or `conninfo`.
    #[must_use]
    pub fn parameter(&self) -> &str {
        &self.parameter
    }

    /// Returns the environment variable that the value was read from, if any.
    #[must_use]
    pub fn variable(&self) -> Option<&'static str> {
        self.variable
    }

    /// Returns a description of the problem: `expected` and the accepted values, or the reason why the parameter cannot
    /// be used.
    #[must_use]
    pub fn problem(&self) -> &str {
        match &self.problem {
            Problem::Value(expected) => expected,
            Problem::Parameter { reason, .. } => reason,
        }
    }

    /// Returns the received value. `None` if the value is missing or could contain part of a password.
    #[must_use]
    pub fn received(&self) -> Option<&str> {
        self.received.as_deref()
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.problem, &*self.parameter) {
            (Problem::Value(_), "url") => f.write_str("connection URL")?,
            (Problem::Value(_), "conninfo") => f.write_str("connection string")?,
            (Problem::Value(_), parameter) => write!(f, "parameter `{parameter}`")?,
            (Problem::Parameter { rejection, .. }, parameter) => write!(f, "{rejection} parameter `{parameter}`")?,
        }
        if let Some(variable) = self.variable {
            write!(f, " (from `{variable}`)")?;
        }
        write!(f, ": {}", self.problem())?;
        match (&self.problem, &self.received) {
            (Problem::Value(_), Some(received)) => write!(f, ", got `{received}`"),
            (Problem::Parameter { .. }, Some(received)) => write!(f, " (got `{received}`)"),
            (_, None) => Ok(()),
        }
    }
}

impl error::Error for ConfigError {}
