//! Tests the parts of a URL that name the servers: the scheme and the ports.

use super::*;

#[test]
fn the_srv_scheme_selects_srv_records_with_their_weights() {
    for (url, port_name, weights) in [
        ("postgres+srv://app@db.example/shop", "postgresql", true),
        ("postgresql+srv://app:pw@db.example/shop?port_name=pg", "pg", true),
        ("postgres+srv://db.example/?user=app&discovery=srv&srv_weights=off", "postgresql", false),
        ("postgres://app@db.example/?discovery=srv&port_name=pg&srv_weights=on", "pg", true),
        ("postgres://app@db.example/?discovery=srv&port_name=pg", "pg", false),
    ] {
        let config: Config = url.parse().unwrap();
        config.validate().unwrap();
        assert_eq!(config.discovery(), &Discovery::Srv { port_name: port_name.into() }, "{url}");
        assert_eq!((config.srv_weights(), config.host().to_string().as_str()), (weights, "db.example"), "{url}");
    }
}

#[test]
fn an_empty_port_is_the_default_one() {
    for (url, ports) in [
        ("postgres://app@db:/shop", &[5432][..]),
        ("postgres://db:", &[5432]),
        ("postgres://app@a:,b:5433,c/shop", &[5432, 5433, 5432]),
        ("postgres://app@[::1]:,b:5433/shop", &[5432, 5433]),
    ] {
        let config: Config = url.parse().unwrap();
        assert_eq!(config.hosts().iter().map(HostEntry::port).collect::<Vec<_>>(), ports, "{url}");
    }
}
