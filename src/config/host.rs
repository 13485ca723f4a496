use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr};

use super::{ServiceName, message};
use crate::{error::ConfigError, system::platform::HAS_UNIX_SOCKETS};

/// The server or servers that a pool connects to: one IP address, one Unix socket, or the Pods behind a Service name.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Host {
    /// A single Pod at a fixed address, which needs no DNS lookups. In text, an IPv6 address is enclosed in brackets:
    /// `[fd00::1]`.
    Address(IpAddr),
    /// The server on this machine that has a Unix socket in this directory. Its connections use neither TCP nor TLS. In
    /// text: an absolute path, such as `/var/run/postgresql`, percent-encoded in the authority of a URL.
    Directory(PathBuf),
    /// Every Pod behind the name of a headless Service.
    Service(ServiceName),
}

impl FromStr for Host {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let reject = |expected: &'static str| Err(ConfigError::new("host", expected).got(message::excerpt(text)));
        if text.is_empty() {
            return Err(ConfigError::new("host", "the name of a headless Service or an IP address, got none"));
        }
        if text.contains(',') {
            return reject("one host, not a list");
        }
        if text.starts_with('@') {
            return reject("a name, an IP address or the directory of a Unix socket, not an abstract socket");
        }
        if text.starts_with('/') {
            return match HAS_UNIX_SOCKETS {
                true => Ok(Self::Directory(text.into())),
                false => reject("a name or an IP address, because this operating system has no Unix sockets"),
            };
        }
        let address = match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            Some(inner) => inner.parse().ok().filter(IpAddr::is_ipv6),
            None => text.parse().ok().filter(IpAddr::is_ipv4),
        };
        // An IPv4-mapped address (`[::ffff:10.0.0.1]`) becomes the IPv4 address, so that both are one endpoint.
        match address.map(|address| address.to_canonical()) {
            Some(address) if address.is_unspecified() || address.is_multicast() => {
                reject("the IP address of one Pod, not an unspecified or multicast address")
            }
            Some(address) => Ok(Self::Address(address)),
            None if text.contains(['[', ']']) || text.matches(':').count() > 1 => {
                reject("an IPv6 address in brackets and without a zone, such as `[fd00::1]`")
            }
            None => text.parse().map(Self::Service),
        }
    }
}

/// Formats the host as it appears in a URL.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => address.fmt(f),
            Self::Directory(path) => path.display().fmt(f),
            Self::Service(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distinguishes_service_names_from_ip_addresses() {
        assert_eq!("10.0.0.1".parse::<Host>().unwrap(), Host::Address([10, 0, 0, 1].into()));
        assert_eq!("[::1]".parse::<Host>().unwrap(), Host::Address("::1".parse().unwrap()));
        assert_eq!("db.svc".parse::<Host>().unwrap(), Host::Service("db.svc".parse().unwrap()));
    }

    #[test]
    fn parses_its_own_output() {
        for text in ["10.0.0.1", "[fd00::1]", "db.svc", "db.svc.", "/var/run/postgresql"] {
            assert_eq!(text.parse::<Host>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn explains_why_a_host_is_rejected() {
        for (text, expected) in [
            ("", "got none"),
            ("a,b", "one host"),
            ("@postgresql", "abstract"),
            ("::1", "in brackets"),
            ("[::1", "in brackets"),
            ("[10.0.0.1]", "in brackets"),
            ("[fe80::1%eth0]", "without a zone"),
            ("0.0.0.0", "the IP address of one Pod"),
            ("[ff02::1]", "the IP address of one Pod"),
            ("db..svc", "not empty"),
        ] {
            let error = text.parse::<Host>().unwrap_err();
            assert_eq!(error.parameter(), "host");
            assert!(error.problem().contains(expected), "{text}: {error}");
        }
    }
}
