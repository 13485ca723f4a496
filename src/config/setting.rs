//! One setting as a text form gives it, and how a list of them becomes a [`Config`].

use super::{
    Config, Discovery, Host,
    parameter::{PARAMETERS, known},
    value::Value,
    words,
};
use crate::error::ConfigError;

/// A parameter and its value. Has no `Debug`, for the value may be a password.
pub(super) struct Setting {
    /// The name of one of [`PARAMETERS`].
    pub(super) name: &'static str,
    /// The value, decoded.
    pub(super) value: String,
    /// The value may be a piece of a password: no message repeats it.
    pub(super) quiet: bool,
}

/// The error for a parameter that does not exist: names it and the nearest that does.
pub(super) fn unknown(name: &str) -> ConfigError {
    let nearest = words::nearest(name, PARAMETERS.iter().map(|known| known.name)).unwrap_or_default();
    ConfigError::new(words::clip(name), format!("a known parameter; the nearest is `{nearest}`"))
}

impl Config {
    /// Builds a configuration from settings in any order. Each may be there once.
    pub(super) fn from_settings(settings: &[Setting]) -> Result<Self, ConfigError> {
        for (i, setting) in settings.iter().enumerate() {
            if settings[..i].iter().any(|earlier| earlier.name == setting.name) {
                return Err(ConfigError::new(setting.name, "one value; it is given twice"));
            }
        }
        Self::build(settings).map_err(|error| {
            let quiet = settings.iter().any(|setting| setting.quiet && setting.name == error.parameter());
            if quiet { silent(&error) } else { error }
        })
    }

    fn build(settings: &[Setting]) -> Result<Self, ConfigError> {
        let value = |name| settings.iter().find(|setting| setting.name == name).map(|setting| setting.value.as_str());
        let host: Host = value("host").unwrap_or_default().parse()?;
        let mut config = match value("user").filter(|user| !user.is_empty()) {
            Some(user) => Self::for_user(host, user.to_owned()),
            None => Self::for_host(host),
        };
        config.discovery = Discovery::parse(value("discovery"), value("port_name"))?;
        for Setting { name, value, quiet: _ } in settings {
            let parameter = known(name).ok_or_else(|| unknown(name))?;
            (parameter.set)(&mut config, Value { name, text: value })?;
        }
        config.limits.validate()?;
        Ok(config)
    }
}

/// The same error without what came.
fn silent(error: &ConfigError) -> ConfigError {
    ConfigError::new(error.parameter().to_owned(), error.expected().to_owned())
}
