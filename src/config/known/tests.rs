//! Tests that every setting of libpq 18 is implemented, refused by name, or known to be harmless, whatever the way in
//! which it is set, and that `docs/parameters.md` is up to date.

use std::ffi::OsString;

use super::{super::parameter, *};
use crate::config::Config;

mod page;

/// Every connection parameter of libpq 18.4 with its environment variable, in the order of its function
/// `PQconndefaults`, from which the list was taken. It is independent of the table, so that the test finds a setting
/// that the table lacks.
#[rustfmt::skip]
const LIBPQ_18: [(&str, &str); 51] = [
    ("service", "PGSERVICE"), ("user", "PGUSER"), ("password", "PGPASSWORD"), ("passfile", "PGPASSFILE"),
    ("channel_binding", "PGCHANNELBINDING"), ("connect_timeout", "PGCONNECT_TIMEOUT"), ("dbname", "PGDATABASE"),
    ("host", "PGHOST"), ("hostaddr", "PGHOSTADDR"), ("port", "PGPORT"), ("client_encoding", "PGCLIENTENCODING"),
    ("options", "PGOPTIONS"), ("application_name", "PGAPPNAME"), ("fallback_application_name", ""), ("keepalives", ""),
    ("keepalives_idle", ""), ("keepalives_interval", ""), ("keepalives_count", ""), ("tcp_user_timeout", ""),
    ("sslmode", "PGSSLMODE"), ("sslnegotiation", "PGSSLNEGOTIATION"), ("sslcompression", "PGSSLCOMPRESSION"),
    ("sslcert", "PGSSLCERT"), ("sslkey", "PGSSLKEY"), ("sslcertmode", "PGSSLCERTMODE"), ("sslpassword", ""),
    ("sslrootcert", "PGSSLROOTCERT"), ("sslcrl", "PGSSLCRL"), ("sslcrldir", "PGSSLCRLDIR"), ("sslsni", "PGSSLSNI"),
    ("requirepeer", "PGREQUIREPEER"), ("require_auth", "PGREQUIREAUTH"),
    ("min_protocol_version", "PGMINPROTOCOLVERSION"), ("max_protocol_version", "PGMAXPROTOCOLVERSION"),
    ("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION"), ("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION"),
    ("gssencmode", "PGGSSENCMODE"), ("krbsrvname", "PGKRBSRVNAME"), ("gsslib", "PGGSSLIB"),
    ("gssdelegation", "PGGSSDELEGATION"), ("replication", ""), ("target_session_attrs", "PGTARGETSESSIONATTRS"),
    ("load_balance_hosts", "PGLOADBALANCEHOSTS"), ("scram_client_key", ""), ("scram_server_key", ""),
    ("oauth_issuer", ""), ("oauth_client_id", ""), ("oauth_client_secret", ""), ("oauth_scope", ""),
    ("sslkeylogfile", ""),
    // Not listed by `PQconndefaults`, but translated to `sslmode`.
    ("requiressl", "PGREQUIRESSL"),
];

/// The other environment variables that libpq 18 reads (PostgreSQL manual, "Environment Variables", and the strings in
/// the library).
const OTHER_VARIABLES: [&str; 7] =
    ["PGDATESTYLE", "PGTZ", "PGGEQO", "PGSERVICEFILE", "PGSYSCONFDIR", "PGLOCALEDIR", "PGOAUTHDEBUG"];

/// Returns every entry of the three tables.
fn table() -> impl Iterator<Item = &'static Known> {
    PARAMETERS.iter().chain(FOREIGN).chain(VARIABLES)
}

/// Returns a value that an implemented parameter accepts, or that a refused one rejects.
fn value(name: &str) -> &'static str {
    match name {
        "channel_binding" => "prefer",
        "connect_timeout" | "keepalives_count" | "keepalives_idle" | "keepalives_interval" => "3",
        "host" => "db.svc",
        "hostaddr" => "10.0.0.1",
        "port" | "tcp_user_timeout" => "5433",
        "require_auth" => "scram-sha-256",
        "ssl_max_protocol_version" | "ssl_min_protocol_version" => "TLSv1.3",
        "sslcertmode" => "disable",
        "sslmode" => "prefer",
        "sslnegotiation" => "postgres",
        "sslsni" => "1",
        "target_session_attrs" => "read-write",
        _ => "hunter2",
    }
}

/// Returns true if this build lacks the feature that the parameter requires.
fn lacks_feature(name: &str) -> bool {
    name == "sslkeylogfile" && cfg!(not(feature = "keylog"))
        || name == "sslpassword" && cfg!(not(feature = "encrypted-keys"))
}

/// Parses a parameter from a URL, a keyword/value string and, if it has one, its environment variable.
fn parsed(name: &str, variable: Option<&str>, value: &str) -> Vec<Result<Config, ConfigError>> {
    let (url, pairs) = match name {
        "host" => (format!("postgres:///?host={value}"), format!("host={value}")),
        _ => (format!("postgres://db.svc/?{name}={value}"), format!("host=db.svc {name}={value}")),
    };
    let mut all = vec![url.parse(), pairs.parse()];
    all.extend(variable.map(|variable| from_variable(variable, value)));
    all
}

