//! The parameter `nameservers`, such as `nameservers=10.0.0.10,10.0.0.11:5353,[fd00::a]:53`.

use std::net::{IpAddr, SocketAddr};

use super::message;
use crate::error::ConfigError;

/// The port of a name server that is listed without one (RFC 1035, section 4.2).
const DEFAULT_PORT: u16 = 53;

/// Parses a comma-separated list of addresses with or without ports.
pub(super) fn parse(list: &str) -> Result<Vec<SocketAddr>, ConfigError> {
    list.split(',').map(parse_server).collect()
}

/// Rejects addresses to which no query can be sent: those with port 0, and the unspecified address.
pub(super) fn validate(servers: &[SocketAddr]) -> Result<(), ConfigError> {
    match servers.iter().find(|server| server.port() == 0 || server.ip().is_unspecified()) {
        Some(server) => Err(reject(&server.to_string())),
        None => Ok(()),
    }
}

fn parse_server(text: &str) -> Result<SocketAddr, ConfigError> {
    let bracketed = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address: Option<IpAddr> = match bracketed {
        Some(inner) => inner.parse().ok().filter(IpAddr::is_ipv6),
        None => text.parse().ok().filter(IpAddr::is_ipv4),
    };
    let server = match address {
        Some(address) => SocketAddr::new(address, DEFAULT_PORT),
        None => text.parse().map_err(|_| reject(text))?,
    };
    validate(&[server])?;
    Ok(server)
}

fn reject(text: &str) -> ConfigError {
    let expected = "a comma-separated list of `ip` or `ip:port`, with IPv6 addresses in brackets, without port 0 \
                    or unspecified addresses";
    ConfigError::new("nameservers", expected).got(message::excerpt(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_addresses_with_and_without_a_port() {
        let servers = parse("10.0.0.10,10.0.0.11:5353,[fd00::a],[fd00::a]:5353").unwrap();
        let written: Vec<_> = servers.iter().map(ToString::to_string).collect();
        assert_eq!(written, ["10.0.0.10:53", "10.0.0.11:5353", "[fd00::a]:53", "[fd00::a]:5353"]);
    }

    #[test]
    fn rejects_invalid_lists() {
        for list in
            ["", ",", "10.0.0.10,", "dns.example", "10.0.0.10:0", "10.0.0.10:x", "fd00::a", "[10.0.0.1]", "0.0.0.0"]
        {
            assert_eq!(parse(list).unwrap_err().parameter(), "nameservers", "{list:?}");
        }
    }
}
