//! `nameservers=10.0.0.10,10.0.0.11:5353,[fd00::a]:53`.

use std::net::{IpAddr, SocketAddr};

use super::words;
use crate::error::ConfigError;

/// The port of a name server that is given without one: RFC 1035, section 4.2.
const PORT: u16 = 53;

/// Reads a list of addresses with or without ports.
pub(super) fn parse(list: &str) -> Result<Vec<SocketAddr>, ConfigError> {
    list.split(',').map(one).collect()
}

/// Refuses a list that cannot be asked.
pub(super) fn validate(servers: &[SocketAddr]) -> Result<(), ConfigError> {
    match servers.iter().find(|server| server.port() == 0 || server.ip().is_unspecified()) {
        Some(server) => Err(refuse(&server.to_string())),
        None => Ok(()),
    }
}

fn one(text: &str) -> Result<SocketAddr, ConfigError> {
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address: Option<IpAddr> = match bracketed {
        Some(inner) => inner.parse().ok().filter(IpAddr::is_ipv6),
        None => text.parse().ok().filter(IpAddr::is_ipv4),
    };
    let server = match address {
        Some(address) => SocketAddr::new(address, PORT),
        None => text.parse().map_err(|_| refuse(text))?,
    };
    validate(&[server])?;
    Ok(server)
}

fn refuse(text: &str) -> ConfigError {
    let expected = "name servers as `ip` or `ip:port`, separated by commas, IPv6 in brackets";
    ConfigError::new("nameservers", expected).got(words::clip(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_with_and_without_a_port() {
        let servers = parse("10.0.0.10,10.0.0.11:5353,[fd00::a],[fd00::a]:5353").unwrap();
        let written: Vec<_> = servers.iter().map(ToString::to_string).collect();
        assert_eq!(written, ["10.0.0.10:53", "10.0.0.11:5353", "[fd00::a]:53", "[fd00::a]:5353"]);
    }

    #[test]
    fn refuses_everything_else() {
        for list in
            ["", ",", "10.0.0.10,", "dns.example", "10.0.0.10:0", "10.0.0.10:x", "fd00::a", "[10.0.0.1]", "0.0.0.0"]
        {
            assert_eq!(parse(list).unwrap_err().parameter(), "nameservers", "{list:?}");
        }
    }
}
