//! A configuration from a text, and from the environment.

use std::{ffi::OsString, str::FromStr};

use super::{Config, env, keyword_value, setting::Settings, url};
use crate::error::ConfigError;

impl Config {
    /// What libpq's environment variables say: `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD` and the others of the
    /// [table](super#parameters), and `~/.pgpass`. `PGHOST` has to be there.
    ///
    /// # Errors
    ///
    /// Names the variable, the parameter, and what was expected of it.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::parse_with_env("")
    }

    /// Reads a text, a URL or keywords and values, and takes from libpq's environment variables what it leaves out: as
    /// `psql` does with its argument, and every program on libpq. Reading a text alone, as [`str::parse`] does, heeds
    /// no variable, so that what a program connects to is what it was told.
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
    /// Names the parameter, the variable if it came from one, and what was expected of it.
    pub fn parse_with_env(text: &str) -> Result<Self, ConfigError> {
        Self::parse_with(text, env::process)
    }

    pub(super) fn parse_with(text: &str, variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, ConfigError> {
        let mut settings = settings_of(text)?;
        env::add_defaults(&mut settings, &variable)?;
        let mut config = settings.into_config()?;
        config.passfile = config.passfile.or_else(|| env::passfile(variable));
        Ok(config)
    }
}

/// Reads a URL, or keywords and values: see the [module](super#the-two-text-forms). No environment variable is heeded.
impl FromStr for Config {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        settings_of(text)?.into_config()
    }
}

/// Splits a text of either form. What begins like a URL of any scheme is meant as one.
fn settings_of(text: &str) -> Result<Settings, ConfigError> {
    let is_url = text.find("://").is_some_and(|at| !text[..at].trim_start().contains(['=', ' ']));
    if is_url { url::parse(text) } else { keyword_value::parse(text) }
}
