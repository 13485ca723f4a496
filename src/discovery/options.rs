use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::config::ServiceName;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

const DEFAULT_HEDGE: Duration = Duration::from_millis(300);

const DEFAULT_RESOLV_CONF: &str = "/etc/resolv.conf";

/// The port of DNS (RFC 1035 section 4.2).
const DEFAULT_PORT: u16 = 53;

/// Options of a [`Dns`](crate::discovery::Dns) resolver.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DnsOptions {
    /// Name of the Service. Unless it is absolute, the first lookup completes it along the search list (resolv.conf(5),
    /// `search` and `ndots`).
    pub name: ServiceName,
    /// Port of every Pod. Not used with SRV records, which carry each Pod's port.
    pub port: u16,
    /// Name servers, in order of preference. Default: empty, which selects those of
    /// [`resolv_conf`](Self::resolv_conf).
    pub nameservers: Vec<SocketAddr>,
    /// Name of the Service's port. If set, lookups query SRV records (`_port._tcp.name`), which carry each Pod's name
    /// and port. A port without a name has no SRV records (Kubernetes DNS specification, 2.4.2). Default: none, which
    /// selects A and AAAA records.
    pub srv_port_name: Option<String>,
    /// Time after which a lookup fails, all name servers included. While the search list is tried, each of its names
    /// has this much time. Default: 2 s.
    pub timeout: Duration,
    /// Time without a response after which the next name server is queried as well. Default: 300 ms.
    pub hedge: Duration,
    /// File with the name servers and the search list. It is read again whenever it changes. Default:
    /// `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// Port of the name servers in [`resolv_conf`](Self::resolv_conf), whose syntax has no ports. Default: 53.
    pub nameserver_port: u16,
    /// True if loopback addresses are accepted from every name server. Default: false. They are then accepted only from
    /// a name server that is itself on loopback: those of any other would point to the client's own machine.
    pub allow_loopback: bool,
    /// True if a negative response (NXDOMAIN or NODATA) of one name server is checked with the next one. Default:
    /// false. A negative response is an answer, and the second name server may not serve the cluster's zone.
    pub retry_negative: bool,
    /// True if the queried name is written in random case, which the response must repeat (DNS 0x20 encoding). This
    /// makes responses harder to forge. Default: false. If a server responds in lower case, every lookup is repeated
    /// over TCP.
    pub randomize_case: bool,
}

impl DnsOptions {
    /// Returns the defaults, for the Pods behind `name` at `port`.
    #[must_use]
    pub fn new(name: ServiceName, port: u16) -> Self {
        Self {
            name,
            port,
            nameservers: Vec::new(),
            srv_port_name: None,
            timeout: DEFAULT_TIMEOUT,
            hedge: DEFAULT_HEDGE,
            resolv_conf: DEFAULT_RESOLV_CONF.into(),
            nameserver_port: DEFAULT_PORT,
            allow_loopback: false,
            retry_negative: false,
            randomize_case: false,
        }
    }
}
