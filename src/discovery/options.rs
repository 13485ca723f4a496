use std::{net::SocketAddr, path::PathBuf, time::Duration};

use crate::{config::ServiceName, system::platform::hosts_file};

const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

const DEFAULT_HEDGE: Duration = Duration::from_millis(300);

const DEFAULT_RESOLV_CONF: &str = "/etc/resolv.conf";

const DEFAULT_CLUSTER_IP_AFTER: u32 = 5;

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
    /// Name servers, in order of preference. If empty, the name servers in [`resolv_conf`](Self::resolv_conf) are used,
    /// and lookups fail without this file, as on Windows. Default: empty.
    pub nameservers: Vec<SocketAddr>,
    /// Name of the Service's port. If set, lookups query SRV records (`_port._tcp.name`), which carry each Pod's name
    /// and port. A port without a name has no SRV records (Kubernetes DNS specification, 2.4.2). If `None`, lookups
    /// query A and AAAA records. Default: `None`.
    pub srv_port_name: Option<String>,
    /// True to use the weights and priorities of SRV records (RFC 2782), false to give all Pods weight 1 and priority
    /// 0. The weights of each priority are scaled so that the largest is
    /// [`WEIGHT_MAX`](crate::Endpoint::WEIGHT_MAX). Weight 0 becomes 1, a very small share. If all weights of a
    /// priority are 0, the shares are equal. Default: false, because Kubernetes leaves both to the DNS server.
    pub srv_weights: bool,
    /// Timeout of a lookup, including the queries to all name servers for all names of the search list. Default: 2 s.
    pub timeout: Duration,
    /// Time to wait for a name server's response before the next name server is queried as well. Default: 300 ms.
    pub hedge: Duration,
    /// File that contains the name servers and the search list. The file is re-read whenever it changes. Default:
    /// `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// File that contains the names with fixed addresses (hosts(5)). A name in this file is not queried in DNS, unless
    /// SRV records are queried. The file is re-read whenever it changes, and may be missing. Default: `/etc/hosts`, or
    /// on Windows `drivers\etc\hosts` in the system directory.
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
    /// Number of consecutive lookups with the same single address after which a PTR query determines whether this
    /// address is the Service's ClusterIP; the result is [`cluster_ip`](crate::discovery::DnsStats::cluster_ip). Not
    /// used with SRV records. 0: never. Default: 5, so that a Service with one Pod is not checked at once.
    pub cluster_ip_after: u32,
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
            srv_weights: false,
            timeout: DEFAULT_TIMEOUT,
            hedge: DEFAULT_HEDGE,
            resolv_conf: DEFAULT_RESOLV_CONF.into(),
            hosts: hosts_file(),
            nameserver_port: DEFAULT_PORT,
            allow_loopback: false,
            retry_negative: false,
            randomize_case: false,
            cluster_ip_after: DEFAULT_CLUSTER_IP_AFTER,
        }
    }
}
