//! Tests parsing and validation of whole URLs: that every part and limit is parsed, that errors explain the problem,
//! and that no password appears in an error or in `Debug` output.

use std::time::Duration;

use proptest::prelude::*;

use super::{percent::encode, *};

mod hosts;

const SERVICE: &str = "postgresql-svc.k8s-training.svc.cluster.local";

fn rejected(url: &str) -> ConfigError {
    url.parse::<Config>().and_then(|config| config.validate()).expect_err(url)
}

/// Asserts that `url` is rejected with an error that names `parameter` and contains `expected`.
#[track_caller]
fn assert_rejected(url: &str, parameter: &str, expected: &str) {
    let error = rejected(url);
    assert_eq!(error.parameter(), parameter, "{url}: {error}");
    assert!(error.to_string().contains(expected), "{url}: {error}");
}

#[test]
fn parses_every_part_of_a_url() {
    let url = format!("postgresql://app:p%40ss@{SERVICE}:5433/shop?application_name=web%20shop&options=-c%20a%3Db");
    let config: Config = url.parse().unwrap();
    config.validate().unwrap();
    assert_eq!(config.host().to_string(), SERVICE);
    assert_eq!(config.port(), 5433);
    assert_eq!(config.user(), "app");
    assert_eq!(config.password().unwrap().expose(), "p@ss");
    assert_eq!(config.dbname(), "shop");
    assert_eq!(config.application_name(), Some("web shop"));
    assert_eq!(config.options(), Some("-c a=b"));
    assert_eq!(config.discovery(), &Discovery::Dns);
    assert_eq!(config.limits(), &Limits::default());
}

#[test]
fn uses_libpq_defaults_for_missing_parts() {
    let config: Config = format!("postgres://app@{SERVICE}").parse().unwrap();
    assert_eq!(config.port(), 5432);
    assert_eq!(config.dbname(), "app");
    assert!(config.password().is_none());
    assert_eq!(config.ssl_mode(), SslMode::Prefer);
    assert_eq!(config.target(), Target::Any);
    assert!(config.nameservers().is_empty());
    let system = whoami::username().unwrap_or_default();
    for url in
        [format!("postgres://{SERVICE}"), format!("postgres://:pw@{SERVICE}/"), format!("postgres://@{SERVICE}?")]
    {
        assert_eq!(url.parse::<Config>().unwrap().user(), system, "{url}");
    }
}

#[test]
fn accepts_every_part_in_the_query() {
    let url = format!("postgres:///?host={SERVICE}&port=5433&user=app&password=p%40ss&dbname=shop");
    let config: Config = url.parse().unwrap();
    assert_eq!(config.host().to_string(), SERVICE);
    assert_eq!((config.port(), config.user(), config.dbname()), (5433, "app", "shop"));
    assert_eq!(config.password().unwrap().expose(), "p@ss");
}

