//! The facts that a check gathers. [`diagnose`](crate::diagnose) decides what they mean.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use podpool::{Address, Config, Phase, Role, TlsReason, discovery::ResolveErrorKind};

/// All facts of one check.
pub(crate) struct Facts {
    pub(crate) config: Config,
    pub(crate) hosts: Vec<HostFacts>,
    pub(crate) pods: Vec<PodFacts>,
}

/// One configured host and its lookup. `None` if the host needs no lookup.
pub(crate) struct HostFacts {
    pub(crate) host: String,
    pub(crate) lookup: Option<Result<Answer, LookupFailure>>,
}

/// The result of a successful lookup.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The absolute name that was queried.
    pub(crate) name: String,
    /// The name server. `None` for a name that needs no DNS, such as `localhost`.
    pub(crate) server: Option<SocketAddr>,
    pub(crate) pods: usize,
    pub(crate) ttl: Duration,
    /// The address, if it is the Service's ClusterIP.
    pub(crate) cluster_ip: Option<IpAddr>,
}

#[derive(Clone, Debug)]
pub(crate) struct LookupFailure {
    pub(crate) kind: ResolveErrorKind,
    pub(crate) text: String,
}

/// One Pod, and the result of the attempt to use it.
pub(crate) struct PodFacts {
    /// The Pod's name and address.
    pub(crate) pod: String,
    pub(crate) address: Option<Address>,
    pub(crate) visit: Result<Server, Failure>,
    /// Time until the first response to a query, or until the failure.
    pub(crate) took: Duration,
}

/// A failed attempt to use a Pod.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failure {
    /// `None` if the pool cannot be built.
    pub(crate) phase: Option<Phase>,
    pub(crate) sqlstate: Option<String>,
    pub(crate) tls: Option<TlsReason>,
    pub(crate) io: Option<io::ErrorKind>,
    pub(crate) text: String,
}

/// The facts that a server reports about itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct Server {
    /// The value of `server_version_num`.
    pub(crate) version: i32,
    pub(crate) role: Role,
    /// True if the server's process is not the one that was announced at login.
    pub(crate) pooled: bool,
    /// True if `default_transaction_read_only` is on.
    pub(crate) read_only: bool,
    /// The server's own address for this connection. `None` for a Unix socket.
    pub(crate) own_address: Option<SocketAddr>,
    /// TLS version and cipher suite. `None` for a connection in plain text, as the server sees it.
    pub(crate) tls: Option<String>,
    pub(crate) max_connections: i32,
    /// Slots that are reserved for superusers and for members of `pg_use_reserved_connections`.
    pub(crate) reserved: i32,
    /// Sessions of all clients.
    pub(crate) sessions: i64,
    /// Maximum number of connections of this user to this database, as the library reports it.
    pub(crate) slots: Option<u32>,
    /// The cluster's identifier. `None` if the user may not read it.
    pub(crate) system: Option<i64>,
    pub(crate) timeline: Option<i32>,
    /// The position of the write-ahead log that a primary has written or a standby has replayed, in bytes.
    pub(crate) position: Option<i64>,
    /// Age of the last transaction that a standby has replayed.
    pub(crate) replayed_ago: Option<Duration>,
    /// True if a standby has a WAL receiver.
    pub(crate) receiving: bool,
    /// True if the replay of a standby is paused.
    pub(crate) paused: bool,
    /// True if the standby did not reach the primary's position within the time that the check waits for it.
    pub(crate) behind: bool,
    /// The server's clock minus this machine's, in seconds.
    pub(crate) clock: f64,
    /// Time of the query by which `clock` is uncertain.
    pub(crate) round_trip: Duration,
}

impl PodFacts {
    /// Returns the server, if the Pod can be used.
    pub(crate) fn server(&self) -> Option<&Server> {
        self.visit.as_ref().ok()
    }
}

impl Facts {
    /// Returns the Pods that can be used.
    pub(crate) fn servers(&self) -> impl Iterator<Item = (&PodFacts, &Server)> {
        self.pods.iter().filter_map(|pod| Some((pod, pod.server()?)))
    }
}

impl Server {
    /// Returns the number of slots that users without special privileges share.
    pub(crate) fn ordinary_slots(&self) -> i64 {
        i64::from(self.max_connections - self.reserved)
    }
}
