use std::{fmt, str::FromStr};

use super::{AuthMethod, message};
use crate::error::ConfigError;

/// The authentication methods that a server may request: libpq's `require_auth` (PostgreSQL manual, "Parameter Key
/// Words").
///
/// The text form is a comma-separated list of methods. If each of them begins with `!`, the list contains the methods
/// that a server may not request. A server that requests any other method receives no credentials, and the dial fails
/// with an [`AuthError`](crate::AuthError).
///
/// Without this parameter, a server may request any method, except that a connection without TLS or with an unverified
/// certificate does not answer requests for a password in clear text or hashed with MD5. A list without `!` that
/// contains `password` or `md5` permits this method on every connection. A list with `!` permits nothing in addition.
///
/// ```
/// use podpool::{Config, config::{AuthMethod, RequireAuth}};
///
/// # fn main() -> Result<(), podpool::ConfigError> {
/// let config: Config = "postgres://app@postgresql-svc/shop?require_auth=scram-sha-256,none".parse()?;
/// let same = RequireAuth::only([AuthMethod::None, AuthMethod::ScramSha256]);
/// assert_eq!(config.require_auth(), Some(same));
/// assert!("!password,md5".parse::<RequireAuth>().is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct RequireAuth {
    /// True if `methods` are those that a server may not request.
    negated: bool,
    /// One bit for each method, in declaration order.
    methods: u8,
}

impl RequireAuth {
    /// Allows only these methods. A pool cannot be built with an empty list.
    #[must_use]
    pub fn only(methods: impl IntoIterator<Item = AuthMethod>) -> Self {
        Self { negated: false, methods: bits(methods) }
    }

    /// Allows all methods except these.
    #[must_use]
    pub fn except(methods: impl IntoIterator<Item = AuthMethod>) -> Self {
        Self { negated: true, methods: bits(methods) }
    }

    /// Returns true if a server may request this method. On a connection without TLS or with an unverified certificate,
    /// `password` and `md5` must also be [named](Self::names).
    #[must_use]
    pub fn allows(self, method: AuthMethod) -> bool {
        (self.methods & bit(method) != 0) != self.negated
    }

    /// Returns true if the list names this method as allowed.
    #[must_use]
    pub fn names(self, method: AuthMethod) -> bool {
        !self.negated && self.allows(method)
    }

    /// Rejects a list without any implemented method.
    pub(super) fn validate(self) -> Result<(), ConfigError> {
        if AuthMethod::ALL.into_iter().any(|method| method.is_implemented() && self.allows(method)) {
            return Ok(());
        }
        let expected = "a list that allows `scram-sha-256`, `password`, `md5` or `none`, because the other methods are \
                        not implemented";
        Err(ConfigError::new("require_auth", expected).got(self.to_string()))
    }
}

fn bits(methods: impl IntoIterator<Item = AuthMethod>) -> u8 {
    methods.into_iter().fold(0, |all, method| all | bit(method))
}

fn bit(method: AuthMethod) -> u8 {
    1 << method as u8
}

impl FromStr for RequireAuth {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let rejected = |expected: String| ConfigError::new("require_auth", expected).got(message::excerpt(text));
        let mut list = Self { negated: text.starts_with('!'), methods: 0 };
        for element in text.split(',') {
            let (negated, name) = element.strip_prefix('!').map_or((false, element), |name| (true, name));
            let known = AuthMethod::ALL.into_iter().find(|method| method.as_str() == name);
            let method = known.ok_or_else(|| message::unknown_keyword("require_auth", &AuthMethod::KEYWORDS, name))?;
            if negated != list.negated {
                return Err(rejected("a list in which either each method or none begins with `!`".to_owned()));
            }
            if list.methods & bit(method) != 0 {
                return Err(rejected(format!("each method at most once, but `{method}` is repeated")));
            }
            list.methods |= bit(method);
        }
        Ok(list)
    }
}

impl fmt::Display for RequireAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed = AuthMethod::ALL.into_iter().filter(|method| self.methods & bit(*method) != 0);
        for (i, method) in listed.enumerate() {
            let comma = if i > 0 { "," } else { "" };
            let not = if self.negated { "!" } else { "" };
            write!(f, "{comma}{not}{method}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Config;

    fn parsed(text: &str) -> RequireAuth {
        let list = text.parse::<RequireAuth>().unwrap();
        assert_eq!(list.to_string().parse::<RequireAuth>().unwrap(), list);
        list
    }

    #[test]
    fn a_list_allows_exactly_its_methods_and_a_negated_list_all_others() {
        use AuthMethod::{Gss, Md5, None, Oauth, Password, ScramSha256, Sspi};
        for (text, allowed) in [
            ("password", vec![Password]),
            ("none", vec![None]),
            ("scram-sha-256,none", vec![None, ScramSha256]),
            ("gss,sspi,oauth,md5", vec![Md5, Gss, Sspi, Oauth]),
            ("!password", vec![None, Md5, Gss, Sspi, ScramSha256, Oauth]),
            ("!none,!md5,!password", vec![Gss, Sspi, ScramSha256, Oauth]),
        ] {
            let list = parsed(text);
            assert_eq!(AuthMethod::ALL.into_iter().filter(|method| list.allows(*method)).collect::<Vec<_>>(), allowed);
            let named = AuthMethod::ALL.into_iter().any(|method| list.names(method));
            assert_eq!(named, !text.starts_with('!'), "only a list without `!` names methods as allowed: {text}");
        }
        assert_eq!(parsed("md5,none"), RequireAuth::only([None, Md5]));
        assert_eq!(parsed("!md5"), RequireAuth::except([Md5]));
    }

    #[test]
    fn rejects_what_libpq_rejects() {
        for (text, expected) in [
            ("scram", "one of `none`, `password`"),
            ("SCRAM-SHA-256", "one of `none`, `password`"),
            ("md5,", "one of `none`, `password`"),
            (",", "one of `none`, `password`"),
            ("md5, none", "one of `none`, `password`"),
            ("!", "one of `none`, `password`"),
            ("!!md5", "one of `none`, `password`"),
            ("md5,!none", "either each method or none begins with `!`"),
            ("!md5,none", "either each method or none begins with `!`"),
            ("md5,md5", "`md5` is repeated"),
            ("none,md5,none", "`none` is repeated"),
            ("!none,!none", "`none` is repeated"),
            ("!scram-sha-256,!md5,!scram-sha-256", "`scram-sha-256` is repeated"),
        ] {
            let error = format!("host=db user=app require_auth='{text}'").parse::<Config>().unwrap_err();
            assert_eq!(error.parameter(), "require_auth");
            assert!(error.received().is_some(), "{error}");
            assert!(error.to_string().contains(expected), "{text}: {error}");
        }
        let config: Config = "host=db user=app require_auth=''".parse().unwrap();
        assert_eq!(config.require_auth(), None, "an empty value is equivalent to a missing one");
    }

    #[test]
    fn rejects_a_list_without_an_implemented_method() {
        for text in ["gss", "oauth,sspi", "!none,!password,!md5,!scram-sha-256"] {
            let config: Config = format!("host=db user=app require_auth={text}").parse().unwrap();
            let error = config.validate().unwrap_err();
            assert_eq!(error.parameter(), "require_auth");
            assert!(error.to_string().contains("not implemented"), "{error}");
        }
        let empty = Config::new("db").unwrap().with_user("app").with_require_auth(RequireAuth::only([]));
        assert_eq!(empty.validate().unwrap_err().received(), Some(""));
    }
}