#[test]
fn parses_every_limit() {
    let url = format!(
        "postgres://app@{SERVICE}/?acquire_timeout=1&connect_timeout=500ms&tcp_user_timeout=4000&keepalives_idle=7\
         &keepalives_interval=2s&keepalives_count=4&pool_size=16&min_idle=2&max_lifetime=1h&idle_timeout=5min\
         &refresh_min=2&refresh_max=20&dns_timeout=3&probe_interval=4&probe_timeout=900ms&drain_timeout=1min\
         &max_connections=40&subset_size=3&clients=500&statement_cache_size=64&reset=discard&client_id=web-7\
         &close_timeout=0&dns_hedge=200ms&handshakes=9&handshakes_per_pod=3&ping_after=2&outlier_consecutive=6\
         &outlier_success_rate=0.7&outlier_window=1min&max_lag=2s&max_lag_bytes=4096&lag_fallback=primary\
         &absent_pods=keep&detach_linger=0&shared_connections=2&shared_depth=16&shared_slow=20ms"
    );
    let config: Config = url.parse().unwrap();
    let limits = Limits {
        acquire_timeout: Duration::from_secs(1),
        connect_timeout: Duration::from_millis(500),
        tcp_user_timeout: Duration::from_secs(4),
        keepalives_idle: Duration::from_secs(7),
        keepalives_interval: Duration::from_secs(2),
        keepalives_count: 4,
        pool_size: 16,
        min_idle: 2,
        max_lifetime: Duration::from_secs(3_600),
        idle_timeout: Duration::from_secs(300),
        refresh_min: Duration::from_secs(2),
        refresh_max: Duration::from_secs(20),
        dns_timeout: Duration::from_secs(3),
        probe_interval: Duration::from_secs(4),
        probe_timeout: Duration::from_millis(900),
        drain_timeout: Duration::from_secs(60),
        close_timeout: Duration::ZERO,
        max_connections: Some(40),
        subset_size: Some(3),
        clients: Some(500),
        statement_cache_size: 64,
        shared_connections: 2,
        shared_depth: 16,
        shared_slow: Some(Duration::from_millis(20)),
        reset: Reset::Discard,
        dns_hedge: Duration::from_millis(200),
        handshakes: 9,
        handshakes_per_pod: 3,
        ping_after: Duration::from_secs(2),
        outlier_consecutive: 6,
        outlier_success_rate: 0.7,
        outlier_window: Duration::from_secs(60),
        max_lag: Some(Duration::from_secs(2)),
        max_lag_bytes: Some(4096),
        lag_fallback: LagFallback::Primary,
        absent_pods: AbsentPods::Keep,
        detach_linger: Duration::ZERO,
    };
    assert_eq!(config.limits(), &limits);
    assert_eq!(config.client_id(), Some("web-7"));
}

#[test]
fn parses_discovery_nameservers_and_ip_addresses() {
    let url =
        format!("postgres://app@{SERVICE}/?discovery=srv&port_name=postgresql-port&nameservers=10.0.0.10,[::1]:5353");
    let config: Config = url.parse().unwrap();
    config.validate().unwrap();
    assert_eq!(config.discovery(), &Discovery::Srv { port_name: "postgresql-port".into() });
    assert_eq!(config.nameservers(), ["10.0.0.10:53".parse().unwrap(), "[::1]:5353".parse().unwrap()]);
    let config: Config = "postgres://app@[fd00::1]:5433/shop?target_session_attrs=prefer-primary".parse().unwrap();
    assert_eq!(config.host(), &Host::Address("fd00::1".parse().unwrap()));
    assert_eq!((config.port(), config.target()), (5433, Target::PreferPrimary));
}

