//! Parsing of a [`Config`] from a connection string and from environment variables.

use std::{ffi::OsString, str::FromStr};

use super::{Config, env, keyword_value, setting::Settings, url};
use crate::error::ConfigError;

impl Config {
    /// Reads the configuration from libpq's environment variables, such as `PGHOST`, `PGPORT`, `PGUSER` and
    /// `PGPASSWORD` (see the [table](super#parameters)), and uses `~/.pgpass`. `PGHOST` is required.
    ///
    /// # Errors
    ///
    /// Returns an error for the first invalid value, with the names of its parameter and variable.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::parse_with_env("")
    }

    /// Parses a URL or a keyword/value string, and reads missing parameters from libpq's environment variables, as
    /// `psql` and other libpq programs do with their connection string. To ignore the environment, use [`str::parse`].
    ///
    /// ```
    /// # use podpool::Config;
    /// # fn main() -> Result<(), podpool::ConfigError> {
    /// let config = Config::parse_with_env("postgres://postgresql-svc.k8s-training.svc.cluster.local/?pool_size=4")?;
    /// # let _ = config;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Returns an error for the first invalid value, with the name of its parameter and, for a value from the
    /// environment, the name of its variable.
    pub fn parse_with_env(text: &str) -> Result<Self, ConfigError> {
        Self::parse_with(text, env::process)
    }

    pub(super) fn parse_with(text: &str, variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let mut settings = parse_settings(text)?;
        env::add_defaults(&mut settings, &variable)?;
        let mut config = settings.into_config()?;
        config.passfile = config.passfile.or_else(|| env::passfile(variable));
        Ok(config)
    }
}

/// Parses a [URL or a keyword/value string](super#connection-strings). Environment variables are ignored.
impl FromStr for Config {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        parse_settings(text)?.into_config()
    }
}

/// Parses a URL or a keyword/value string. Text that begins with any URL scheme is parsed as a URL, so that the error
/// for an unsupported scheme names the supported ones.
fn parse_settings(text: &str) -> Result<Settings, ConfigError> {
    let is_url = text.find("://").is_some_and(|at| !text[..at].trim_start().contains(['=', ' ']));
    if is_url { url::parse(text) } else { keyword_value::parse(text) }
}
