use std::{fmt, net::IpAddr, str::FromStr};

use super::{ServiceName, words};
use crate::error::ConfigError;

/// What the pool connects to: the Pods behind a name, or one address.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Host {
    /// One fixed Pod, which nothing is looked up for. An IPv6 address is written in brackets: `[fd00::1]`.
    Address(IpAddr),
    /// Every Pod behind the name of a headless Service.
    Service(ServiceName),
}

impl FromStr for Host {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let refuse = |expected: &'static str| Err(ConfigError::new("host", expected).got(words::clip(text)));
        if text.is_empty() {
            return Err(ConfigError::new("host", "the name of a headless Service, or an IP address; none is given"));
        }
        if text.contains(',') {
            return refuse("one host: the name of a headless Service stands for all its Pods, each of which is used");
        }
        if text.starts_with(['/', '@']) {
            return refuse("the name of a headless Service, or an IP address, not a Unix socket");
        }
        let address = match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
            Some(inner) => inner.parse().ok().filter(IpAddr::is_ipv6),
            None => text.parse().ok().filter(IpAddr::is_ipv4),
        };
        match address {
            Some(address) if address.is_unspecified() || address.is_multicast() => refuse("the address of one Pod"),
            Some(address) => Ok(Self::Address(address)),
            None if text.contains(['[', ']']) || text.matches(':').count() > 1 => {
                refuse("an IPv6 address in brackets, such as `[fd00::1]`, without a zone")
            }
            None => text.parse().map(Self::Service),
        }
    }
}

/// The host as it is written in a URL.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => address.fmt(f),
            Self::Service(name) => name.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_a_name_from_an_address() {
        assert_eq!("10.0.0.1".parse::<Host>().unwrap(), Host::Address([10, 0, 0, 1].into()));
        assert_eq!("[::1]".parse::<Host>().unwrap(), Host::Address("::1".parse().unwrap()));
        assert_eq!("db.svc".parse::<Host>().unwrap(), Host::Service("db.svc".parse().unwrap()));
    }

    #[test]
    fn is_written_as_it_is_read() {
        for text in ["10.0.0.1", "[fd00::1]", "db.svc", "db.svc."] {
            assert_eq!(text.parse::<Host>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, expected) in [
            ("", "none is given"),
            ("a,b", "stands for all its Pods"),
            ("/var/run/postgresql", "not a Unix socket"),
            ("::1", "in brackets"),
            ("[::1", "in brackets"),
            ("[10.0.0.1]", "in brackets"),
            ("[fe80::1%eth0]", "without a zone"),
            ("0.0.0.0", "the address of one Pod"),
            ("[ff02::1]", "the address of one Pod"),
            ("db..svc", "not empty"),
        ] {
            let error = text.parse::<Host>().unwrap_err();
            assert_eq!(error.parameter(), "host");
            assert!(error.expected().contains(expected), "{text}: {error}");
        }
    }
}
