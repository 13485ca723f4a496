use super::*;
use crate::config::Config;

fn rejected(query: &str) -> ConfigError {
    let parsed = format!("postgres://app@svc/shop?{query}").parse::<Config>();
    parsed.and_then(|config| config.validate()).expect_err(query)
}

#[test]
fn parses_every_tls_parameter() {
    let config: Config = "postgres://app@svc/shop?sslmode=verify-ca&sslrootcert=/tls/ca.crt&sslcert=/tls/tls.crt\
         &sslkey=/tls/tls.key&sslsni=0&sslnegotiation=direct&channel_binding=require&ssl_verify_name=pod\
         &sslcrl=/tls/ca.crl&sslcrldir=/tls/crls&sslcertmode=require&ssl_min_protocol_version=TLSv1.1\
         &ssl_max_protocol_version=TLSv1.3"
        .parse()
        .unwrap();
    config.validate().unwrap();
    let same = Ssl::new(SslMode::VerifyCa)
        .with_root_cert("/tls/ca.crt")
        .with_client_cert("/tls/tls.crt", "/tls/tls.key")
        .with_sni(false)
        .with_negotiation(SslNegotiation::Direct)
        .with_channel_binding(ChannelBinding::Require)
        .with_verified_name(VerifiedName::Pod)
        .with_crl("/tls/ca.crl")
        .with_crl_dir("/tls/crls")
        .with_cert_mode(SslCertMode::Require)
        .with_min_protocol_version(TlsVersion::V1_2)
        .with_max_protocol_version(TlsVersion::V1_3);
    assert_eq!(config.ssl(), &same);
}

#[test]
fn uses_libpq_defaults_for_missing_and_empty_values() {
    for query in ["", "?sslrootcert=&sslcert=&sslkey=&sslcrl=&sslpassword=&sslcertmode=&ssl_max_protocol_version="] {
        let config: Config = format!("postgres://app@svc/shop{query}").parse().unwrap();
        assert_eq!(config.ssl(), &Ssl::default());
        assert_eq!(config.ssl_mode(), SslMode::Prefer);
        assert!(config.ssl().sni());
    }
}

#[test]
fn the_system_trust_store_requires_verify_full() {
    let config: Config = "postgres://app@svc/shop?sslrootcert=system".parse().unwrap();
    assert_eq!(config.ssl_mode(), SslMode::VerifyFull);
    for mode in ["disable", "allow", "prefer", "require", "verify-ca"] {
        let error = rejected(&format!("sslrootcert=system&sslmode={mode}"));
        assert_eq!((error.parameter(), error.received()), ("sslmode", Some(mode)));
    }
}

#[test]
fn rejects_conflicting_parameters_and_unknown_keywords() {
    for (query, parameter, expected) in [
        ("sslnegotiation=direct", "sslmode", "`require` or stricter"),
        ("sslnegotiation=direct&sslmode=prefer", "sslmode", "`require` or stricter"),
        ("channel_binding=require&sslmode=disable", "sslmode", "other than `disable`"),
        ("sslcertmode=require", "sslmode", "`require` or stricter, because `sslcertmode=require`"),
        ("sslcertmode=no", "sslcertmode", "one of `allow`"),
        ("ssl_min_protocol_version=SSLv3", "ssl_min_protocol_version", "one of `TLSv1.2`"),
        ("ssl_max_protocol_version=TLSv1.1", "ssl_max_protocol_version", "older versions are insecure"),
        (
            "ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2",
            "ssl_min_protocol_version",
            "`TLSv1.2` or older",
        ),
        ("channel_binding=yes", "channel_binding", "one of `disable`"),
        ("sslnegotiation=tls", "sslnegotiation", "one of `direct`"),
        ("sslsni=yes", "sslsni", "`1` or `0`"),
        ("ssl_verify_name=-", "ssl_verify_name", "`service`, `pod`"),
        ("sslrootcrt=/x", "sslrootcrt", "the closest known parameter is `sslrootcert`"),
    ] {
        let error = rejected(query);
        assert_eq!(error.parameter(), parameter, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
    for name in ["service", "pod", "db.example.org"] {
        assert_eq!(name.parse::<VerifiedName>().unwrap().to_string(), name);
    }
}
