//! One setting as a text form gives it, and how a list of them becomes a [`Config`].

use std::str::FromStr;

use super::{
    Config, Discovery, Host, Secret,
    duration::{self, Bare},
    nameservers, ssl, words,
};
use crate::error::ConfigError;

/// The name of every parameter but those of [`ssl`]: libpq's where libpq has one.
const NAMES: [&str; 31] = [
    "acquire_timeout",
    "application_name",
    "close_timeout",
    "connect_timeout",
    "dbname",
    "discovery",
    "dns_timeout",
    "drain_timeout",
    "host",
    "idle_timeout",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "lag_fallback",
    "max_lag",
    "max_lag_bytes",
    "max_lifetime",
    "min_idle",
    "nameservers",
    "options",
    "password",
    "pool_size",
    "port",
    "port_name",
    "probe_interval",
    "probe_timeout",
    "refresh_max",
    "refresh_min",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

/// A parameter and its value. Has no `Debug`, for the value may be a password.
pub(super) struct Setting {
    /// One of [`names`].
    pub(super) name: &'static str,
    /// The value, decoded.
    pub(super) value: String,
    /// The value may be a piece of a password: no message repeats it.
    pub(super) quiet: bool,
}

fn names() -> Vec<&'static str> {
    NAMES.into_iter().chain(ssl::NAMES).collect()
}

/// The parameter of that name.
pub(super) fn known(name: &str) -> Option<&'static str> {
    names().into_iter().find(|known| *known == name)
}

/// The error for a parameter that does not exist: names it and the nearest that does.
pub(super) fn unknown(name: &str) -> ConfigError {
    let nearest = words::nearest(name, &names()).unwrap_or_default();
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
        for setting in settings {
            config.set(setting)?;
        }
        config.limits.validate()?;
        Ok(config)
    }

    fn set(&mut self, setting: &Setting) -> Result<(), ConfigError> {
        let Setting { name, value, quiet: _ } = setting;
        let seconds = || duration::parse(name, value, Bare::Seconds);
        let text = || Some(value.clone()).filter(|text| !text.is_empty());
        match *name {
            "acquire_timeout" => self.limits.acquire_timeout = seconds()?,
            "application_name" => self.application_name = text(),
            "close_timeout" => self.limits.close_timeout = seconds()?,
            "connect_timeout" => self.limits.connect_timeout = seconds()?,
            "dbname" => self.dbname = text(),
            "dns_timeout" => self.limits.dns_timeout = seconds()?,
            "drain_timeout" => self.limits.drain_timeout = seconds()?,
            "idle_timeout" => self.limits.idle_timeout = seconds()?,
            "keepalives_count" => self.limits.keepalives_count = number(name, value)?,
            "keepalives_idle" => self.limits.keepalives_idle = seconds()?,
            "keepalives_interval" => self.limits.keepalives_interval = seconds()?,
            "lag_fallback" => self.limits.lag_fallback = value.parse()?,
            "max_lag" => self.limits.max_lag = Some(seconds()?),
            "max_lag_bytes" => self.limits.max_lag_bytes = Some(number(name, value)?),
            "max_lifetime" => self.limits.max_lifetime = seconds()?,
            "min_idle" => self.limits.min_idle = number(name, value)?,
            "nameservers" => self.nameservers = nameservers::parse(value)?,
            "options" => self.options = text(),
            "password" => self.password = text().map(Secret::from),
            "pool_size" => self.limits.pool_size = number(name, value)?,
            "port" => self.port = port(value)?,
            "probe_interval" => self.limits.probe_interval = seconds()?,
            "probe_timeout" => self.limits.probe_timeout = seconds()?,
            "refresh_max" => self.limits.refresh_max = seconds()?,
            "refresh_min" => self.limits.refresh_min = seconds()?,
            "target_session_attrs" => self.target = value.parse()?,
            "tcp_user_timeout" => {
                self.limits.tcp_user_timeout = duration::parse(name, value, Bare::Milliseconds)?;
            }
            // Taken before the others, for each of them says something together with another.
            "discovery" | "host" | "port_name" | "user" => {}
            name if ssl::NAMES.contains(&name) => self.ssl.set(name, value)?,
            _ => return Err(unknown(name)),
        }
        Ok(())
    }
}

/// The same error without what came.
fn silent(error: &ConfigError) -> ConfigError {
    ConfigError::new(error.parameter().to_owned(), error.expected().to_owned())
}

fn number<T: FromStr>(name: &'static str, text: &str) -> Result<T, ConfigError> {
    // Digits alone: the standard library's parser would take a `+` too.
    Some(text)
        .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| ConfigError::new(name, "a whole number").got(words::clip(text)))
}

fn port(text: &str) -> Result<u16, ConfigError> {
    number("port", text)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| ConfigError::new("port", "a number from 1 to 65535").got(words::clip(text)))
}