#[test]
fn errors_name_the_parameter_and_the_problem() {
    assert_rejected("mysql://app@db", "url", "`postgres://`");
    assert_rejected(" postgres://app@db", "url", "`postgres://`");
    assert_rejected("postgres://app@db/shop\n", "url", "no spaces");
    assert_rejected("postgres://app@db/shop#1", "url", "%23");
    assert_rejected("postgres://app@db/shop/x", "dbname", "%2F");
    assert_rejected("postgres://app@db/?pool_size", "url", "`name=value`");
    assert_rejected("postgres://app@db/?=5", "url", "`name=value`");
    assert_rejected("postgres://app@db/?a=1&&b=2", "a", "unknown parameter");
    assert_rejected("postgres://app@db/?options=-c%20a=b", "options", "%3D");
    assert_rejected("postgres://app@db/?poolsize=5", "poolsize", "the closest known parameter is `pool_size`");
    assert_rejected("postgres://app@db/?Port=5", "Port", "the closest known parameter is `port`");
    assert_rejected("postgres://app@db/?user=b", "user", "duplicate parameter");
    assert_rejected("postgres://app@db:5432/?port=5432", "port", "duplicate parameter");
    assert_rejected("postgres://app@db/?min_idle=1&min_idle=2", "min_idle", "duplicate parameter");
    assert_rejected("postgres://", "host", "got none");
    assert_rejected("postgres://app:pw@/shop", "host", "got none");
    assert_rejected("postgres://app@:5432/shop", "host", "got none");
    assert_rejected("postgres://app@a,/shop", "host", "empty entry");
    assert_rejected("postgres://app@a:1,b:x/shop", "port", "from 1 to 65535, got `x`");
    assert_rejected("postgres:///?user=app&host=a,b&port=1,2,3", "port", "each of the 2 hosts");
    assert_rejected("postgres:///?user=app&host=a,b&hostaddr=10.0.0.1", "hostaddr", "as many addresses");
    assert_rejected(
        "postgres://app@a,10.0.0.1/?discovery=srv&port_name=pg",
        "discovery",
        "`10.0.0.1` is an IP address",
    );
    assert_rejected("postgres://app@db..svc/shop", "host", "not empty");
    assert_rejected(&format!("postgres://app@{}/shop", "a.".repeat(128)), "host", "at most 253");
    assert_rejected("postgres://app@[::1/shop", "host", "in brackets");
    assert_rejected("postgres://app@::1/shop", "host", "in brackets");
    assert_rejected("postgres://app@[::1]x/shop", "host", "in brackets");
    assert_rejected("postgres://app@%2Ftmp/shop?security=strict", "security", "no TLS");
    assert_rejected("postgres:///shop?user=app&host=%40db", "host", "abstract");
    assert_rejected("postgres://app@db%zz/shop", "host", "`%25`");
    assert_rejected("postgres://app@db:0/shop", "port", "from 1 to 65535, got `0`");
    assert_rejected("postgres://app@db:65536/shop", "port", "got `65536`");
    assert_rejected("postgres://app@db:+5/shop", "port", "got `+5`");
    assert_rejected("postgres://app@db/?acquire_timeout=5sec", "acquire_timeout", "a duration");
    assert_rejected("postgres://app@db/?connect_timeout=0", "connect_timeout", "from 1ms to 1h");
    assert_rejected("postgres://app@db/?pool_size=-1", "pool_size", "a whole number, got `-1`");
    assert_rejected(
        "postgres://app@db/?outlier_success_rate=80%25",
        "outlier_success_rate",
        "from 0 to 1, such as `0.8`",
    );
    assert_rejected("postgres://app@db/?min_idle=9", "min_idle", "at most `pool_size`, which is 8");
    assert_rejected("postgres://app@db/?refresh_max=1ms", "refresh_max", "from 10ms to 1h");
    assert_rejected("postgres://app@db/?sslmode=required", "sslmode", "closest match: `require`");
    assert_rejected("postgres://app@db/?target_session_attrs=master", "target_session_attrs", "one of `any`");
    assert_rejected("postgres://app@db/?discovery=srv", "port_name", "`discovery=srv`");
    assert_rejected("postgres://app@db/?port_name=pg", "port_name", "`discovery=srv`");
    assert_rejected("postgres+srv://app@db:5432", "port", "contain the ports");
    assert_rejected("postgres+srv://app@a,b:5432", "port", "contain the ports");
    assert_rejected("postgres+srv://app@db/?port=5432", "port", "contain the ports");
    assert_rejected("postgres+srv://app@db/?discovery=dns", "discovery", "`postgres+srv://`");
    assert_rejected("postgres+srv://app@10.0.0.1", "discovery", "is an IP address");
    assert_rejected("postgres+srv://app@db/?srv_weights=1", "srv_weights", "`on` or `off`, got `1`");
    assert_rejected("postgres://app@db/?srv_weights=on", "srv_weights", "only SRV records");
    assert_rejected("mongodb+srv://app@db", "url", "`postgres+srv://`");
    assert_rejected("postgres://app@db/?nameservers=dns", "nameservers", "`ip:port`");
    assert_rejected("postgres://app@10.0.0.1/?nameservers=10.0.0.2", "nameservers", "is an IP address");
    assert_rejected("postgres://app@10.0.0.1/?discovery=srv&port_name=pg", "discovery", "is an IP address");
}

