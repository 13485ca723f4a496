//! libpq parameters that this crate does not implement. Setting one of them is an error that names the alternative,
//! unless the value matches the pool's fixed behavior.

use super::message;
use crate::error::ConfigError;

/// A parameter of libpq that this crate does not implement.
pub(super) struct Unsupported {
    pub(super) name: &'static str,
    /// The environment variable, if ignoring it could weaken security or connect the client to a different server.
    pub(super) variable: Option<&'static str>,
    /// The values that match the pool's fixed behavior.
    accepted: &'static [&'static str],
    /// The text of the error: the reason and the remedy.
    reason: &'static str,
}

const GSSAPI: &str = "GSSAPI is not implemented; remove it";
const SERVICE_FILE: &str =
    "connection service files are not read; set `host`, `user` and the other parameters directly";

/// All unsupported parameters, sorted by name (PostgreSQL manual, "Parameter Key Words").
pub(super) const UNSUPPORTED: &[Unsupported] = &[
    Unsupported {
        name: "client_encoding",
        variable: Some("PGCLIENTENCODING"),
        accepted: &["utf8", "UTF8", "utf-8", "UTF-8"],
        reason: "the client encoding is always UTF-8; remove it or set `UTF8`",
    },
    Unsupported {
        name: "fallback_application_name",
        variable: None,
        accepted: &[],
        reason: "set `application_name` instead",
    },
    Unsupported { name: "gssdelegation", variable: Some("PGGSSDELEGATION"), accepted: &["0"], reason: GSSAPI },
    Unsupported {
        name: "gssencmode",
        variable: Some("PGGSSENCMODE"),
        accepted: &["disable", "prefer"],
        reason: "GSSAPI is not implemented; remove it or set `disable`, and use `sslmode` for encryption",
    },
    Unsupported { name: "gsslib", variable: None, accepted: &[], reason: GSSAPI },
    Unsupported {
        name: "hostaddr",
        variable: Some("PGHOSTADDR"),
        accepted: &[],
        reason: "the pool looks up the addresses behind the Service name; set a fixed address as `host` instead",
    },
    Unsupported {
        name: "keepalives",
        variable: None,
        accepted: &["1"],
        reason: "TCP keepalives are always enabled; remove it and use `keepalives_idle`, `keepalives_interval` and \
                 `keepalives_count`",
    },
    Unsupported { name: "krbsrvname", variable: None, accepted: &[], reason: GSSAPI },
    Unsupported {
        name: "load_balance_hosts",
        variable: None,
        accepted: &["random"],
        reason: "the pool always balances between the Pods; remove it or set `random`",
    },
    Unsupported {
        name: "replication",
        variable: None,
        accepted: &["false", "off", "no", "0"],
        reason: "the pool does not open replication connections; remove it",
    },
    Unsupported {
        name: "requirepeer",
        variable: Some("PGREQUIREPEER"),
        accepted: &[],
        reason: "it applies to Unix sockets, but the pool connects over TCP; remove it",
    },
    Unsupported { name: "service", variable: Some("PGSERVICE"), accepted: &[], reason: SERVICE_FILE },
    Unsupported { name: "servicefile", variable: None, accepted: &[], reason: SERVICE_FILE },
];

impl Unsupported {
    /// Rejects every value except an empty one and those that match the pool's fixed behavior.
    pub(super) fn check(&self, value: &str) -> Result<(), ConfigError> {
        if value.is_empty() || self.accepted.contains(&value) {
            return Ok(());
        }
        Err(ConfigError::unsupported(self.name, self.reason).got(message::excerpt(value)))
    }
}

#[cfg(test)]
mod tests {
    use super::{super::parameter, *};

    #[test]
    fn is_sorted_by_name_and_contains_no_supported_parameter() {
        assert!(UNSUPPORTED.is_sorted_by(|a, b| a.name < b.name));
        for unsupported in UNSUPPORTED {
            assert!(parameter::find(unsupported.name).is_none(), "{}", unsupported.name);
        }
    }

    #[test]
    fn errors_name_the_alternative() {
        let rejected = |text: &str| text.parse::<crate::Config>().unwrap_err().to_string();
        assert_eq!(
            rejected("postgres://app@db/?hostaddr=10.0.0.1"),
            "unsupported parameter `hostaddr`: the pool looks up the addresses behind the Service name; set a fixed \
             address as `host` instead (got `10.0.0.1`)"
        );
        assert!(rejected("host=db user=app gssencmode=require").contains("`disable`"));
    }

    #[test]
    fn accepts_values_that_match_the_fixed_behavior() {
        for accepted in ["gssencmode=prefer", "keepalives=1", "client_encoding=utf8", "service=''"] {
            let config = format!("host=db user=app {accepted}").parse::<crate::Config>();
            assert!(config.is_ok(), "{config:?}");
        }
    }
}
