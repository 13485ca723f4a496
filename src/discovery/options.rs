use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// How long one lookup may take, search list and all servers included, before it counts as failed.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a name server may be silent before the next one is asked too.
const DEFAULT_HEDGE: Duration = Duration::from_millis(300);

/// Where name servers and the search list come from unless told otherwise.
const DEFAULT_RESOLV_CONF: &str = "/etc/resolv.conf";

/// The port of DNS (RFC 1035 section 4.2).
const DEFAULT_PORT: u16 = 53;

/// What [`Dns`](crate::discovery::Dns) asks for, and of whom.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct DnsOptions {
    /// The name as it was given. A last dot makes it absolute.
    pub name: String,
    /// Whether the name is absolute although it has no last dot. Default: no, it is looked for along the search list,
    /// once (resolv.conf(5), `search` and `ndots`).
    pub absolute: bool,
    /// The port of every Pod. SRV records tell each Pod's own port and this one is not used.
    pub port: u16,
    /// The name servers, in order of preference. Empty, the default: those of [`resolv_conf`](Self::resolv_conf).
    pub nameservers: Vec<SocketAddr>,
    /// The name of the Service's port. Given, SRV records are asked for (`_port._tcp.name`), which tell each Pod's name
    /// and port; a port without a name has none (Kubernetes DNS specification, 2.4.2). Default: none, A and AAAA.
    pub srv_port_name: Option<String>,
    /// How long a lookup may take. Default: 2 s.
    pub timeout: Duration,
    /// How long a name server may be silent before the next one is asked too. Default: 300 ms.
    pub hedge: Duration,
    /// Where the name servers and the search list are read from; read again whenever the file changes. Default:
    /// `/etc/resolv.conf`.
    pub resolv_conf: PathBuf,
    /// The port of the name servers that are read from there, which tells none. Default: 53.
    pub nameserver_port: u16,
    /// Whether loopback addresses are taken from any name server. Default: no, only from one that is itself on
    /// loopback; from any other they would be the caller's own machine.
    pub allow_loopback: bool,
    /// Whether the other name servers are asked when one says that there is nothing. Default: no: that is an answer,
    /// and a second server may be one that knows nothing of the cluster.
    pub doubt_negative: bool,
    /// Whether the case of the letters asked for is drawn at random and must come back so (0x20), which makes answers
    /// harder to forge. Default: no. A server that answers in lower case costs a lookup by TCP each time.
    pub randomize_case: bool,
}

impl DnsOptions {
    /// The defaults, for the Pods behind `name` at `port`.
    #[must_use]
    pub fn new(name: impl Into<String>, port: u16) -> Self {
        Self {
            name: name.into(),
            absolute: false,
            port,
            nameservers: Vec::new(),
            srv_port_name: None,
            timeout: DEFAULT_TIMEOUT,
            hedge: DEFAULT_HEDGE,
            resolv_conf: DEFAULT_RESOLV_CONF.into(),
            nameserver_port: DEFAULT_PORT,
            allow_loopback: false,
            doubt_negative: false,
            randomize_case: false,
        }
    }
}
