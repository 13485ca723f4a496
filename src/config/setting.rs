//! Settings parsed from text, and their conversion to a [`Config`]. A parser fills [`Settings`], defaults from the
//! environment are added, and [`Settings::into_config`] builds the configuration.

use zeroize::Zeroizing;

use super::{
    Config, Discovery, host_entry, known, message,
    parameter::{self, PARAMETERS},
    value::Value,
};
use crate::error::ConfigError;

/// Maximum edit distance at which an unknown name is assumed to be a misspelled known name.
const MAX_TYPO_DISTANCE: usize = 2;

/// A parameter and its value. The value may be a password: it is overwritten when dropped, and this type does not
/// implement `Debug`.
pub(super) struct Setting {
    /// The name of an entry in [`PARAMETERS`].
    pub(super) name: &'static str,
    /// The decoded value.
    pub(super) value: Zeroizing<String>,
    /// True if the value may contain part of a password. Errors then omit the value.
    pub(super) sensitive: bool,
    /// The environment variable that the value was read from, if any.
    pub(super) variable: Option<&'static str>,
}

/// The settings from one text, in their original order.
pub(super) struct Settings {
    list: Vec<Setting>,
    /// True for a URL with the scheme `postgres+srv`.
    is_srv: bool,
    /// Description of how a password is written in this text format, for error messages.
    password_syntax: &'static str,
}

impl Settings {
    /// Creates an empty list. `password_syntax` describes how a password is written, for error messages.
    pub(super) fn new(password_syntax: &'static str) -> Self {
        Self { list: Vec::new(), is_srv: false, password_syntax }
    }

    /// Adds a setting with a known name.
    pub(super) fn push(&mut self, name: &'static str, value: Zeroizing<String>, sensitive: bool) {
        self.list.push(Setting { name, value, sensitive, variable: None });
    }

    /// Looks up the parameter with this name and adds its value. `sensitive` is true if the name and the value may
    /// contain part of a password.
    pub(super) fn add(&mut self, name: &str, value: Zeroizing<String>, sensitive: bool) -> Result<(), ConfigError> {
        if let Some(parameter) = parameter::find(name) {
            self.push(parameter.name, value, sensitive || known::is_secret(parameter.name));
            return Ok(());
        }
        match known::find_unimplemented(name) {
            Some(known) if sensitive => known.check(&value).map_err(ConfigError::redacted),
            Some(known) => known.check(&value),
            None if sensitive => Err(unknown_after_password(name, self.password_syntax)),
            None => Err(unknown(name)),
        }
    }

    /// Selects SRV records as the URL's scheme `postgres+srv` does. Rejects a port, because the records contain it.
    pub(super) fn use_srv(&mut self) -> Result<(), ConfigError> {
        if self.contains("port") {
            let reason = "the SRV records that `postgres+srv://` looks up contain the ports; remove it";
            return Err(ConfigError::conflicting("port", reason));
        }
        self.is_srv = true;
        Ok(())
    }

    /// Adds the value of an environment variable, unless the text sets the parameter to a non-empty value.
    pub(super) fn add_default(&mut self, name: &'static str, variable: Option<&'static str>, value: Zeroizing<String>) {
        // A password file in the text overrides a password from the environment.
        let alternative = (name == "password").then_some("password_file");
        if !self.contains(name) && !alternative.is_some_and(|name| self.contains(name)) {
            self.list.retain(|setting| setting.name != name); // Removes an empty value.
            self.list.push(Setting { name, value, sensitive: known::is_secret(name), variable });
        }
    }

    /// Returns true if the parameter has a non-empty value.
    pub(super) fn contains(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| !value.is_empty())
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.list.iter().find(|setting| setting.name == name).map(|setting| setting.value.as_str())
    }

    /// Builds a configuration. Rejects a parameter that is set more than once.
    pub(super) fn into_config(self) -> Result<Config, ConfigError> {
        for (i, setting) in self.list.iter().enumerate() {
            if self.list[..i].iter().any(|earlier| earlier.name == setting.name) {
                return Err(ConfigError::duplicate(setting.name));
            }
        }
        self.build().map_err(|error| match self.list.iter().find(|setting| setting.name == error.parameter()) {
            Some(Setting { sensitive: true, variable, .. }) => error.redacted().with_variable(*variable),
            Some(Setting { variable, .. }) => error.with_variable(*variable),
            None => error,
        })
    }

    fn build(&self) -> Result<Config, ConfigError> {
        let value = |name| self.value(name).unwrap_or_default();
        let hosts = host_entry::parse(value("host"), value("hostaddr"), value("port"))?;
        let mut config = match self.value("user").filter(|user| !user.is_empty()) {
            Some(user) => Config::for_user(hosts, user.to_owned()),
            None => Config::for_hosts(hosts),
        };
        config.discovery = Discovery::parse(self.is_srv, self.value("discovery"), self.value("port_name"))?;
        config.srv_weights = self.is_srv;
        for Setting { name, value, .. } in &self.list {
            let parameter = parameter::find(name).ok_or_else(|| unknown(name))?;
            (parameter.set)(&mut config, Value { name, text: value })?;
        }
        config.check_password_sources()?;
        config.ssl = config.security.apply(config.ssl);
        config.security.check(&config)?;
        config.limits.validate()?;
        Ok(config)
    }
}

/// Returns the error for an unknown parameter, which suggests the closest known one.
fn unknown(name: &str) -> ConfigError {
    ConfigError::unknown(message::excerpt(name), format!("the closest known parameter is `{}`", closest(name)))
}

/// Returns the error for an unknown parameter whose name may be part of a password. The error does not repeat the name,
/// but suggests a known name if there is a similar one.
fn unknown_after_password(name: &str, password_syntax: &str) -> ConfigError {
    let closest = closest(name);
    let mut expected = format!("{password_syntax}, followed only by known parameters");
    if message::distance(name, closest) <= MAX_TYPO_DISTANCE {
        expected.push_str(&format!("; one name is unknown, and the closest known parameter is `{closest}`"));
    }
    ConfigError::new("password", expected)
}

fn closest(name: &str) -> &'static str {
    message::closest(name, PARAMETERS.iter().map(|parameter| parameter.name)).unwrap_or_default()
}
