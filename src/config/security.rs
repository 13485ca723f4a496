use std::{fmt, str::FromStr};

use super::{
    AuthMethod, Config, Host, RequireAuth, SslMode, message,
    ssl::{ChannelBinding, Ssl},
};
use crate::error::ConfigError;

/// The minimum protection of connections: the parameter `security`.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Security {
    /// libpq's defaults, with one exception: see [`RequireAuth`]. The default.
    #[default]
    Default,
    /// Only connections on which the server has proved its identity and the password is never sent:
    ///
    /// - `sslmode=verify-full`: TLS 1.2 or newer, with a certificate that is signed by a trusted authority and contains
    ///   the verified name.
    /// - `require_auth=scram-sha-256`: no other authentication method, with channel binding if the server offers it.
    ///
    /// Parameters that are not set get these values. A parameter that is set to another value is an error,
    /// and so is `sslkeylogfile`.
    Strict,
}

/// The value of `require_auth` with [`Security::Strict`].
const SCRAM: [AuthMethod; 1] = [AuthMethod::ScramSha256];

impl Security {
    const ALL: [Self; 2] = [Self::Default, Self::Strict];
    const KEYWORDS: [&str; 2] = ["default", "strict"];

    /// Returns the keyword used in a URL.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        Self::KEYWORDS[self as usize]
    }

    /// Returns the TLS parameters, with the mode that this value requires if none is set.
    pub(super) fn apply(self, ssl: Ssl) -> Ssl {
        if self == Self::Strict && !ssl.has_mode() { ssl.with_mode(SslMode::VerifyFull) } else { ssl }
    }

    /// Rejects parameters that contradict `security=strict`.
    pub(super) fn check(self, config: &Config) -> Result<(), ConfigError> {
        if self != Self::Strict {
            return Ok(());
        }
        let conflict = |name: &'static str, expected: &str, got: String| {
            Err(ConfigError::new(name, format!("{expected}, because `security=strict` is set")).got(got))
        };
        if let Some(directory) = config.hosts.iter().find(|entry| matches!(entry.host(), Host::Directory(_))) {
            let reason = format!("`{}` is the directory of a Unix socket, which has no TLS", directory.host());
            return Err(ConfigError::conflicting("security", reason));
        }
        let ssl = &config.ssl;
        if ssl.mode() != SslMode::VerifyFull {
            return conflict("sslmode", "`verify-full`", ssl.mode().to_string());
        }
        if ssl.channel_binding() == ChannelBinding::Disable {
            return conflict("channel_binding", "`prefer` or `require`", ssl.channel_binding().to_string());
        }
        if ssl.key_log_file().is_some() {
            let reason = "`security=strict` is set, but the file receives the TLS secrets; remove one of them";
            return Err(ConfigError::conflicting("sslkeylogfile", reason));
        }
        match config.require_auth {
            Some(list) if AuthMethod::ALL.into_iter().any(|method| list.allows(method) != SCRAM.contains(&method)) => {
                conflict("require_auth", "`scram-sha-256`", list.to_string())
            }
            _ => Ok(()),
        }
    }
}

impl Config {
    /// Returns the authentication methods that a server may request. `None` if neither `require_auth` nor
    /// `security=strict` restricts them.
    pub(crate) fn allowed_auth(&self) -> Option<RequireAuth> {
        match self.security {
            Security::Strict => Some(RequireAuth::only(SCRAM)),
            Security::Default => self.require_auth,
        }
    }
}

impl FromStr for Security {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let found = Self::ALL.into_iter().find(|security| security.as_str() == text);
        found.ok_or_else(|| message::unknown_keyword("security", &Self::KEYWORDS, text))
    }
}

impl fmt::Display for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(parameters: &str) -> Result<Config, ConfigError> {
        format!("host=db user=app {parameters}").parse::<Config>()
    }

    #[test]
    fn strict_sets_the_mode_and_the_method() {
        for text in [
            "security=strict",
            "security=strict sslmode=verify-full require_auth=scram-sha-256 channel_binding=require",
            "sslmode=verify-full security=strict require_auth=!password,!md5,!none,!gss,!sspi,!oauth",
            "security=strict sslrootcert=system",
        ] {
            let config = parse(text).unwrap();
            config.validate().unwrap();
            assert_eq!((config.security(), config.ssl_mode()), (Security::Strict, SslMode::VerifyFull), "{text}");
            assert_eq!(config.allowed_auth(), Some(RequireAuth::only(SCRAM)), "{text}");
        }
        let config = Config::new("db").unwrap().with_user("app").with_security(Security::Strict);
        assert_eq!(config.ssl_mode(), SslMode::VerifyFull);
        let config = config.with_ssl(Ssl::default());
        assert_eq!(config.ssl_mode(), SslMode::VerifyFull, "also if the TLS parameters are set afterwards");
        config.validate().unwrap();
    }

    #[test]
    fn strict_rejects_parameters_that_contradict_it() {
        for (parameters, name, got) in [
            ("sslmode=disable", "sslmode", "disable"),
            ("sslmode=prefer", "sslmode", "prefer"),
            ("sslmode=require", "sslmode", "require"),
            ("sslmode=verify-ca", "sslmode", "verify-ca"),
            ("channel_binding=disable", "channel_binding", "disable"),
            ("require_auth=password", "require_auth", "password"),
            ("require_auth=scram-sha-256,none", "require_auth", "none,scram-sha-256"),
            ("require_auth=!password,!md5", "require_auth", "!password,!md5"),
        ] {
            for query in [format!("security=strict&{parameters}"), format!("{parameters}&security=strict")] {
                let error = format!("postgres://app@db/?{query}").parse::<Config>().unwrap_err();
                assert_eq!((error.parameter(), error.received()), (name, Some(got)), "{error}");
                assert!(error.to_string().contains("`security=strict`"), "{error}");
            }
            parse(parameters).unwrap().validate().unwrap();
        }
        let config = Config::new("db").unwrap().with_user("app").with_security(Security::Strict);
        let error = config.with_ssl_mode(SslMode::Require).validate().unwrap_err();
        assert_eq!(error.parameter(), "sslmode");
    }

    #[test]
    #[cfg(feature = "keylog")]
    fn strict_rejects_a_file_of_tls_secrets() {
        let config =
            Config::new("db").unwrap().with_user("app").with_ssl(Ssl::default().with_key_log_file("/tmp/keys"));
        let error = config.with_security(Security::Strict).validate().unwrap_err();
        assert_eq!(error.parameter(), "sslkeylogfile");
        assert!(error.to_string().contains("`security=strict`"), "{error}");
    }

    #[test]
    fn the_default_changes_nothing() {
        let config = parse("security=default").unwrap();
        assert_eq!((config.ssl(), config.allowed_auth()), (&Ssl::default(), None));
        assert_eq!(config.security(), Security::default());
        assert_eq!(parse("security=high").unwrap_err().parameter(), "security");
    }
}
