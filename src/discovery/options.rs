use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::config::ServiceName;

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

const DEFAULT_HEDGE: Duration = Duration::from_millis(300);

const DEFAULT_RESOLV_CONF: &str = "/etc/resolv.conf";

const DEFAULT_HOSTS: &str = "/etc/hosts";

/// The standard DNS port (RFC 1035 section 4.2).
const DEFAULT_PORT: u16 = 53;

/// Options of a [`Dns`](crate::discovery::Dns) resolver.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DnsOptions {
    /// Name of the Service. If the name is relative, the first lookup appends the domains of the search list to it
    /// (resolv.conf(5), `search` and `ndots`).
    pub name: ServiceName,
    /// Port of every Pod. Not used with SRV records, which contain each Pod's port.
    pub port: u16,
    /// Name servers, in order of preference. If empty, the name servers in [`resolv_conf`](Self::resolv_conf) are used.
    /// Default: empty.
    pub nameservers: Vec<SocketAddr>,
    /// Name of the Service's port. If set, lookups query SRV records (`_port._tcp.name`), which carry each Pod's name
    /// and port. A port without a name has no SRV records (Kubernetes DNS specification, 2.4.2). If `None`, lookups
    /// query A and AAAA records. Default: `None`.
    pub srv_port_name: Option<String>,
    /// Timeout of a lookup, including the queries to all name servers. While the first lookup tries the search list,
    /// the timeout applies to each name separately. Default: 2 s.
    pub timeout: Duration,
    /// Time to wait for a name server's response before the next name server is queried as well. Default: 300 ms.
    pub hedge: Duration,
    /// File that contains the name servers and the search list. The file is re-read whenever it changes. Default:
    /// `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// File that contains the names with fixed addresses (hosts(5)). A name in this file is not queried in DNS, unless
    /// SRV records are queried. The file is re-read whenever it changes, and may be missing. Default: `/etc/hosts`.
    pub hosts: PathBuf,
    /// Port of the name servers in [`resolv_conf`](Self::resolv_conf), whose syntax has no ports. Default: 53.
    pub nameserver_port: u16,
    /// True to accept loopback addresses from every name server. If false, loopback addresses are accepted only from
    /// [`hosts`](Self::hosts), for `localhost`, and from a name server that has a loopback address itself. In the
    /// response of any other name server, a loopback address would point to the client's own machine. Default: false.
    pub allow_loopback: bool,
    /// True to query the next name server after a negative response (NXDOMAIN or NODATA). Default: false, because a
    /// negative response is an answer, and the next name server may not serve the cluster's zone.
    pub retry_negative: bool,
    /// True to send the queried name in random case, which the response must repeat (DNS 0x20 encoding). This makes
    /// responses harder to forge. Default: false, because every query to a server that responds in lower case is
    /// repeated over TCP.
    pub randomize_case: bool,
}

impl DnsOptions {
    /// Returns the default options for a Service and the port of its Pods.
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
            hosts: DEFAULT_HOSTS.into(),
            nameserver_port: DEFAULT_PORT,
            allow_loopback: false,
            retry_negative: false,
            randomize_case: false,
        }
    }
}
