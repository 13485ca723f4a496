//! One setting as a text form gives it, and how a list of them becomes a [`Config`].

use zeroize::Zeroizing;

use super::{
    Config, Discovery, Host,
    parameter::{PARAMETERS, known},
    unsupported::UNSUPPORTED,
    value::Value,
    words,
};
use crate::error::ConfigError;

/// A name this near to a known one is a slip of the keyboard.
const SLIP: usize = 2;

/// A parameter and its value. Has no `Debug`, for the value may be a password; overwritten when dropped.
pub(super) struct Setting {
    /// The name of one of [`PARAMETERS`].
    pub(super) name: &'static str,
    /// The value, decoded.
    pub(super) value: Zeroizing<String>,
    /// The value may be a piece of a password: no message repeats it.
    pub(super) quiet: bool,
    /// The environment variable that it comes from.
    pub(super) variable: Option<&'static str>,
}

/// The settings of one text form, in its order.
pub(super) struct Settings {
    list: Vec<Setting>,
    /// How the form wants a password written that holds its reserved characters.
    hint: &'static str,
}

impl Settings {
    /// None yet. `hint`: how the form wants a password written that holds its reserved characters.
    pub(super) fn new(hint: &'static str) -> Self {
        Self { list: Vec::new(), hint }
    }

    /// Adds the setting of a parameter that is known.
    pub(super) fn push(&mut self, name: &'static str, value: Zeroizing<String>, quiet: bool) {
        self.list.push(Setting { name, value, quiet, variable: None });
    }

    /// Adds a setting by the name that somebody gave it. `quiet` where both name and value may be pieces of a password.
    pub(super) fn add(&mut self, name: &str, value: Zeroizing<String>, quiet: bool) -> Result<(), ConfigError> {
        if let Some(parameter) = known(name) {
            self.push(parameter.name, value, quiet || parameter.name == "password");
            return Ok(());
        }
        match UNSUPPORTED.iter().find(|unsupported| unsupported.name == name) {
            Some(unsupported) if quiet => unsupported.refuse_unless_harmless(&value).map_err(ConfigError::silent),
            Some(unsupported) => unsupported.refuse_unless_harmless(&value),
            None if quiet => Err(unknown_quietly(name, self.hint)),
            None => Err(unknown(name)),
        }
    }

    /// Adds what an environment variable says, unless the text has the last word on it.
    pub(super) fn add_default(&mut self, name: &'static str, variable: Option<&'static str>, value: Zeroizing<String>) {
        // A password in a variable is no second opinion on one in a file.
        let rival = (name == "password").then_some("password_file");
        if !self.gives(name) && !rival.is_some_and(|rival| self.gives(rival)) {
            self.list.retain(|setting| setting.name != name); // an empty one
            self.list.push(Setting { name, value, quiet: name == "password", variable });
        }
    }

    /// Whether there is a value for this parameter. An empty one counts as left out.
    pub(super) fn gives(&self, name: &str) -> bool {
        self.value(name).is_some_and(|value| !value.is_empty())
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.list.iter().find(|setting| setting.name == name).map(|setting| setting.value.as_str())
    }

    /// Builds a configuration. Each parameter may be there once.
    pub(super) fn into_config(self) -> Result<Config, ConfigError> {
        for (i, setting) in self.list.iter().enumerate() {
            if self.list[..i].iter().any(|earlier| earlier.name == setting.name) {
                return Err(ConfigError::new(setting.name, "one value; it is given twice"));
            }
        }
        self.build().map_err(|error| match self.list.iter().find(|setting| setting.name == error.parameter()) {
            Some(Setting { quiet: true, variable, .. }) => error.silent().of_variable(*variable),
            Some(Setting { variable, .. }) => error.of_variable(*variable),
            None => error,
        })
    }

    fn build(&self) -> Result<Config, ConfigError> {
        let host: Host = self.value("host").unwrap_or_default().parse()?;
        let mut config = match self.value("user").filter(|user| !user.is_empty()) {
            Some(user) => Config::for_user(host, user.to_owned()),
            None => Config::for_host(host),
        };
        config.discovery = Discovery::parse(self.value("discovery"), self.value("port_name"))?;
        for Setting { name, value, .. } in &self.list {
            let parameter = known(name).ok_or_else(|| unknown(name))?;
            (parameter.set)(&mut config, Value { name, text: value })?;
        }
        config.check_password_sources()?;
        config.limits.validate()?;
        Ok(config)
    }
}

/// The error for a parameter that does not exist: names it and the nearest that does.
fn unknown(name: &str) -> ConfigError {
    ConfigError::new(words::clip(name), format!("a known parameter; the nearest is `{}`", nearest(name)))
}

/// The same for one that may be a piece of a password: only what it is a slip of is named.
fn unknown_quietly(name: &str, hint: &str) -> ConfigError {
    let nearest = nearest(name);
    let mut expected = format!("a password in which {hint}, and known parameters after it");
    if words::distance(name, nearest) <= SLIP {
        expected.push_str(&format!("; one is not known, and the nearest is `{nearest}`"));
    }
    ConfigError::new("password", expected)
}

fn nearest(name: &str) -> &'static str {
    words::nearest(name, PARAMETERS.iter().map(|known| known.name)).unwrap_or_default()
}
