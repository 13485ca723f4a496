use super::message;
use crate::error::ConfigError;

/// The service name of PostgreSQL, which is registered with IANA. `postgres+srv://` looks it up by default.
const POSTGRESQL: &str = "postgresql";

/// Maximum length of a port name, which becomes one DNS label (RFC 1035, section 2.3.4).
const MAX_PORT_NAME: usize = 63;

/// The source of the Pods' addresses.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Discovery {
    /// A and AAAA records of the Service name, which contain the Pods' addresses. All Pods have the same port. This is
    /// the default. In a URL: `discovery=dns`.
    #[default]
    Dns,
    /// SRV records of `_<port_name>._tcp.<service>`, which contain each Pod's name and port. The port in a record
    /// overrides [`Config::port`](crate::Config::port). In a URL: `discovery=srv&port_name=…`, or the scheme
    /// `postgres+srv://`, whose default for `port_name` is `postgresql`.
    ///
    /// Weights and priorities are ignored unless [`Config::srv_weights`](crate::Config::srv_weights) is set.
    Srv {
        /// The name of the Service port, such as `postgresql-port`: 1 to 63 lower-case letters, digits and hyphens. The
        /// first and the last character are letters or digits (Kubernetes, `ServicePort.name`).
        port_name: String,
    },
}

impl Discovery {
    const KEYWORDS: [&str; 2] = ["dns", "srv"];

    /// Parses the parameters `discovery` and `port_name`, which are valid only in combination. `is_srv` is true for the
    /// scheme `postgres+srv`.
    pub(super) fn parse(is_srv: bool, keyword: Option<&str>, port_name: Option<&str>) -> Result<Self, ConfigError> {
        let port_name = port_name.or(is_srv.then_some(POSTGRESQL));
        let discovery = match (keyword.unwrap_or(if is_srv { "srv" } else { "dns" }), port_name) {
            ("dns", _) if is_srv => {
                let reason = "`postgres+srv://` looks up SRV records; remove `discovery` or begin with `postgres://`";
                return Err(ConfigError::conflicting("discovery", reason).got("dns"));
            }
            ("dns", None) => Self::Dns,
            ("dns", Some(name)) => {
                let reason = "only `discovery=srv` looks up a port by name; remove `port_name` or set `discovery=srv`";
                return Err(ConfigError::conflicting("port_name", reason).got(message::excerpt(name)));
            }
            ("srv", Some(name)) => Self::Srv { port_name: name.to_owned() },
            ("srv", None) => {
                let expected =
                    "the name of the Service port, such as `postgresql-port`, because `discovery=srv` is set";
                return Err(ConfigError::new("port_name", expected));
            }
            (other, _) => return Err(message::unknown_keyword("discovery", &Self::KEYWORDS, other)),
        };
        discovery.validate()?;
        Ok(discovery)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let Self::Srv { port_name } = self else { return Ok(()) };
        let valid = (1..=MAX_PORT_NAME).contains(&port_name.len())
            && port_name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !port_name.starts_with('-')
            && !port_name.ends_with('-');
        if valid {
            return Ok(());
        }
        let expected = "1 to 63 lower-case letters, digits and `-`, with a letter or digit at each end";
        Err(ConfigError::new("port_name", expected).got(message::excerpt(port_name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_dns_and_srv() {
        assert_eq!(Discovery::parse(false, None, None).unwrap(), Discovery::Dns);
        assert_eq!(Discovery::parse(false, Some("dns"), None).unwrap(), Discovery::Dns);
        let srv = Discovery::Srv { port_name: "postgresql-port".into() };
        assert_eq!(Discovery::parse(false, Some("srv"), Some("postgresql-port")).unwrap(), srv);
    }

    #[test]
    fn the_scheme_selects_srv_and_the_registered_service_name() {
        let srv = |name: &str| Discovery::Srv { port_name: name.into() };
        assert_eq!(Discovery::parse(true, None, None).unwrap(), srv("postgresql"));
        assert_eq!(Discovery::parse(true, Some("srv"), Some("pg")).unwrap(), srv("pg"));
        assert_eq!(Discovery::parse(true, Some("dns"), None).unwrap_err().parameter(), "discovery");
    }

    #[test]
    fn rejects_invalid_combinations() {
        for (keyword, name, parameter) in [
            (Some("srv"), None, "port_name"),
            (Some("dns"), Some("pg"), "port_name"),
            (None, Some("pg"), "port_name"),
            (Some("SRV"), Some("pg"), "discovery"),
            (Some("file"), None, "discovery"),
        ] {
            assert_eq!(
                Discovery::parse(false, keyword, name).unwrap_err().parameter(),
                parameter,
                "{keyword:?} {name:?}"
            );
        }
    }

    #[test]
    fn rejects_port_names_that_kubernetes_rejects() {
        for name in ["", "-pg", "pg-", "PG", "p_g", "p.g", &"p".repeat(64)] {
            assert_eq!(
                Discovery::parse(false, Some("srv"), Some(name)).unwrap_err().parameter(),
                "port_name",
                "{name}"
            );
        }
    }
}
