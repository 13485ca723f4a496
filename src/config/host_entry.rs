//! The list of hosts: `host`, `hostaddr` and `port`, which libpq parses as three lists of equal length (PostgreSQL
//! manual, "Specifying Multiple Hosts").

use std::net::{IpAddr, SocketAddr};

use super::{DEFAULT_PORT, Host, message};
use crate::{address::Address, error::ConfigError, system::platform::MAX_SOCKET_PATH};

/// Maximum number of hosts. Each one has its own lookups.
const MAX_HOSTS: usize = 100;

/// One entry of the list of hosts: a host and its port.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct HostEntry {
    pub(super) host: Host,
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
}

impl HostEntry {
    /// Returns the host: the name for TLS verification and for the password file.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Returns the address in `hostaddr`, which is used instead of the host's addresses. An IPv4-mapped address is
    /// converted to an IPv4 address.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Returns the port of the servers. Not used with `discovery=srv`, because SRV records contain the port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns the only address of this entry, if it needs no lookup.
    pub(crate) fn fixed(&self) -> Option<Address> {
        let tcp = |ip: IpAddr| Address::Tcp(SocketAddr::new(ip, self.port));
        match (&self.host, self.address) {
            (_, Some(address)) => Some(tcp(address)),
            (Host::Address(address), None) => Some(tcp(*address)),
            (Host::Directory(path), None) => Some(Address::unix(path, self.port)),
            (Host::Service(_), None) => None,
        }
    }

    /// Rejects a port of 0, an address of a Unix socket, and a path that the operating system does not accept.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if self.port == 0 {
            return Err(ConfigError::new("port", "a number from 1 to 65535").got("0"));
        }
        let Host::Directory(path) = &self.host else { return Ok(()) };
        if self.address.is_some() {
            let reason = format!("`{}` is the directory of a Unix socket, which has no IP address", path.display());
            return Err(ConfigError::conflicting("hostaddr", reason));
        }
        let length = Address::unix(path, self.port).to_string().len();
        if length > MAX_SOCKET_PATH {
            let expected = format!("a directory whose sockets have paths of at most {MAX_SOCKET_PATH} bytes");
            return Err(ConfigError::new("host", expected).got(format!("{length} bytes")));
        }
        Ok(())
    }
}

/// Parses the three lists. `port` has one entry for all hosts, or one for each.
pub(super) fn parse(hosts: &str, addresses: &str, ports: &str) -> Result<Vec<HostEntry>, ConfigError> {
    let hosts: Vec<_> = if hosts.is_empty() && !addresses.is_empty() { Vec::new() } else { hosts.split(',').collect() };
    let addresses: Vec<_> = if addresses.is_empty() { Vec::new() } else { addresses.split(',').collect() };
    let count = hosts.len().max(addresses.len());
    if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
        let expected = format!("as many addresses as `host` has entries ({})", hosts.len());
        return Err(ConfigError::new("hostaddr", expected).got(addresses.len().to_string()));
    }
    if count > MAX_HOSTS {
        return Err(ConfigError::new("host", format!("at most {MAX_HOSTS} hosts")).got(count.to_string()));
    }
    let ports: Vec<_> = ports.split(',').map(parse_port).collect::<Result<_, _>>()?;
    if ports.len() != 1 && ports.len() != count {
        let expected = match count {
            1 => "one port, because there is one host".to_owned(),
            _ => format!("one port for all hosts, or one for each of the {count} hosts"),
        };
        return Err(ConfigError::new("port", expected).got(format!("{} ports", ports.len())));
    }
    (0..count)
        .map(|index| {
            let address = addresses.get(index).filter(|text| !text.is_empty());
            let address = address.map(|text| parse_address(text)).transpose()?;
            let host = match (hosts.get(index).copied().unwrap_or_default(), address) {
                ("", Some(address)) => Host::Address(address),
                ("", None) if count > 1 => {
                    let expected = "a name or an address in each entry of the list, got an empty entry";
                    return Err(ConfigError::new("host", expected));
                }
                (text, _) => text.parse()?,
            };
            Ok(HostEntry { host, address, port: ports[index % ports.len()] })
        })
        .collect()
}

/// Parses one entry of `port`. As in libpq, an empty one is the default port.
fn parse_port(text: &str) -> Result<u16, ConfigError> {
    let port = match text {
        "" => Some(DEFAULT_PORT),
        _ if !text.bytes().all(|byte| byte.is_ascii_digit()) => None,
        _ => text.parse().ok().filter(|port| *port != 0),
    };
    port.ok_or_else(|| ConfigError::new("port", "a number from 1 to 65535").got(message::excerpt(text)))
}