#[test]
fn errors_suggest_encoding_the_password_without_revealing_it() {
    for special in ["@", ":", "/", "?", "#", "%", "@/", "/@", "?x=", "&", "://"] {
        for password in [format!("hunter{special}secret"), format!("{special}secret"), format!("hunter{special}")] {
            let url = format!("postgres://app:{password}@{SERVICE}:5432/shop?pool_size=8");
            match url.parse::<Config>() {
                // An unencoded `&` before the `@` is valid.
                Ok(config) => assert_eq!(config.password().unwrap().expose(), password),
                Err(error) => {
                    assert_eq!(error.parameter(), "password", "{url}: {error}");
                    assert!(error.to_string().contains('%'), "{error}");
                    assert_eq!(error.received(), None);
                    for piece in ["hunter", "secret"] {
                        assert!(!format!("{error} {error:?}").contains(piece), "{url}: {error}");
                    }
                }
            }
        }
    }
}

#[test]
fn errors_do_not_reveal_a_password_in_the_query() {
    for password in
        ["a&secret=b", "a&port=secret", "a&secret", "a=secret", "a&pool_size=77secret", "%zzsecret", "a@secret"]
    {
        let error = rejected(&format!("postgres://app@{SERVICE}/?password={password}"));
        assert!(!format!("{error} {error:?}").contains("secret"), "{password}: {error}");
    }
}

#[test]
fn errors_do_not_reveal_a_password_parsed_as_the_port() {
    for url in [
        "postgres://app:hunter2",
        "postgres://app:a,hunter2",
        "postgres://app:123,hunter2$",
        "postgres://app:a:hunter2",
        "postgres://app:a]hunter2",
    ] {
        let error = rejected(url);
        assert!(["host", "port"].contains(&error.parameter()), "{error}");
        assert!(!format!("{error:?} {error}").contains("hunter2"), "{error}");
    }
}

#[test]
fn debug_output_does_not_reveal_the_password() {
    let config: Config = format!("postgres://app:hunter2@{SERVICE}").parse().unwrap();
    assert!(!format!("{config:?} {config:#?}").contains("hunter2"));
    let config = Config::new(SERVICE).unwrap().with_password("hunter2");
    assert!(!format!("{config:?} {config:#?}").contains("hunter2"));
}

#[test]
fn validate_rejects_invalid_values_from_setters() {
    let config = || Config::new(SERVICE).unwrap().with_user("app");
    config().validate().unwrap();
    let limits = Limits { min_idle: 9, ..Limits::default() };
    for (config, parameter) in [
        (config().with_user(""), "user"),
        (config().with_user("a\0b"), "user"),
        (config().with_password("a\0b"), "password"),
        (config().with_dbname(""), "dbname"),
        (config().with_dbname("a\0b"), "dbname"),
        (config().with_application_name("\0"), "application_name"),
        (config().with_options("\0"), "options"),
        (config().with_password("x").with_password_file("/y"), "password_file"),
        (config().with_port(0), "port"),
        (config().with_ssl(Ssl::new(SslMode::Require).with_root_cert("system")), "sslmode"),
        (config().with_ssl(Ssl::default().with_client_cert("", "")), "sslcert"),
        (config().with_discovery(Discovery::Srv { port_name: String::new() }), "port_name"),
        (config().with_nameservers(["10.0.0.1:0".parse().unwrap()]), "nameservers"),
        (config().with_limits(limits), "min_idle"),
    ] {
        assert_eq!(config.validate().unwrap_err().parameter(), parameter);
    }
}

#[test]
fn the_documentation_lists_every_parameter() {
    let rows: Vec<_> = include_str!("parameters.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `"))
        .map(|row| {
            let (name, rest) = row.split_once('`').unwrap();
            let last = rest.trim_end_matches([' ', '|']).rsplit('|').next().unwrap().trim();
            let libpq = rest.trim_end().strip_suffix("| |").is_none();
            (name, libpq, last.strip_prefix('`').map(|name| name.trim_end_matches('`')).filter(|_| libpq))
        })
        .collect();
    let table: Vec<_> = parameter::PARAMETERS.iter().map(|row| (row.name, row.libpq, row.variable)).collect();
    assert_eq!(rows, table);
}

