//! The table of all parameters: the name of each, libpq's environment variable for it, and how a value gets into a
//! [`Config`]. One line a parameter; every text form of a configuration reads it.

use super::{Config, Secret, nameservers, value::Value};
use crate::error::ConfigError;

/// One parameter.
pub(super) struct Parameter {
    /// libpq's name where libpq has the parameter.
    pub(super) name: &'static str,
    /// libpq's environment variable for it, where there is one (PostgreSQL manual, "Environment Variables").
    #[cfg_attr(not(test), expect(dead_code, reason = "the environment is not read yet"))]
    pub(super) variable: Option<&'static str>,
    pub(super) set: Set,
}

/// Takes a value over. Where a parameter says something only together with another, both are taken before the others
/// and this does nothing.
type Set = fn(&mut Config, Value<'_>) -> Result<(), ConfigError>;

/// A parameter that libpq has too, and its environment variable.
const fn libpq(name: &'static str, variable: Option<&'static str>, set: Set) -> Parameter {
    Parameter { name, variable, set }
}

/// A parameter that libpq has not.
const fn ours(name: &'static str, set: Set) -> Parameter {
    Parameter { name, variable: None, set }
}

/// Takes `Ok(value)` over into a field.
macro_rules! field {
    ($($field:ident).+ = $read:expr) => {
        |config, value| {
            config.$($field).+ = $read(value)?;
            Ok(())
        }
    };
}

const TOGETHER: Set = |_, _| Ok(());

/// Every parameter, by name.
#[rustfmt::skip]
pub(super) const PARAMETERS: &[Parameter] = &[
    ours("acquire_timeout", field!(limits.acquire_timeout = Value::seconds)),
    libpq("application_name", Some("PGAPPNAME"), field!(application_name = Value::text)),
    ours("client_id", field!(client_id = Value::text)),
    ours("clients", field!(limits.clients = |value: Value<'_>| value.number().map(Some))),
    ours("close_timeout", field!(limits.close_timeout = Value::seconds)),
    libpq("connect_timeout", Some("PGCONNECT_TIMEOUT"), field!(limits.connect_timeout = Value::seconds)),
    libpq("dbname", Some("PGDATABASE"), field!(dbname = Value::text)),
    ours("discovery", TOGETHER),
    ours("dns_hedge", field!(limits.dns_hedge = Value::seconds)),
    ours("dns_timeout", field!(limits.dns_timeout = Value::seconds)),
    ours("drain_timeout", field!(limits.drain_timeout = Value::seconds)),
    ours("handshakes_per_pod", field!(limits.handshakes_per_pod = Value::number)),
    libpq("host", Some("PGHOST"), TOGETHER),
    ours("idle_timeout", field!(limits.idle_timeout = Value::seconds)),
    libpq("keepalives_count", None, field!(limits.keepalives_count = Value::number)),
    libpq("keepalives_idle", None, field!(limits.keepalives_idle = Value::seconds)),
    libpq("keepalives_interval", None, field!(limits.keepalives_interval = Value::seconds)),
    ours("lag_fallback", field!(limits.lag_fallback = Value::word)),
    ours("max_connections", field!(limits.max_connections = |value: Value<'_>| value.number().map(Some))),
    ours("max_lag", field!(limits.max_lag = |value: Value<'_>| value.seconds().map(Some))),
    ours("max_lag_bytes", field!(limits.max_lag_bytes = |value: Value<'_>| value.number().map(Some))),
    ours("max_lifetime", field!(limits.max_lifetime = Value::seconds)),
    ours("min_idle", field!(limits.min_idle = Value::number)),
    ours("nameservers", field!(nameservers = |value: Value<'_>| nameservers::parse(value.text))),
    libpq("options", Some("PGOPTIONS"), field!(options = Value::text)),
    ours("outlier_consecutive", field!(limits.outlier_consecutive = Value::number)),
    ours("outlier_success_rate", field!(limits.outlier_success_rate = Value::share)),
    ours("outlier_window", field!(limits.outlier_window = Value::seconds)),
    libpq("password", Some("PGPASSWORD"), field!(password = |value: Value<'_>| value.text().map(|text| text.map(Secret::from)))),
    ours("ping_after", field!(limits.ping_after = Value::seconds)),
    ours("policy", field!(policy = Value::word)),
    ours("pool_size", field!(limits.pool_size = Value::number)),
    libpq("port", Some("PGPORT"), field!(port = Value::port)),
    ours("port_name", TOGETHER),
    ours("probe_interval", field!(limits.probe_interval = Value::seconds)),
    ours("probe_timeout", field!(limits.probe_timeout = Value::seconds)),
    ours("refresh_max", field!(limits.refresh_max = Value::seconds)),
    ours("refresh_min", field!(limits.refresh_min = Value::seconds)),
    ours("reset", field!(limits.reset = Value::word)),
    libpq("sslmode", Some("PGSSLMODE"), field!(ssl_mode = Value::word)),
    ours("statement_cache_size", field!(limits.statement_cache_size = Value::number)),
    ours("subset_size", field!(limits.subset_size = |value: Value<'_>| value.number().map(Some))),
    libpq("target_session_attrs", Some("PGTARGETSESSIONATTRS"), field!(target = Value::word)),
    libpq("tcp_user_timeout", None, field!(limits.tcp_user_timeout = Value::milliseconds)),
    libpq("user", Some("PGUSER"), TOGETHER),
];

/// The parameter of that name.
pub(super) fn known(name: &str) -> Option<&'static Parameter> {
    PARAMETERS.iter().find(|known| known.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_there_once_by_name() {
        assert!(PARAMETERS.is_sorted_by(|a, b| a.name < b.name));
        let mut variables: Vec<_> = PARAMETERS.iter().filter_map(|parameter| parameter.variable).collect();
        let count = variables.len();
        variables.sort_unstable();
        variables.dedup();
        assert_eq!(variables.len(), count);
    }
}