/// Parses one entry of `hostaddr`. An IPv6 address may be in brackets, as in `host`. An IPv4-mapped address becomes the
/// IPv4 address, so that both are one endpoint.
fn parse_address(text: &str) -> Result<IpAddr, ConfigError> {
    let plain = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match plain.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(address) if !address.is_unspecified() && !address.is_multicast() => Ok(address),
        _ => Err(ConfigError::new("hostaddr", "the IP address of one server").got(message::excerpt(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns each entry as `host/hostaddr:port`.
    fn entries(hosts: &str, addresses: &str, ports: &str) -> Vec<String> {
        let entries = parse(hosts, addresses, ports).unwrap().into_iter();
        let address = |entry: &HostEntry| entry.address().map(|address| format!("/{address}")).unwrap_or_default();
        entries.map(|entry| format!("{}{}:{}", entry.host(), address(&entry), entry.port())).collect()
    }

    #[test]
    fn each_host_has_the_common_port_or_its_own() {
        assert_eq!(entries("a", "", ""), ["a:5432"]);
        assert_eq!(entries("a,b", "", "5433"), ["a:5433", "b:5433"]);
        assert_eq!(entries("a,[::1],10.0.0.1", "", "1,,3"), ["a:1", "[::1]:5432", "10.0.0.1:3"]);
        assert_eq!(entries("a,a", "", "1,2"), ["a:1", "a:2"]);
    }

    #[test]
    fn an_address_replaces_the_lookup_and_keeps_the_name() {
        assert_eq!(entries("a,b", "10.0.0.1,", "1,2"), ["a/10.0.0.1:1", "b:2"]);
        assert_eq!(entries("", "10.0.0.1,::1", ""), ["10.0.0.1/10.0.0.1:5432", "[::1]/::1:5432"]);
        assert_eq!(entries(",b", "[fd00::1],", ""), ["[fd00::1]/fd00::1:5432", "b:5432"]);
        let fixed = parse("a,b", "10.0.0.1,", "").unwrap();
        assert_eq!([fixed[0].fixed(), fixed[1].fixed()], [Some(Address::Tcp(([10, 0, 0, 1], 5432).into())), None]);
    }

    #[test]
    fn an_ipv4_mapped_address_is_the_ipv4_address() {
        let mapped = parse("[::ffff:10.0.0.1],a,b", ",::ffff:10.0.0.1,[::ffff:a00:1]", "").unwrap();
        let address = Some(Address::Tcp(([10, 0, 0, 1], 5432).into()));
        assert!(mapped.iter().all(|entry| entry.fixed() == address), "{mapped:?}");
        assert_eq!(mapped[1].address(), Some([10, 0, 0, 1].into()));
        assert!(parse("a", "::ffff:0.0.0.0", "").is_err());
    }

    #[cfg(unix)]
    #[test]
    fn a_directory_contains_the_socket_of_a_port() {
        let sockets = parse("/tmp,/var/run/postgresql/,db", "", "1,2,3").unwrap();
        let paths: Vec<_> = sockets.iter().filter_map(HostEntry::fixed).map(|path| path.to_string()).collect();
        assert_eq!(paths, ["/tmp/.s.PGSQL.1", "/var/run/postgresql/.s.PGSQL.2"]);
        assert!(sockets.iter().all(|entry| entry.validate().is_ok()));
        let long = format!("/{}", "d".repeat(100));
        for (hosts, addresses, parameter) in [("/tmp", "10.0.0.1", "hostaddr"), (&*long, "", "host")] {
            let error = parse(hosts, addresses, "").unwrap()[0].validate().unwrap_err();
            assert_eq!(error.parameter(), parameter, "{error}");
        }
    }

    #[test]
    fn rejects_lists_of_different_lengths_and_invalid_entries() {
        let many = vec!["a"; MAX_HOSTS + 1].join(",");
        for (hosts, addresses, ports, parameter, expected) in [
            ("", "", "", "host", "got none"),
            ("a,", "", "", "host", "empty entry"),
            ("a,b..c", "", "", "host", "not empty"),
            ("a,b", "10.0.0.1", "", "hostaddr", "2"),
            ("a", "10.0.0.1,10.0.0.2", "", "hostaddr", "1"),
            ("a", "b", "", "hostaddr", "IP address"),
            ("a", "0.0.0.0", "", "hostaddr", "IP address"),
            ("a", "", "1,2", "port", "one host"),
            ("a,b,c", "", "1,2", "port", "each of the 3 hosts"),
            ("a,b", "", "1,x", "port", "1 to 65535"),
            ("a,b", "", "0", "port", "1 to 65535"),
            (&many, "", "", "host", "at most 100"),
        ] {
            let error = parse(hosts, addresses, ports).unwrap_err();
            assert_eq!(error.parameter(), parameter, "{error}");
            assert!(error.to_string().contains(expected), "{error}");
        }
    }
}
