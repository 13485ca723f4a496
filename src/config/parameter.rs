//! The table of all parameters. Each entry has the parameter's name, its libpq environment variable, and a function
//! that parses a value and stores it in a [`Config`]. URLs, keyword/value strings, environment variables and
//! configuration files all use this table.

use super::{Config, nameservers, value::Value};
use crate::error::ConfigError;

/// A parameter of the configuration.
pub(super) struct Parameter {
    /// The name, which is libpq's name if libpq has the parameter.
    pub(super) name: &'static str,
    /// libpq's environment variable for the parameter, if any (PostgreSQL manual, "Environment Variables").
    pub(super) variable: Option<&'static str>,
    /// True if libpq has the parameter.
    #[cfg_attr(not(test), expect(dead_code, reason = "a test compares the documentation with this field"))]
    pub(super) libpq: bool,
    /// Parses a value and stores it in a configuration.
    pub(super) set: Set,
}

/// A function that parses a value and stores it in a configuration.
type Set = fn(&mut Config, Value<'_>) -> Result<(), ConfigError>;

/// Creates the entry for a libpq parameter.
const fn libpq(name: &'static str, variable: Option<&'static str>, set: Set) -> Parameter {
    Parameter { name, variable, libpq: true, set }
}

/// Creates the entry for a parameter that libpq does not have.
const fn own(name: &'static str, set: Set) -> Parameter {
    Parameter { name, variable: None, libpq: false, set }
}

/// Creates a [`Set`] that stores the parsed value in a field.
macro_rules! field {
    ($($field:ident).+ = $parse:expr) => {
        |config, value| {
            config.$($field).+ = $parse(value)?;
            Ok(())
        }
    };
}

/// A parameter that `Settings::into_config` evaluates before the others: those of the hosts and `user` because creating
/// a [`Config`] requires them, `discovery` and `port_name` because they are valid only in combination.
const EVALUATED_FIRST: Set = |_, _| Ok(());
/// A TLS parameter, which [`Ssl::set`](super::Ssl::set) parses.
const TLS: Set = |config, value| config.ssl.set(value.name, value.text);

/// Every parameter, sorted by name.
#[rustfmt::skip]
pub(super) const PARAMETERS: &[Parameter] = &[
    own("absent_pods", field!(limits.absent_pods = Value::keyword)),
    own("acquire_timeout", field!(limits.acquire_timeout = Value::seconds)),
    libpq("application_name", Some("PGAPPNAME"), field!(application_name = Value::text)),
    libpq("channel_binding", Some("PGCHANNELBINDING"), TLS),
    own("client_id", field!(client_id = Value::text)),
    own("clients", field!(limits.clients = |value: Value<'_>| value.number().map(Some))),
    own("close_timeout", field!(limits.close_timeout = Value::seconds)),
    libpq("connect_timeout", Some("PGCONNECT_TIMEOUT"), field!(limits.connect_timeout = Value::seconds)),
    libpq("dbname", Some("PGDATABASE"), field!(dbname = Value::text)),
    own("detach_linger", field!(limits.detach_linger = Value::seconds)),
    own("discovery", EVALUATED_FIRST),
    own("dns_hedge", field!(limits.dns_hedge = Value::seconds)),
    own("dns_timeout", field!(limits.dns_timeout = Value::seconds)),
    own("drain_timeout", field!(limits.drain_timeout = Value::seconds)),
    own("handshakes", field!(limits.handshakes = Value::number)),
    own("handshakes_per_pod", field!(limits.handshakes_per_pod = Value::number)),
    libpq("host", Some("PGHOST"), EVALUATED_FIRST),
    libpq("hostaddr", Some("PGHOSTADDR"), EVALUATED_FIRST),
    own("idle_timeout", field!(limits.idle_timeout = Value::seconds)),
    libpq("keepalives_count", None, field!(limits.keepalives_count = Value::number)),
    libpq("keepalives_idle", None, field!(limits.keepalives_idle = Value::seconds)),
    libpq("keepalives_interval", None, field!(limits.keepalives_interval = Value::seconds)),
    own("lag_fallback", field!(limits.lag_fallback = Value::keyword)),
    own("max_connections", field!(limits.max_connections = |value: Value<'_>| value.number().map(Some))),
    own("max_lag", field!(limits.max_lag = |value: Value<'_>| value.seconds().map(Some))),
    own("max_lag_bytes", field!(limits.max_lag_bytes = |value: Value<'_>| value.number().map(Some))),
    own("max_lifetime", field!(limits.max_lifetime = Value::seconds)),
    own("min_idle", field!(limits.min_idle = Value::number)),
    own("nameservers", field!(nameservers = |value: Value<'_>| nameservers::parse(value.text))),
    libpq("options", Some("PGOPTIONS"), field!(options = Value::text)),
    own("outlier_consecutive", field!(limits.outlier_consecutive = Value::number)),
    own("outlier_success_rate", field!(limits.outlier_success_rate = Value::fraction)),
    own("outlier_window", field!(limits.outlier_window = Value::seconds)),
    libpq("passfile", Some("PGPASSFILE"), field!(passfile = Value::path)),
    libpq("password", Some("PGPASSWORD"), field!(password = Value::secret)),
    own("password_file", field!(password_file = Value::path)),
    own("ping_after", field!(limits.ping_after = Value::seconds)),
    own("policy", field!(policy = Value::keyword)),
    own("pool_size", field!(limits.pool_size = Value::number)),
    libpq("port", Some("PGPORT"), EVALUATED_FIRST),
    own("port_name", EVALUATED_FIRST),
    own("probe_interval", field!(limits.probe_interval = Value::seconds)),
    own("probe_timeout", field!(limits.probe_timeout = Value::seconds)),
    own("refresh_max", field!(limits.refresh_max = Value::seconds)),
    own("refresh_min", field!(limits.refresh_min = Value::seconds)),
    libpq("require_auth", Some("PGREQUIREAUTH"), field!(require_auth = Value::optional)),
    own("reset", field!(limits.reset = Value::keyword)),
    own("security", field!(security = Value::keyword)),
    own("shared_connections", field!(limits.shared_connections = Value::number)),
    own("shared_depth", field!(limits.shared_depth = Value::number)),
    own("shared_slow", field!(limits.shared_slow = |value: Value<'_>| value.seconds().map(Some))),
    own("srv_weights", field!(srv_weights = Value::switch)),
    libpq("ssl_max_protocol_version", Some("PGSSLMAXPROTOCOLVERSION"), TLS),
    libpq("ssl_min_protocol_version", Some("PGSSLMINPROTOCOLVERSION"), TLS),
    own("ssl_verify_name", TLS),
    libpq("sslcert", Some("PGSSLCERT"), TLS),
    libpq("sslcertmode", Some("PGSSLCERTMODE"), TLS),
    libpq("sslcrl", Some("PGSSLCRL"), TLS),
    libpq("sslcrldir", Some("PGSSLCRLDIR"), TLS),
    libpq("sslkey", Some("PGSSLKEY"), TLS),
    libpq("sslkeylogfile", None, TLS),
    libpq("sslmode", Some("PGSSLMODE"), TLS),
    libpq("sslnegotiation", Some("PGSSLNEGOTIATION"), TLS),
    libpq("sslpassword", None, TLS),
    libpq("sslrootcert", Some("PGSSLROOTCERT"), TLS),
    libpq("sslsni", Some("PGSSLSNI"), TLS),
    own("statement_cache_size", field!(limits.statement_cache_size = Value::number)),
    own("subset_size", field!(limits.subset_size = |value: Value<'_>| value.number().map(Some))),
    libpq("target_session_attrs", Some("PGTARGETSESSIONATTRS"), field!(target = Value::keyword)),
    libpq("tcp_user_timeout", None, field!(limits.tcp_user_timeout = Value::milliseconds)),
    libpq("user", Some("PGUSER"), EVALUATED_FIRST),
];

/// Returns the parameter with this name.
pub(super) fn find(name: &str) -> Option<&'static Parameter> {
    PARAMETERS.iter().find(|parameter| parameter.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_names_and_variables_are_unique() {
        assert!(PARAMETERS.is_sorted_by(|a, b| a.name < b.name));
        let mut variables: Vec<_> = PARAMETERS.iter().filter_map(|parameter| parameter.variable).collect();
        let count = variables.len();
        variables.sort_unstable();
        variables.dedup();
        assert_eq!(variables.len(), count);
    }
}
