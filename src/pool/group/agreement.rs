//! The settings that all pools of a group must have in common, because they determine which Pods exist, which of them
//! are used, and how they are probed.

use std::fmt::Debug;

use crate::{
    config::{Config, Limits},
    error::ConfigError,
};

/// Returns an error if a setting that the pools of a group share differs from that of the group. `name` is the name of
/// a pool of the group.
pub(in crate::pool) fn check(group: &Config, own: &Config, name: &str) -> Result<(), ConfigError> {
    let differs = |parameter: &'static str, expected: String, got: String| {
        let expected = format!("`{expected}`, the value of the pool `{name}`, whose Pods this pool shares");
        Err(ConfigError::new(parameter, expected).got(got))
    };
    for (parameter, of) in TEXTS {
        let (expected, got) = (of(group), of(own));
        if expected != got {
            return differs(parameter, expected, got);
        }
    }
    for (parameter, of) in LIMITS {
        let (expected, got) = (of(group.limits()), of(own.limits()));
        if expected != got {
            return differs(parameter, expected, got);
        }
    }
    Ok(())
}

/// The name of a parameter, and a function that returns its value as text.
type Setting<T> = (&'static str, fn(&T) -> String);

/// The shared settings outside of [`Limits`], and their values as text.
const TEXTS: [Setting<Config>; 6] = [
    ("host", |config| list(config.hosts().iter().map(|entry| entry.host().to_string()))),
    ("hostaddr", |config| list(config.hosts().iter().map(|entry| text(entry.address())))),
    ("port", |config| list(config.hosts().iter().map(|entry| entry.port().to_string()))),
    ("discovery", |config| format!("{:?}", config.discovery()).to_lowercase()),
    ("srv_weights", |config| config.srv_weights().to_string()),
    ("nameservers", |config| list(config.nameservers().iter().map(ToString::to_string))),
];

/// The shared settings in [`Limits`], and their values as text.
const LIMITS: [Setting<Limits>; 17] = [
    ("absent_pods", |limits| format!("{:?}", limits.absent_pods).to_lowercase()),
    ("clients", |limits| text(limits.clients)),
    ("detach_linger", |limits| format!("{:?}", limits.detach_linger)),
    ("dns_hedge", |limits| format!("{:?}", limits.dns_hedge)),
    ("dns_timeout", |limits| format!("{:?}", limits.dns_timeout)),
    ("handshakes", |limits| limits.handshakes.to_string()),
    ("lag_fallback", |limits| format!("{:?}", limits.lag_fallback).to_lowercase()),
    ("max_connections", |limits| text(limits.max_connections)),
    ("max_lag", |limits| text(limits.max_lag)),
    ("max_lag_bytes", |limits| text(limits.max_lag_bytes)),
    ("probe_interval", |limits| format!("{:?}", limits.probe_interval)),
    ("probe_timeout", |limits| format!("{:?}", limits.probe_timeout)),
    ("refresh_max", |limits| format!("{:?}", limits.refresh_max)),
    ("refresh_min", |limits| format!("{:?}", limits.refresh_min)),
    ("subset_size", |limits| text(limits.subset_size)),
    ("tcp_user_timeout", |limits| format!("{:?}", limits.tcp_user_timeout)),
    ("connect_timeout", |limits| format!("{:?}", limits.connect_timeout)),
];

fn list(values: impl Iterator<Item = String>) -> String {
    values.collect::<Vec<_>>().join(",")
}

/// Returns the text of a value, or `unset`.
fn text<T: Debug>(value: Option<T>) -> String {
    value.map_or_else(|| "unset".into(), |value| format!("{value:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(parameters: &str) -> Config {
        format!("postgres://user@pg.test/db?{parameters}").parse().expect("the URL parses")
    }

    #[test]
    fn every_setting_that_must_agree_is_named_with_both_values() {
        let group = config("");
        let cases = [
            ("absent_pods=keep", "absent_pods", "drain", "keep"),
            ("clients=7", "clients", "unset", "7"),
            ("detach_linger=1s", "detach_linger", "30s", "1s"),
            ("dns_hedge=1s", "dns_hedge", "300ms", "1s"),
            ("dns_timeout=3s", "dns_timeout", "2s", "3s"),
            ("handshakes=3", "handshakes", "32", "3"),
            ("lag_fallback=primary", "lag_fallback", "fail", "primary"),
            ("max_connections=30", "max_connections", "unset", "30"),
            ("max_lag=3s", "max_lag", "unset", "3s"),
            ("max_lag_bytes=99", "max_lag_bytes", "unset", "99"),
            ("probe_interval=3s", "probe_interval", "5s", "3s"),
            ("probe_timeout=3s", "probe_timeout", "1s", "3s"),
            ("refresh_max=30s", "refresh_max", "10s", "30s"),
            ("refresh_min=3s", "refresh_min", "1s", "3s"),
            ("subset_size=3", "subset_size", "unset", "3"),
            ("tcp_user_timeout=4s", "tcp_user_timeout", "3s", "4s"),
            ("connect_timeout=4s", "connect_timeout", "2s", "4s"),
            ("srv_weights=on", "srv_weights", "false", "true"),
            ("nameservers=10.0.0.10", "nameservers", "", "10.0.0.10:53"),
            ("hostaddr=10.0.0.1", "hostaddr", "unset", "10.0.0.1"),
        ];
        for (parameters, parameter, expected, got) in cases {
            let error = check(&group, &config(parameters), "first").expect_err(parameters);
            assert_eq!((error.parameter(), error.received()), (parameter, Some(got)), "{parameters}");
            let start = format!("expected `{expected}`, the value of the pool `first`");
            assert!(error.problem().starts_with(&start), "{error}");
        }
        let named = cases.map(|(_, parameter, ..)| parameter);
        let others = ["host", "port", "discovery"];
        let all = TEXTS.iter().map(|(name, _)| name).chain(LIMITS.iter().map(|(name, _)| name));
        for parameter in all {
            assert!(named.contains(parameter) || others.contains(parameter), "{parameter} has no case");
        }
        for (url, parameter) in [
            ("postgres://user@other.test/db", "host"),
            ("postgres://user@pg.test:1/db", "port"),
            ("postgres://user@pg.test,b.test/db", "host"),
            ("postgres://user@pg.test/db?discovery=srv&port_name=pg", "discovery"),
        ] {
            let error = check(&group, &url.parse().expect("the URL parses"), "first").expect_err(url);
            assert_eq!(error.parameter(), parameter, "{url}");
        }
    }

    #[test]
    fn the_settings_of_a_single_pool_may_differ() {
        let own = "postgres://tenant:secret@pg.test/tenant?pool_size=2&min_idle=0&acquire_timeout=1s&reset=discard\
                   &target_session_attrs=primary&application_name=x&drain_timeout=1s&statement_cache_size=1";
        assert_eq!(check(&config(""), &own.parse().expect("the URL parses"), "first"), Ok(()));
    }
}
