use super::words;
use crate::error::ConfigError;

/// The most characters of a port's name: that of a label.
const NAME: usize = 63;

/// Which records tell the Pods behind a Service's name.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Discovery {
    /// A and AAAA records: every Pod's address, the same port for all. The default. `discovery=dns`.
    #[default]
    Dns,
    /// SRV records of `_<port_name>._tcp.<service>`: every Pod's name, address and own port, which takes the place of
    /// [`Config::port`](crate::Config::port). `discovery=srv&port_name=…`.
    Srv {
        /// The name of the Service's port, such as `postgresql-port`: 1 to 63 lower-case letters, digits and hyphens,
        /// beginning and ending with a letter or digit (Kubernetes, `ServicePort.name`).
        port_name: String,
    },
}

impl Discovery {
    const WORDS: [&str; 2] = ["dns", "srv"];

    /// Reads `discovery=` and `port_name=` together, for they say one thing.
    pub(super) fn parse(word: Option<&str>, port_name: Option<&str>) -> Result<Self, ConfigError> {
        let discovery = match (word.unwrap_or("dns"), port_name) {
            ("dns", None) => Self::Dns,
            ("dns", Some(name)) => {
                let expected = "to be left out, or `discovery=srv` beside it: only SRV records know ports by name";
                return Err(ConfigError::new("port_name", expected).got(words::clip(name)));
            }
            ("srv", Some(name)) => Self::Srv { port_name: name.to_owned() },
            ("srv", None) => {
                let expected = "the name of the Service's port, such as `postgresql-port`, for `discovery=srv`";
                return Err(ConfigError::new("port_name", expected));
            }
            (word, _) => return Err(words::unknown("discovery", &Self::WORDS, word)),
        };
        discovery.validate()?;
        Ok(discovery)
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let Self::Srv { port_name } = self else { return Ok(()) };
        let well = (1..=NAME).contains(&port_name.len())
            && port_name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && !port_name.starts_with('-')
            && !port_name.ends_with('-');
        if well {
            return Ok(());
        }
        let expected = "1 to 63 lower-case letters, digits and `-`, beginning and ending with a letter or digit";
        Err(ConfigError::new("port_name", expected).got(words::clip(port_name)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_forms() {
        assert_eq!(Discovery::parse(None, None).unwrap(), Discovery::Dns);
        assert_eq!(Discovery::parse(Some("dns"), None).unwrap(), Discovery::Dns);
        let srv = Discovery::Srv { port_name: "postgresql-port".into() };
        assert_eq!(Discovery::parse(Some("srv"), Some("postgresql-port")).unwrap(), srv);
    }

    #[test]
    fn names_the_contradiction() {
        for (word, name, parameter) in [
            (Some("srv"), None, "port_name"),
            (Some("dns"), Some("pg"), "port_name"),
            (None, Some("pg"), "port_name"),
            (Some("SRV"), Some("pg"), "discovery"),
            (Some("file"), None, "discovery"),
        ] {
            assert_eq!(Discovery::parse(word, name).unwrap_err().parameter(), parameter, "{word:?} {name:?}");
        }
    }

    #[test]
    fn refuses_a_name_that_kubernetes_refuses() {
        for name in ["", "-pg", "pg-", "PG", "p_g", "p.g", &"p".repeat(64)] {
            assert_eq!(Discovery::parse(Some("srv"), Some(name)).unwrap_err().parameter(), "port_name", "{name}");
        }
    }
}