/// Parses a configuration in an environment that contains `PGHOST` and this variable.
fn from_variable(variable: &str, value: &str) -> Result<Config, ConfigError> {
    let find = |name: &str| match name {
        name if name == variable => Some(OsString::from(value)),
        "PGHOST" => Some(OsString::from("db.svc")),
        _ => None,
    };
    Config::parse_with("", find)
}

#[test]
fn the_tables_are_sorted_and_list_every_setting_of_libpq_18() {
    for table in [PARAMETERS, FOREIGN, VARIABLES] {
        assert!(table.is_sorted_by(|a, b| a.name.to_lowercase() < b.name.to_lowercase()));
    }
    for (name, variable) in LIBPQ_18 {
        let variable = Some(variable).filter(|variable| !variable.is_empty());
        let known = table().find(|known| known.name == name).unwrap_or_else(|| panic!("`{name}` is not in the table"));
        assert_eq!(known.variable, variable, "variable of `{name}`");
    }
    for variable in OTHER_VARIABLES {
        assert!(table().any(|known| known.variable == Some(variable)), "`{variable}` is not in the table");
    }
    // The table contains nothing that libpq 18 does not have, except names that are refused with a remedy.
    for known in PARAMETERS {
        assert!(LIBPQ_18.iter().any(|(name, _)| *name == known.name), "libpq 18 has no parameter `{}`", known.name);
    }
    let mut variables: Vec<_> = table().filter_map(|known| known.variable).collect();
    let count = variables.len();
    variables.sort_unstable();
    variables.dedup();
    assert_eq!(variables.len(), count, "a variable is listed twice");
}

#[test]
fn implemented_entries_agree_with_the_table_of_parsers() {
    let implemented = |known: &&Known| matches!(known.state, State::Implemented(_));
    let listed: Vec<_> = PARAMETERS.iter().filter(implemented).map(|known| (known.name, known.variable)).collect();
    let parsers = parameter::PARAMETERS.iter().filter(|row| row.libpq);
    assert_eq!(listed, parsers.map(|row| (row.name, row.variable)).collect::<Vec<_>>());
    assert!(FOREIGN.iter().chain(VARIABLES).all(|known| !implemented(&known)));
    for known in FOREIGN.iter().chain(VARIABLES) {
        assert!(parameter::find(known.name).is_none(), "{}", known.name);
    }
}

#[test]
fn implemented_parameters_are_accepted_however_they_are_set() {
    for known in PARAMETERS.iter().filter(|known| matches!(known.state, State::Implemented(_))) {
        for result in parsed(known.name, known.variable, value(known.name)) {
            match lacks_feature(known.name) {
                true => {
                    let error = result.unwrap_err();
                    assert_eq!(error.parameter(), known.name, "{error}");
                    assert!(error.problem().contains("feature"), "{error}");
                }
                false => assert!(result.is_ok(), "{}: {result:?}", known.name),
            }
        }
    }
}

#[test]
fn refused_settings_fail_with_their_reason_however_they_are_set() {
    for known in table() {
        let State::Refused { accepted, reason } = known.state else { continue };
        let results = match VARIABLES.iter().any(|variable| variable.name == known.name) {
            true => vec![from_variable(known.variable.unwrap(), value(known.name))],
            false => parsed(known.name, known.variable, value(known.name)),
        };
        for result in results {
            let error = result.unwrap_err();
            assert_eq!((error.parameter(), error.problem()), (known.name, reason));
            assert_eq!(error.received(), Some("hunter2").filter(|_| !is_secret(known.name)));
        }
        if let Some(variable) = known.variable {
            let error = from_variable(variable, "hunter2").unwrap_err();
            assert_eq!(error.variable(), Some(variable));
            assert!(error.to_string().contains(variable), "{error}");
            for value in accepted.iter().copied().chain([""]) {
                let result = from_variable(variable, value);
                assert!(result.is_ok(), "{variable}={value}: {result:?}");
            }
        }
    }
}

#[test]
fn harmless_variables_and_those_of_other_programs_are_accepted() {
    let harmless = table().filter(|known| matches!(known.state, State::Harmless(_)));
    let others = ["PGDATA", "PGBOUNCER_HOST", "PG_COLOR", "PGPASS"];
    for variable in harmless.filter_map(|known| known.variable).chain(others) {
        let result = from_variable(variable, "hunter2");
        assert!(result.is_ok(), "{variable}: {result:?}");
    }
}

#[test]
fn secrets_appear_in_no_error_and_no_debug_output() {
    for name in SECRETS {
        for text in [
            format!("postgres://db/?{name}=hunter2&pool_size=x"),
            format!("host=db {name}=hunter2 pool_size=x"),
            format!("postgres://db/?{name}=hunter2&hunter2=hunter2"),
        ] {
            let error = text.parse::<Config>().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
        }
        if let Ok(config) = format!("host=db {name}=hunter2").parse::<Config>() {
            assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
        }
    }
}

#[test]
fn values_that_match_the_fixed_behavior_are_accepted() {
    for accepted in ["gssencmode=prefer", "keepalives=1", "client_encoding=utf8", "service=''", "oauth_issuer=''"] {
        let config = format!("host=db user=app {accepted}").parse::<Config>();
        assert!(config.is_ok(), "{config:?}");
    }
    let error = "postgres://app@db/?ssl=true".parse::<Config>().unwrap_err();
    assert!(error.to_string().starts_with("unsupported parameter `ssl`: it is a parameter of JDBC; set `sslmode="));
}