/// The source code of the error messages. A piece of a random password that also occurs in this text does not count as
/// a leak.
const FIXED: &str = concat!(
    include_str!("discovery.rs"),
    include_str!("known.rs"),
    include_str!("host.rs"),
    include_str!("parameter.rs"),
    include_str!("percent.rs"),
    include_str!("setting.rs"),
    include_str!("url.rs"),
    include_str!("value.rs"),
    include_str!("../error/config.rs"),
);

/// Splits a password at reserved characters. Skips short pieces, because they may occur in error messages by chance.
fn pieces(password: &str) -> impl Iterator<Item = &str> {
    let reserved = ['@', ':', '/', '?', '#', '%', '&', '=', '+', ' ', '.', ','];
    password.split(reserved).chain([password]).filter(|piece| piece.chars().count() >= 4)
}

/// Generates passwords, many of them with characters that are reserved in URLs.
fn password() -> impl Strategy<Value = String> {
    prop_oneof!["[a-zA-Z0-9@:/?#%&=+,.\\[\\] -]{4,24}", "\\PC{4,24}", any::<String>()]
}

proptest! {
    #[test]
    fn parses_any_encoded_password(password in "[^\0]+") {
        let encoded = encode(&password);
        let in_userinfo = format!("postgres://app:{encoded}@{SERVICE}");
        let in_query = format!("postgres://app@{SERVICE}?password={encoded}");
        for url in [in_userinfo, in_query] {
            let config: Config = url.parse().unwrap();
            prop_assert_eq!(config.password().unwrap().expose(), &password);
            config.validate().unwrap();
        }
    }

    #[test]
    fn errors_and_debug_output_do_not_reveal_an_unencoded_password(password in password()) {
        let rest = format!("postgres://app:@{SERVICE}:5432/shop?pool_size=8");
        let url = format!("postgres://app:{password}@{SERVICE}:5432/shop?pool_size=8");
        match url.parse::<Config>() {
            Ok(config) => {
                let shown = format!("{config:?}");
                let plain = format!("{:?}", rest.parse::<Config>().unwrap().with_user("app"));
                let fixed = |piece: &str| plain.contains(piece) || "Some(Secret(..))".contains(piece);
                for piece in pieces(&password).filter(|piece| !fixed(piece)) {
                    prop_assert!(!shown.contains(piece), "{:?} in {}", piece, shown);
                }
            }
            Err(error) => {
                prop_assert_eq!(error.received(), None);
                prop_assert!(["password", "url"].contains(&error.parameter()), "{}", error);
                let shown = format!("{error} {error:?}");
                for piece in pieces(&password).filter(|piece| !FIXED.contains(piece)) {
                    prop_assert!(!shown.contains(piece), "{:?} in {}", piece, shown);
                }
            }
        }
    }

    #[test]
    fn errors_do_not_reveal_an_unencoded_password_in_the_query(password in password()) {
        let url = format!("postgres://app@{SERVICE}:5432/shop?password={password}");
        if let Err(error) = url.parse::<Config>() {
            prop_assert_eq!(error.received(), None);
            prop_assert!(!error.parameter().is_empty());
            let shown = format!("{error} {error:?}");
            for piece in pieces(&password).filter(|piece| !FIXED.contains(piece)) {
                prop_assert!(!shown.contains(piece), "{:?} in {}", piece, shown);
            }
        }
    }

    #[test]
    fn never_panics_and_every_error_names_a_parameter(
        text in any::<String>(),
        tail in "[a-z0-9@:/?#%&=,.\\[\\]_-]{0,60}",
    ) {
        let [host, tail, query] =
            [format!("postgres://{text}"), format!("postgres://{tail}"), format!("postgres://db/?{tail}")];
        for url in [text, host, tail, query] {
            if let Err(error) = url.parse::<Config>().and_then(|config| config.validate()) {
                prop_assert!(!error.parameter().is_empty());
                prop_assert!(!error.problem().is_empty());
            }
        }
    }
}
